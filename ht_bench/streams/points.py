"""Where a curve has its points: after which steps of which phase. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from ht_bench.streams.dataset import Dataset
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.stream import Stream, planned_steps
from ht_bench.streams.task import AnyTask, Task


def points_of_phase(steps: int, points: int) -> list[int]:
    """Return the steps of a phase of `steps` after which its curve has a point; the last is one."""
    return sorted({max(1, k * steps // points) for k in range(1, points + 1)})


def curve_grid(task: AnyTask, data: Dataset | None = None) -> tuple[list[int], list[int]]:
    """Return the `phase` and `step` of every point of a finished run's curve on the test split.

    Each phase has a point at its start, at the same step as the end of the one before: what the
    method did at the boundary, seen by the new phase's tests. Tasks of data need their `data`
    where budgets are in epochs.
    """
    if isinstance(task, ReinforcementTask):
        budgets = [phase.steps for phase in task.phases]
        return _grid(budgets, task.evaluation.points)
    return _grid(_budgets(task, data), task.training.points)


def without_starts(phases: Sequence[int], steps: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return a grid without the starts of phases after the first, which older curves lack."""
    points = range(len(steps))
    inside = [i for i in points if i == 0 or steps[i] != steps[i - 1]]
    return [phases[i] for i in inside], [steps[i] for i in inside]


def _budgets(task: Task, data: Dataset | None) -> list[int]:
    if data is None:
        if any(phase.updates is None for phase in task.phases):
            raise ValueError(f"{task.name} has budgets in epochs: its data must be given")
        return [phase.updates or 0 for phase in task.phases]
    return planned_steps(Stream(task, data, task.seeds[0]))


def _grid(budgets: Sequence[int], points: int) -> tuple[list[int], list[int]]:
    phases, steps = [], []
    before = 0
    for index, budget in enumerate(budgets):
        targets = [0, *points_of_phase(budget, points)]
        phases += [index] * len(targets)
        steps += [before + target for target in targets]
        before += budget
    return phases, steps
