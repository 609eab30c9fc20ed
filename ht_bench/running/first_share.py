"""The first share of a stream, which is all that k %-tuning sees, and a run's score on it.

k %-tuning: Mesbahi et al. 2024, 2404.02113. Hyperparameters are chosen on the first k % of an
agent's or a network's life, since a life cannot be lived through beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.records.metrics import (
    Record,
    area_last_phase,
    guessing,
    is_diverged,
    metric_key,
    phase_end_points,
    phase_end_values,
)
from ht_bench.running.kinds import dataset
from ht_bench.streams.families import get_family
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.stream import Stream, planned_steps
from ht_bench.streams.task import AnyTask, Task


def first_share(task: AnyTask, share: float) -> AnyTask:
    """Return the task whose stream ends after a share of its steps, the last phase cut there.

    Its name stays, and with it every random draw, so that its runs begin as those of the whole
    task do; its hash differs, so that no result of one counts as the other's. What a task states as
    a share of a phase keeps its length in steps if the first phase is the one cut: the warm-up of
    the learning rate, DQN's exploration. In a later phase that is cut it is a share of the steps
    that are left.

    Raises UsageError for a share that is not above 0 and at most 1, or that leaves no step.
    """
    if not 0 < share <= 1:
        raise UsageError(f"--share {share}: a share lies above 0 and at most at 1.")
    steps = phase_steps_of(task)
    kept = _kept(steps, share, _multiple(task))
    if not kept:
        raise UsageError(
            f"--share {share}: that is less than {_multiple(task)} of {task.name}'s {sum(steps)} "
            "steps, at which its curve can have a point; give more."
        )
    last = len(kept) - 1
    stretch = steps[0] / kept[0]
    if isinstance(task, ReinforcementTask):
        ends = replace(task.phases[last], steps=kept[last])
        agent = replace(task.agent, settings=_stretched(task.agent.settings, stretch))
        return replace(task, agent=agent, phases=(*task.phases[:last], ends))
    cut = replace(task.phases[last], updates=kept[last], epochs=None)
    phases = task.phases[: last + 1] if kept[last] == steps[last] else (*task.phases[:last], cut)
    warmup = min(1.0, task.optimizer.warmup * stretch)
    return replace(task, optimizer=replace(task.optimizer, warmup=warmup), phases=phases)


def phase_steps_of(task: AnyTask) -> list[int]:
    """Return the steps of each phase: updates, or environment steps."""
    if isinstance(task, ReinforcementTask):
        return [phase.steps for phase in task.phases]
    return planned_steps(Stream(task, dataset(task.data.name), task.seeds[0], "validation"))


def _kept(steps: Sequence[int], share: float, multiple: int) -> list[int]:
    """Return the steps of the phases that begin within the share, the last of them cut."""
    kept, left = [], int(share * sum(steps) + 1e-6)
    for phase in steps:
        taken = phase if phase <= left else left // multiple * multiple
        if not taken:
            break
        kept.append(taken)
        left -= taken
        if taken < phase:
            break
    return kept


def _multiple(task: AnyTask) -> int:
    """Return what the budget of a phase is a multiple of."""
    if isinstance(task, Task):
        return 1
    from ht_bench.training.agent import experience_steps  # imports stable-baselines3

    copies = task.environment.copies
    return math.lcm(copies * task.evaluation.points, experience_steps(task.agent, copies))


def _stretched(settings: Any, stretch: float) -> dict[str, Any]:
    changed = dict(settings)
    if "exploration_fraction" in changed:
        changed["exploration_fraction"] = min(1.0, changed["exploration_fraction"] * stretch)
    return changed


def first_metric(record: Record, task: AnyTask, whole: AnyTask) -> float:
    """Return what a run on the first share of a stream is scored by.

    The mean, over the phases that were seen, of the family's curve (accuracy, or return) at the
    phase's end; of families that are scored by the last phase's curve, of the mean over each
    phase's curve. A phase that was cut counts by the share of its steps that was trained, any other
    fully, the first phase too. Returns stay as they are, not human-normalised. A diverged run
    counts as guessing.

    task: the cut task that was run. whole: the one it was cut from.
    """
    if is_diverged(record):
        return guessing(record, record["classes"])
    pairs = zip(phase_steps_of(task), phase_steps_of(whole), strict=False)
    weights = [cut / full for cut, full in pairs]
    if get_family(task.family).reading.first is None:
        ends = phase_end_points(record)
        values = [area_last_phase(_until(record, end), task.family, 0) for end in ends]
    else:
        values = phase_end_values(record, metric_key(task.family)).tolist()
    return float(np.average(values, weights=weights))


def _until(record: Record, end: int) -> Record:
    return {**record, "curve": {key: values[: end + 1] for key, values in record["curve"].items()}}
