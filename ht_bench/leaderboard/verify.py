"""The three levels of a submission: valid, consistent, reproduced (PROTOCOL, "Submissions").

Nothing here trains: the command line hands in what does (`ht_bench.reruns`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.leaderboard.consistent import FirstPoints, consistency_faults
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.schema import Fault, json_path
from ht_bench.leaderboard.submission import Submission
from ht_bench.leaderboard.valid import read_submission
from ht_bench.results.metrics import final_metric, metric_key
from ht_bench.results.record import Record
from ht_bench.streams.seeds import format_seeds

LEVELS = ("not valid", "valid", "consistent", "reproduced")
IRRELEVANT = ("python", "ht_bench")
"""Software whose version decides no bits (the benchmark's major.minor does, and is checked)."""

Rerun = Callable[[KnownTask, Submission, Sequence[int]], Mapping[int, Record]]
"""(task, submission, seeds) → seed → the record of training it again."""
Machine = Callable[[KnownTask, int], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""(task, CPU threads) → (software, hardware) of this machine, as records name them."""


@dataclass
class Report:
    """What `verify` found: the level reached, the faults that kept it from the next, notes.

    could_not: sentences on what could not be judged here (missing data, missing code).
    reruns: task → the seeds that were trained again and how they agreed.
    """

    file: str
    name: str = ""
    sha256: str = ""
    level: str = LEVELS[0]
    faults: list[Fault] = field(default_factory=list)
    could_not: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reruns: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: all that was asked holds; 1: something does not; 2: something could not be run."""
        return 1 if self.faults else 2 if self.could_not else 0

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {**asdict(self), "exit_code": self.exit_code}


@dataclass(frozen=True)
class Judge:
    """What judging needs beside the file: the means to build and train networks.

    first_points: None stops at *valid*. rerun: None stops at *consistent*. seeds: how many seeds
    of each task to train again, drawn where the submitter cannot foresee them, or these.
    """

    machine: Machine
    first_points: FirstPoints | None = None
    rerun: Rerun | None = None
    seeds: int | tuple[int, ...] = 1


def verify(path: Path, judge: Judge) -> Report:
    """Judge one file; raises UsageError only where it cannot be read."""
    report = Report(str(path))
    submission, report.faults = read_submission(path)
    if submission is None:
        return report
    report.name, report.sha256, report.level = submission.name, submission.sha256, "valid"
    tasks = [known for known in map(find_known, submission.tasks) if isinstance(known, KnownTask)]
    if judge.first_points is None:
        return report
    for known in tasks:
        report.faults += _consistent(submission, known, judge, report)
    if report.faults or report.could_not:
        return report
    report.level = "consistent"
    if judge.rerun is None:
        return report
    for known in tasks:
        report.faults += _reproduced(submission, known, judge, report)
    if not report.faults and not report.could_not:
        report.level = "reproduced"
    return report


def _consistent(
    submission: Submission, known: KnownTask, judge: Judge, report: Report
) -> list[Fault]:
    assert judge.first_points is not None
    name = known.task.name
    if known.data is None and not known.is_control:
        report.could_not.append(
            f"{name} needs data that are not on this machine; fetch or import them "
            "(`ht-bench list data`)."
        )
        return []
    alike = _same_software(submission, known, judge) and _same_hardware(submission, known, judge)
    try:
        first = judge.first_points(known, submission)
    except UsageError as error:
        return [Fault(json_path(("method", "network")), str(error))]
    return [*consistency_faults(submission, known, first, same_arithmetic=alike)]


def _reproduced(
    submission: Submission, known: KnownTask, judge: Judge, report: Report
) -> list[Fault]:
    assert judge.rerun is not None
    name = known.task.name
    seeds = _draw(judge.seeds, submission.seeds(name))
    try:
        again = judge.rerun(known, submission, seeds)
    except CouldNotRun as error:
        report.could_not.append(str(error))
        return []
    except UsageError as error:
        return [Fault(json_path(("tasks", name, "hyperparameters")), str(error))]
    same_software = _same_software(submission, known, judge)
    exact = same_software and _same_hardware(submission, known, judge)
    faults = [*_disagreements(submission, known, again, exact)]
    bits = all(_equal(submission, name, seed, again[seed]) for seed in seeds)
    how = "bit for bit" if bits else f"within {known.task.tolerance:g}"
    report.reruns[name] = {
        "seeds": list(seeds),
        "agree": not faults,
        "how": how if not faults else "not at all",
    }
    if not same_software:
        report.notes.append(
            f"{name}: this machine has other software ({_differences(submission, known, judge)}), "
            f"so that agreement within the task's tolerance, {known.task.tolerance:g}, was asked."
        )
    source = next(iter(again.values()))["source_sha256"]
    if source != submission.method["source_sha256"]:
        report.notes.append(
            f"{name}: the code that was run again has another source hash ({source[:12]}…) than "
            f"the submission's ({submission.method['source_sha256'][:12]}…)."
        )
    return faults


class CouldNotRun(UsageError):
    """A rerun lacks something on this side: code that was not named, a device."""


def _draw(wanted: int | tuple[int, ...], seeds: Sequence[int]) -> tuple[int, ...]:
    if isinstance(wanted, tuple):
        foreign = [seed for seed in wanted if seed not in seeds]
        if foreign:
            raise UsageError(f"--seeds: the task has no evaluation seed {format_seeds(foreign)}.")
        return wanted
    drawn = random.SystemRandom().sample(list(seeds), min(wanted, len(seeds)))
    return tuple(sorted(drawn))


def _disagreements(
    submission: Submission, known: KnownTask, again: Mapping[int, Record], exact: bool
) -> Iterator[Fault]:
    name, tolerance = known.task.name, known.task.tolerance
    key = metric_key(known.task.family)
    hyperparameters = submission.tasks[name]["hyperparameters"]
    for seed, record in again.items():
        if record["hyperparameters"] != hyperparameters:
            yield Fault(
                json_path(("tasks", name, "hyperparameters")),
                f"are not all: the method trained with {str(record['hyperparameters'])[:200]}.",
            )
            return
        where = json_path(("tasks", name, "seeds", str(seed), "curve", key))
        if _equal(submission, name, seed, record):
            continue
        claimed = submission.record(name, seed, known.random)
        if exact:
            yield Fault(where, f"trained again, seed {seed} differs: {_first(claimed, record)}.")
            continue
        family, classes = known.task.family, known.classes
        mine, theirs = (final_metric(r, family, classes) for r in (record, claimed))
        apart = _mean_distance(claimed, record, key)
        if abs(mine - theirs) > tolerance or apart > tolerance:
            yield Fault(
                where,
                f"trained again, seed {seed} ends at {mine:.4g}, not {theirs:.4g}, and its curve "
                f"is {apart:.3g} away on average; the task tolerates {tolerance:g}.",
            )


def _compared(record: Record, keys: Sequence[str]) -> dict[str, Any]:
    found = {key: record["curve"].get(key) for key in ("phase", "step", *keys)}
    return {**found, **{key: record[key] for key in ("status", "steps", "retention")}}


def _equal(submission: Submission, task: str, seed: int, record: Record) -> bool:
    claimed = submission.record(task, seed)
    keys = list(submission.tasks[task]["seeds"][str(seed)]["curve"])
    return _compared(claimed, keys) == _compared(record, keys)


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


def _mean_distance(claimed: Record, record: Record, key: str) -> float:
    values = [np.array(r["curve"][key], dtype=np.float64) for r in (claimed, record)]
    both = np.isfinite(values[0]) & np.isfinite(values[1])
    return float(np.abs(values[0] - values[1])[both].mean()) if both.any() else float("inf")


def _here(submission: Submission, known: KnownTask, judge: Judge) -> tuple[dict[str, Any], Any]:
    threads = submission.software(known.task.name).get("threads", 1)
    software, hardware = judge.machine(known, threads if isinstance(threads, int) else 1)
    return dict(software), dict(hardware)


def _same_software(submission: Submission, known: KnownTask, judge: Judge) -> bool:
    return not _differences(submission, known, judge)


def _same_hardware(submission: Submission, known: KnownTask, judge: Judge) -> bool:
    claimed = submission.tasks[known.task.name]["hardware"]
    return dict(claimed) == _here(submission, known, judge)[1]


def _differences(submission: Submission, known: KnownTask, judge: Judge) -> str:
    theirs, mine = submission.software(known.task.name), _here(submission, known, judge)[0]
    names = [n for n in sorted({*theirs, *mine} - {*IRRELEVANT}) if theirs.get(n) != mine.get(n)]
    return ", ".join(f"{n} {mine.get(n, 'absent')}, not {theirs.get(n, 'absent')}" for n in names)
