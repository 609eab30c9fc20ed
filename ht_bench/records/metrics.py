"""What is read off one run's curve: its final metric and how it got there. No torch.

A record is one seed's `result.json`. "Accuracy" below is the curve that its family is scored by
(`streams.families`): on the test set, on the phase's training examples where trainability is
measured, the evaluation return for streams of environments. A diverged run counts as guessing,
1 / classes or the uniform policy's return, in every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ht_bench.errors import UsageError
from ht_bench.streams.families import get_family

Record = Mapping[str, Any]


def metric_key(family: str) -> str:
    """Name the curve that `family` is scored by; raises UsageError for an unknown family."""
    return get_family(family).metric


def describe_metric(family: str) -> str:
    """Say in words what `final_metric` is for a family."""
    return get_family(family).words


def on_split(words: str, split: str) -> str:
    """Return the words of a metric for runs of a split: a validation run's curve is of no test."""
    is_test = words.startswith("test ")
    return words.replace("test", split, 1) if split == "validation" and is_test else words


def is_diverged(record: Record) -> bool:
    """Say whether the run ended early on a non-finite loss or weight."""
    return bool(record["status"] == "diverged")


def guessing(record: Record, classes: int) -> float:
    """Return what guessing gives: 1 / classes, or the uniform policy's return."""
    reference = record.get("reference")
    return float(reference["random"]) if reference else 1 / classes


def final_metric(record: Record, family: str, classes: int) -> float:
    """Return the number a run is scored by, as its family reads it (PROTOCOL, "Anchors and score").

    Raises UsageError naming the run that lacks what is read.
    """
    reading = get_family(family).reading
    if is_diverged(record):
        value = guessing(record, classes)
    elif reading.first is None:
        value = area_last_phase(record, family, classes)
    else:
        ends = phase_end_values(record, metric_key(family))
        counted = ends[reading.first(len(ends)) :]
        if not len(counted):
            raise UsageError(
                f"A phase is missing: '{family}' is scored on the phases after the first, but "
                f"{describe(record)} has only one; run it again."
            )
        value = float(counted.mean())
    return _human_normalised(record, value) if reading.human else value


def _human_normalised(record: Record, value: float) -> float:
    random, human = record["reference"]["random"], record["reference"]["human"]
    if human is None:
        raise UsageError(
            f"There is no human return to compare {describe(record)} with; add 'human' to the "
            "task's [reference]."
        )
    return float((value - random) / (human - random))


def last_phase_accuracy(record: Record, family: str, classes: int) -> float:
    """Return the accuracy (or return) at the end of the last phase."""
    if is_diverged(record):
        return guessing(record, classes)
    return float(phase_end_values(record, metric_key(family))[-1])


def area_last_phase(record: Record, family: str, classes: int) -> float:
    """Return the mean accuracy over the last phase's steps (trapezoids): how soon it learns.

    The phase starts right after the boundary, as its method and data left it. Curves of older
    versions have no such point (tasks of environments have): there it starts at its first one.
    """
    key = metric_key(family)
    if is_diverged(record):
        return guessing(record, classes)
    ends = phase_end_points(record)
    start = ends[-2] + 1 if len(ends) > 1 else 0
    steps = np.diff(curve(record, "step")[start:])
    accuracy = _finite(record, key, curve(record, key)[start:])
    if len(accuracy) == 1 and len(ends) > 1:
        return float(accuracy[0])
    if not len(steps) or steps.min() <= 0:
        raise UsageError(f"Steps do not rise in {describe(record)}; run it again.")
    return float(steps @ (accuracy[1:] + accuracy[:-1]) / 2 / steps.sum())


def retention(record: Record, classes: int) -> float | None:
    """Return the mean accuracy, at the end, on the phases before the last; None if untested."""
    if is_diverged(record):
        return guessing(record, classes)
    earlier = (record.get("retention") or [])[: max(record["curve"]["phase"])]
    return float(np.mean(earlier)) if earlier else None


def curve(record: Record, key: str) -> NDArray[np.float64]:
    """Return one curve [points], nan where nothing was measured.

    Raises UsageError naming the run that lacks it.
    """
    if key not in record["curve"]:
        raise UsageError(f"There is no curve '{key}' in {describe(record)}; run it again.")
    return np.asarray(record["curve"][key], dtype=np.float64)


def phase_end_points(record: Record) -> NDArray[np.intp]:
    """Return the index of each phase's last point in the curve, [phases]."""
    return phase_ends(record["curve"]["phase"])


def phase_ends(phases: Sequence[int]) -> NDArray[np.intp]:
    """Return the index of each phase's last point, [phases], from the points' phases."""
    return np.append(np.flatnonzero(np.diff(phases)), len(phases) - 1)


def phase_end_values(record: Record, key: str) -> NDArray[np.float64]:
    """Return one curve at the end of each phase, [phases]; raises UsageError on a missing one."""
    return _finite(record, key, curve(record, key)[phase_end_points(record)])


def _finite(record: Record, key: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise UsageError(
            f"'{key}' has no number where it is scored, though {describe(record)} is marked "
            "finished; delete its result and run again."
        )
    return values


def describe(record: Record) -> str:
    """Name a run in a sentence: task, method and seed."""
    return f"the run of '{record['method']}' on '{record['task']}' at seed {record['seed']}"
