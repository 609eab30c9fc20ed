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

    Tasks of data have one point before training, and need their `data` where budgets are in
    epochs; tasks of environments have one at each phase's start.
    """
    if isinstance(task, ReinforcementTask):
        budgets = [phase.steps for phase in task.phases]
        return _grid(budgets, task.evaluation.points, every_start=True)
    return _grid(_budgets(task, data), task.training.points, every_start=False)


def _budgets(task: Task, data: Dataset | None) -> list[int]:
    if data is None:
        if any(phase.updates is None for phase in task.phases):
            raise ValueError(f"{task.name} has budgets in epochs: its data must be given")
        return [phase.updates or 0 for phase in task.phases]
    return planned_steps(Stream(task, data, task.seeds[0]))


def _grid(budgets: Sequence[int], points: int, *, every_start: bool) -> tuple[list[int], list[int]]:
    phases, steps = [], []
    before = 0
    for index, budget in enumerate(budgets):
        start = [0] if every_start or index == 0 else []
        targets = start + points_of_phase(budget, points)
        phases += [index] * len(targets)
        steps += [before + target for target in targets]
        before += budget
    return phases, steps
