"""Level *reproduced*: what a submission claims beside what training the same seeds again gave."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ht_bench.leaderboard import twins
from ht_bench.leaderboard.known import KnownTask
from ht_bench.leaderboard.reading import Fault, Submission, json_path
from ht_bench.leaderboard.twins import Excess, Quantity
from ht_bench.ranking.score import Array
from ht_bench.records.metrics import final_metric, guessing
from ht_bench.records.record import Record
from ht_bench.streams.families import get_family

Reruns = Mapping[int, Sequence[Record]]
"""Seed → records of training it again that differ by rounding alone."""


def equal(submission: Submission, task: str, seed: int, record: Record) -> bool:
    """Say whether a run trained again is the submitted one bit for bit."""
    claimed = submission.record(task, seed)
    return _compared(claimed, claimed["curve"]) == _compared(record, claimed["curve"])


def differing(
    submission: Submission, known: KnownTask, again: Mapping[int, Record]
) -> Iterator[Fault]:
    """Yield the seeds whose run trained again (seed → record) differs in a bit."""
    for seed, record in again.items():
        if not equal(submission, known.task.name, seed, record):
            claimed = submission.record(known.task.name, seed, known.random)
            where = json_path(("tasks", known.task.name, "seeds", str(seed)))
            yield Fault(where, f"trained again, seed {seed} differs: {_first(claimed, record)}.")


def beyond_noise(
    submission: Submission, known: KnownTask, again: Reruns, error_rate: float
) -> tuple[dict[str, float], list[Fault]]:
    """Compare claims with two or more reruns of each seed, as `leaderboard.twins` says.

    Returns the boosts of the final metric that would be caught with probability `twins.POWER`
    (as `twins.Power` names them), and what the noise of the reruns does not explain.
    """
    runs = _Runs(submission, known, again)
    quantities = [*runs.quantities()]
    faults = [*runs.outcome_faults()]
    faults += [runs.fault(excess) for excess in twins.excesses(quantities, error_rate)]
    return dataclasses.asdict(twins.power(quantities, error_rate)), faults


class _Runs:
    """Claimed and rerun records of a task, as arrays over its drawn seeds."""

    def __init__(self, submission: Submission, known: KnownTask, again: Reruns) -> None:
        name = known.task.name
        self._known, self._seeds = known, sorted(again)
        self._claimed = [submission.record(name, seed, known.random) for seed in self._seeds]
        self._again = [list(again[seed]) for seed in self._seeds]
        self._grid = submission.tasks[name]["grid"]
        self._phases = len(set(self._grid["phase"]))

    def quantities(self) -> Iterator[Quantity]:
        """Yield the final metric, each curve's mean and distances, and the mean retention."""
        classes, family = self._known.classes, get_family(self._known.task.family)
        yield Quantity(
            "the final metric",
            *self._numbers(lambda record: final_metric(record, family.name, classes)),
            self._resolution(family.metric, self._scored_points()),
            scored=True,
        )
        for key in self._claimed[0]["curve"]:
            if key not in ("phase", "step"):
                yield from self._of_curve(key)
        records = itertools.chain(self._claimed, *self._again)
        if all(record["retention"] for record in records):
            yield Quantity(
                "the mean retention",
                *self._numbers(lambda record: float(np.mean(record["retention"]))),
                self._resolution(family.metric, self._phases),
            )

    def _of_curve(self, key: str) -> Iterator[Quantity]:
        claimed = np.array([self._curve(record, key) for record in self._claimed])
        again = np.array([[self._curve(run, key) for run in runs] for runs in self._again])
        step, points = self._resolution(key, 1), claimed.shape[1]
        means = claimed.mean(axis=-1), again.mean(axis=-1)
        yield Quantity(f"the mean of {key}", *means, step / np.sqrt(points))
        mean, largest = twins.distances(claimed, again)
        yield Quantity(f"the mean distance of {key}", *mean, step, distance=True)
        yield Quantity(f"the largest distance of {key}", *largest, 2 * step, distance=True)

    def _numbers(self, read: Callable[[Record], float]) -> tuple[Array, Array]:
        claimed = np.array([read(record) for record in self._claimed])
        return claimed, np.array([[read(run) for run in runs] for runs in self._again])

    def _curve(self, record: Record, key: str) -> list[float]:
        """Return a curve at the claim's points; what a diverged run lacks counts as guessing."""
        guess = guessing(record, self._known.classes)
        return [guess if v is None else v for v in _at(record, self._grid, key)]

    def _resolution(self, key: str, points: int) -> float:
        """Return a test example's share of a mean over `points`; 1 % of the range of returns."""
        if self._known.is_control:
            values = [value for runs in self._again for value in self._curve(runs[0], key)]
            return 0.01 * (max(values) - min(values))
        sizes = self._known.sizes(self._seeds[0], key)
        return 1 / (min(sizes) if sizes else 1000) / float(np.sqrt(points))

    def _scored_points(self) -> int:
        first = get_family(self._known.task.family).reading.first
        return 1 if first is None else self._phases - first(self._phases)

    def outcome_faults(self) -> Iterator[Fault]:
        """What rounding cannot have changed: a status and steps on which all reruns agree."""
        for seed, claimed, runs in zip(self._seeds, self._claimed, self._again, strict=True):
            for key in ("status", "steps"):
                values = {run[key] for run in runs}
                if len(values) == 1 and {claimed[key]} != values:
                    said = f"trained again, {key} is {values.pop()}, not {claimed[key]}."
                    yield Fault(self._where(seed), said)
            if {claimed["retention"] is None} != {run["retention"] is None for run in runs}:
                yield Fault(self._where(seed), "trained again, what it retained is not that.")

    def fault(self, excess: Excess) -> Fault:
        """Say in a sentence what lies beyond its noise."""
        far = f"{excess.difference:+.4g}, noise explains {excess.allowed:.4g}"
        if excess.index is None:
            listed = f"{len(self._seeds)} seeds trained again"
            return Fault(self._where(None), f"{listed}, {excess.name} is off by {far} on average.")
        seed = self._seeds[excess.index]
        said = f"trained again, {excess.name} of seed {seed} is off by {far}."
        return Fault(self._where(seed), said)

    def _where(self, seed: int | None) -> str:
        place = ("tasks", self._known.task.name)
        return json_path(place if seed is None else (*place, "seeds", str(seed)))


def _at(record: Record, grid: Mapping[str, Any], key: str) -> list[Any]:
    """Return curve `key` at the points of `grid`, which may lack the starts of phases."""
    curve = record["curve"]
    points = zip(curve["phase"], curve["step"], strict=True)
    index = {point: i for i, point in enumerate(points)}
    wanted = zip(grid["phase"], grid["step"], strict=True)
    return [curve[key][index[point]] if point in index else None for point in wanted]


def _compared(record: Record, claimed: Mapping[str, Any]) -> dict[str, Any]:
    keys = claimed.keys() & record["curve"].keys()
    curves = {key: _at(record, claimed, key) for key in keys}
    return {**curves, **{key: record[key] for key in ("status", "steps", "retention")}}


def _first(claimed: Record, record: Record) -> str:
    """Say where two runs part."""
    for key, values in claimed["curve"].items():
        for point, (old, new) in enumerate(
            zip(values, _at(record, claimed["curve"], key), strict=True)
        ):
            if old != new:
                return f"{key} at point {point} is {new}, not {old}"
    for key in ("status", "steps", "retention"):
        if claimed[key] != record[key]:
            return f"{key} is {str(record[key])[:60]}, not {str(claimed[key])[:60]}"
    return "its curve has other points"


# ---- what a submission says of its method ----


def claim_faults(submission: Submission, known: KnownTask, record: Record) -> Iterator[Fault]:
    """Yield what a submission says of its method that the method that was run again has not."""
    table, method = submission.tasks[known.task.name], submission.method
    task = ("tasks", known.task.name)
    for key in ("hyperparameters", "extra_parameters"):
        yield from _claim_fault(table[key], record[key], (*task, key))
    for key in ("needs_boundaries", "network"):
        yield from _claim_fault(method[key], record["traits"][key], ("method", key))


def _claim_fault(claimed: Any, run: Any, place: tuple[str, ...]) -> Iterator[Fault]:
    run = json.loads(json.dumps(run))  # a tuple is written as a list
    if run != claimed:
        shown = json.dumps(run)[:200]
        yield Fault(json_path(place), f"is not what the method that was run again has: {shown}.")
