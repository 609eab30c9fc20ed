"""What is read off one run's curve: its final metric and how it got there. No torch.

A record is one seed's `result.json`. "Accuracy" below is the family's own: on the test set, but
on the phase's training examples for `shuffled`, which measures trainability, and the evaluation
return for streams of environments. A diverged run counts as guessing, 1 / classes or the uniform
policy's return, in every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ht_bench.errors import UsageError

Record = Mapping[str, Any]

CONTROL = ("swap", "drift", "game-modes", "game-sequence", "atari-100k")
FAMILIES = (
    "warm-start", "warm-start-clean", "continual", "class-incremental", "permuted", "shuffled",
    *CONTROL,
)  # fmt: skip


def metric_key(family: str) -> str:
    """Name the curve that `family` is judged by; raises UsageError for an unknown family."""
    if family not in FAMILIES:
        raise UsageError(f"No metric is defined for the family '{family}'; known: {FAMILIES}.")
    if family in CONTROL:
        return "eval/return"
    return "train/accuracy" if family == "shuffled" else "test/accuracy"


def describe_metric(family: str) -> str:
    """Say in words what `final_metric` is for a family."""
    what = metric_key(family).replace("/", " ")
    if family == "atari-100k":
        return "human-normalised evaluation return at the end"
    if family in CONTROL:
        return "evaluation return, mean over the last phase's curve"
    if family in ("continual", "class-incremental"):
        return f"{what}, mean over the ends of phases after the first"
    if family in ("permuted", "shuffled"):
        return f"{what}, mean over the ends of the second half of the phases"
    return f"{what} at the end of the last phase"


def is_diverged(record: Record) -> bool:
    """Say whether the run ended early on a non-finite loss or weight."""
    return bool(record["status"] == "diverged")


def guessing(record: Record, classes: int) -> float:
    """Return what guessing gives: 1 / classes, or the uniform policy's return."""
    reference = record.get("reference")
    return float(reference["random"]) if reference else 1 / classes


def final_metric(record: Record, family: str, classes: int) -> float:
    """Return the number a run is scored by (PROTOCOL, "Anchors and score").

    `warm-start*`: accuracy at the end of the last phase. `continual`, `class-incremental`: its
    mean over the ends of the phases after the first. `permuted`, `shuffled`: its mean over the
    ends of the second half of the phases (of an odd number, the middle one included). Streams of
    environments: the mean evaluation return over the last phase's curve; `atari-100k`: the return
    at its end, 0 being a uniform policy's and 1 a human's.
    """
    key = metric_key(family)
    if family == "atari-100k":
        return _human_normalised(record)
    if is_diverged(record):
        return guessing(record, classes)
    if family in CONTROL:
        return area_last_phase(record, family, classes)
    ends = phase_end_values(record, key)
    if family in ("continual", "class-incremental"):
        if len(ends) < 2:
            raise UsageError(
                f"A phase is missing: '{family}' is judged on the phases after the first, but "
                f"{describe(record)} has only one; run it again."
            )
        return float(ends[1:].mean())
    if family in ("permuted", "shuffled"):
        return float(ends[len(ends) // 2 :].mean())
    return float(ends[-1])


def _human_normalised(record: Record) -> float:
    random, human = record["reference"]["random"], record["reference"]["human"]
    if human is None:
        raise UsageError(
            f"There is no human return to compare {describe(record)} with; add 'human' to the "
            "task's [reference]."
        )
    return (last_phase_accuracy(record, "atari-100k", 0) - random) / (human - random)


def last_phase_accuracy(record: Record, family: str, classes: int) -> float:
    """Return the accuracy (or return) at the end of the last phase."""
    if is_diverged(record):
        return guessing(record, classes)
    return float(phase_end_values(record, metric_key(family))[-1])


def area_last_phase(record: Record, family: str, classes: int) -> float:
    """Return the mean accuracy over the last phase's steps (trapezoids): how soon it learns.

    The phase starts at the end of the one before it; a lone phase, at the untrained network. In
    another environment the one before says nothing: there each phase has a point at its start.
    """
    key = metric_key(family)
    if is_diverged(record):
        return guessing(record, classes)
    ends = phase_end_points(record)
    start = ends[-2] + (family in CONTROL) if len(ends) > 1 else 0
    steps = np.diff(curve(record, "step")[start:])
    accuracy = _finite(record, key, curve(record, key)[start:])
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
            f"'{key}' has no number where it is judged, though {describe(record)} is marked "
            "finished; delete its result and run again."
        )
    return values


def describe(record: Record) -> str:
    """Name a run in a sentence: task, method and seed."""
    return f"the run of '{record['method']}' on '{record['task']}' at seed {record['seed']}"
