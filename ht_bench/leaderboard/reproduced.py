"""Level *reproduced*: what a submission claims beside what training the same seeds again gave."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ht_bench.leaderboard.known import KnownTask
from ht_bench.leaderboard.reading import Fault, Submission, json_path
from ht_bench.records.metrics import final_metric
from ht_bench.records.record import Record


def disagreements(
    submission: Submission, known: KnownTask, again: Mapping[int, Record], *, exact: bool
) -> Iterator[Fault]:
    """Yield where runs trained again (seed → record) are not what was submitted.

    exact: software, processor and threads are the same, so every bit must be; otherwise every
    curve on average, the final metric and the mean retention within the task's tolerance.
    """
    claims = [*_claim_faults(submission, known, next(iter(again.values())))]
    yield from claims
    for seed, record in again.items() if not claims else ():
        if equal(submission, known.task.name, seed, record):
            continue
        where = json_path(("tasks", known.task.name, "seeds", str(seed)))
        claimed = submission.record(known.task.name, seed, known.random)
        if exact:
            yield Fault(where, f"trained again, seed {seed} differs: {_first(claimed, record)}.")
        else:
            yield from _distance_faults(claimed, record, known, where)


def equal(submission: Submission, task: str, seed: int, record: Record) -> bool:
    """Say whether a run trained again is the submitted one bit for bit."""
    claimed = submission.record(task, seed)
    keys = list(submission.tasks[task]["seeds"][str(seed)]["curve"])
    return _compared(claimed, keys) == _compared(record, keys)


def _compared(record: Record, keys: Sequence[str]) -> dict[str, Any]:
    curves = {key: record["curve"].get(key) for key in ("phase", "step", *keys)}
    return {**curves, **{key: record[key] for key in ("status", "steps", "retention")}}


def _claim_faults(submission: Submission, known: KnownTask, record: Record) -> Iterator[Fault]:
    """What a submission says of its method beside what the method that was run is."""
    table, method = submission.tasks[known.task.name], submission.method
    task = ("tasks", known.task.name)
    yield from _claim_fault(
        table["hyperparameters"], record["hyperparameters"], (*task, "hyperparameters")
    )
    extra = "extra_parameters"
    yield from _claim_fault(table[extra], record[extra], (*task, extra))
    for key in ("needs_boundaries", "network"):
        yield from _claim_fault(method[key], record["traits"][key], ("method", key))


def _claim_fault(claimed: Any, run: Any, place: tuple[str, ...]) -> Iterator[Fault]:
    run = json.loads(json.dumps(run))  # a tuple is written as a list
    if run != claimed:
        shown = json.dumps(run)[:200]
        yield Fault(json_path(place), f"is not what the method that was run again has: {shown}.")


def _first(claimed: Record, record: Record) -> str:
    """Say where two runs part."""
    for key, values in claimed["curve"].items():
        for point, (old, new) in enumerate(zip(values, record["curve"][key], strict=True)):
            if old != new:
                return f"{key} at point {point} is {new}, not {old}"
    for key in ("status", "steps", "retention"):
        if claimed[key] != record[key]:
            return f"{key} is {str(record[key])[:60]}, not {str(claimed[key])[:60]}"
    return "its curve has other points"


def _distance_faults(
    claimed: Record, record: Record, known: KnownTask, where: str
) -> Iterator[Fault]:
    family, classes, tolerance = known.task.family, known.classes, known.task.tolerance
    mine, theirs = (final_metric(r, family, classes) for r in (record, claimed))
    apart = {"final metric": abs(mine - theirs)}
    for key in claimed["curve"].keys() - {"phase", "step"}:
        apart[key] = _curve_distance(claimed["curve"][key], record["curve"][key])
    apart["retention"] = _mean_distance(claimed["retention"], record["retention"])
    far = {name: distance for name, distance in apart.items() if distance > tolerance}
    if far:
        listed = ", ".join(f"{name} by {distance:.3g}" for name, distance in sorted(far.items()))
        yield Fault(
            where,
            f"trained again, it ends at {mine:.4g}, not {theirs:.4g}, and differs on average in "
            f"{listed}; the task tolerates {tolerance:g}.",
        )


def _curve_distance(claimed: Sequence[float | None], again: Sequence[float | None]) -> float:
    """Mean distance of two curves' points; points that only one of them has are infinitely far."""
    pairs = np.array([claimed, again], dtype=np.float64)
    distances = np.abs(pairs[0] - pairs[1])
    lacking = np.isnan(pairs)
    distances[lacking.all(axis=0)] = 0
    distances[lacking.any(axis=0) & ~lacking.all(axis=0)] = np.inf
    return float(distances.mean())


def _mean_distance(claimed: Sequence[float] | None, again: Sequence[float] | None) -> float:
    if claimed is None or again is None:
        return 0.0 if claimed is again else float("inf")
    return abs(float(np.mean(claimed)) - float(np.mean(again)))
