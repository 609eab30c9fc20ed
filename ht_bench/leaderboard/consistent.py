"""Level *consistent*: curves that a run of the task can have drawn, checked without training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ht_bench.leaderboard.known import KnownTask
from ht_bench.leaderboard.reading import Fault, Submission, json_path
from ht_bench.records.metrics import metric_key
from ht_bench.streams.families import get_family

FirstPoints = Callable[[KnownTask, Submission], Mapping[int, Mapping[str, float]]]
"""(task, submission) → seed → curve → what the untrained network gives there, recomputed."""
ROUNDING = 1e-9
SLACK = 2
"""Test examples whose class other arithmetic may turn around in an untrained network."""


def consistency_faults(
    submission: Submission,
    known: KnownTask,
    first_points: Mapping[int, Mapping[str, float]],
    *,
    same_arithmetic: bool,
) -> Iterator[Fault]:
    """Yield what no run of the task can have given.

    first_points: seed → curve → the untrained network's value, recomputed. same_arithmetic: it
    was recomputed with the submission's software on its kind of processor, so that it must be
    met exactly; otherwise within SLACK test examples, and the untrained agents of tasks of
    environments, whose episodes other arithmetic changes, are not compared.
    """
    table = submission.tasks[known.task.name]
    sizes_alike = not get_family(known.task.family).by_class
    sizes: dict[str, list[int] | None] = {}
    for seed in submission.seeds(known.task.name):
        run = table["seeds"][str(seed)]
        place = ("tasks", known.task.name, "seeds", str(seed))
        for key, values in run["curve"].items():
            if key not in sizes or not sizes_alike:
                sizes[key] = known.sizes(seed, key)
            counts = sizes[key]
            where = json_path((*place, "curve", key))
            if counts is not None:
                guess = 1 / known.classes if run["status"] == "diverged" else None
                yield from _fraction_faults(values, table["grid"]["phase"], counts, guess, where)
            if key in first_points.get(seed, {}):
                expected = first_points[seed][key]
                yield from _first_faults(
                    values[0], expected, counts, where, same_arithmetic=same_arithmetic
                )
        yield from _retention_faults(run, known, seed, json_path((*place, "retention")))


def _fraction_faults(
    values: Sequence[float],
    phases: Sequence[int],
    sizes: Sequence[int],
    guess: float | None,
    where: str,
) -> Iterator[Fault]:
    """Accuracies are whole numbers of examples; `guess` stands where a diverged run has none."""
    counts = np.asarray(sizes, dtype=np.float64)[np.asarray(phases)]
    right = np.asarray(values, dtype=np.float64) * counts
    off = np.abs(right - np.round(right)) > ROUNDING * counts + 1e-7
    broken = np.flatnonzero(off & (np.asarray(values) != guess))
    if broken.size:
        point = int(broken[0])
        yield Fault(
            where,
            f"{values[point]} at point {point} is no whole number of {int(counts[point])} "
            "examples.",
        )


def _first_faults(
    value: float | None,
    expected: float,
    sizes: Sequence[int] | None,
    where: str,
    *,
    same_arithmetic: bool,
) -> Iterator[Fault]:
    if value is None or (sizes is None and not same_arithmetic):
        return
    slack = 0.0 if same_arithmetic or sizes is None else SLACK / sizes[0]
    if abs(value - expected) > slack + ROUNDING:
        yield Fault(
            where,
            f"begins at {value:g}, but the seed's untrained network gives {expected:g}.",
        )


def _retention_faults(
    run: Mapping[str, Any], known: KnownTask, seed: int, where: str
) -> Iterator[Fault]:
    """Whole numbers of examples; the last phase's is the curve's last point, measured again."""
    if run["retention"] is None:
        return
    counts = known.sizes(seed, "test/accuracy")
    if counts is not None:
        yield from _fraction_faults(run["retention"], range(len(counts)), counts, None, where)
    if run["status"] == "diverged":
        return
    key = "eval/return" if known.is_control else "test/accuracy"
    last, again = run["curve"][key][-1], run["retention"][-1]
    if metric_key(known.task.family) != "train/accuracy" and abs(last - again) > ROUNDING:
        yield Fault(where, f"ends at {again:g}, its curve at {last:g}.")
