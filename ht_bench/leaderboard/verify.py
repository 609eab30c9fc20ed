"""The three levels of a submission: valid, consistent, reproduced (PROTOCOL, "Submissions").

Nothing here trains: the command line hands in what does (`ht_bench.running.reruns`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.leaderboard.consistent import FirstPoints, consistency_faults
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.reading import MOST_FAULTS, Fault, Submission, json_path, plain
from ht_bench.leaderboard.reproduced import disagreements, equal
from ht_bench.leaderboard.valid import read_submission
from ht_bench.records.record import Record
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

    could_not: sentences on what could not be judged here (missing data, missing code). Sentences
    are lines of printable ASCII, whatever they quote. reruns: task → the seeds that were trained
    again and how they agreed.
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

    def fail(self, sentence: str) -> None:
        """Add something that could not be judged here."""
        self.could_not.append(plain(sentence))

    def note(self, sentence: str) -> None:
        """Add a remark that changes no verdict."""
        self.notes.append(plain(sentence))

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
    """Judge one file.

    Raises UsageError where it cannot be read, or the seeds asked for are not the task's.
    """
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
    report.faults = report.faults[:MOST_FAULTS]
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
        report.fail(
            f"{name} needs data that are not on this machine; fetch or import them "
            "(`ht-bench list data`)."
        )
        return []
    alike = not _differences(submission, known, *_here(submission, known, judge))
    try:
        first = judge.first_points(known, submission)
    except UsageError as error:
        return [Fault(json_path(("method", "network")), str(error))]
    found = consistency_faults(submission, known, first, same_arithmetic=alike)
    return [*itertools.islice(found, MOST_FAULTS)]


def _reproduced(
    submission: Submission, known: KnownTask, judge: Judge, report: Report
) -> list[Fault]:
    assert judge.rerun is not None
    name = known.task.name
    seeds = _draw(judge.seeds, submission.seeds(name))
    try:
        again = judge.rerun(known, submission, seeds)
    except CouldNotRun as error:
        report.fail(str(error))
        return []
    except UsageError as error:
        return [Fault(json_path(("tasks", name)), f"cannot be trained again: {error}")]
    record = next(iter(again.values()))
    other = _differences(submission, known, record["software"], record["hardware"])
    faults = [*disagreements(submission, known, again, exact=not other)]
    bits = all(equal(submission, name, seed, again[seed]) for seed in seeds)
    how = "bit for bit" if bits else f"within {known.task.tolerance:g}"
    report.reruns[name] = {
        "seeds": list(seeds),
        "agree": not faults,
        "how": how if not faults else "not at all",
    }
    if other:
        report.note(
            f"{name}: agreement within the task's tolerance, {known.task.tolerance:g}, was asked, "
            f"since {other}."
        )
    claimed = submission.method["source_sha256"]
    if record["source_sha256"] != claimed:
        report.note(
            f"{name}: the code that was run again has another source hash "
            f"({record['source_sha256'][:12]}…) than the submission's ({claimed[:12]}…)."
        )
    return faults


class CouldNotRun(UsageError):
    """A rerun failed on this side: code that was not named or broke, a device that is absent."""


def _draw(wanted: int | tuple[int, ...], seeds: Sequence[int]) -> tuple[int, ...]:
    if isinstance(wanted, tuple):
        foreign = [seed for seed in wanted if seed not in seeds]
        if foreign:
            raise UsageError(f"--seeds: the task has no evaluation seed {format_seeds(foreign)}.")
        return wanted
    drawn = random.SystemRandom().sample(list(seeds), min(max(1, wanted), len(seeds)))
    return tuple(sorted(drawn))


def _here(
    submission: Submission, known: KnownTask, judge: Judge
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    threads = submission.software(known.task.name).get("threads", 1)
    return judge.machine(known, threads if isinstance(threads, int) else 1)


def _differences(
    submission: Submission,
    known: KnownTask,
    software: Mapping[str, Any],
    hardware: Mapping[str, Any],
) -> str:
    """Say in what another machine differs so that bits may; "" if in nothing."""
    table = submission.tasks[known.task.name]
    pairs = (("software", table["software"], software), ("hardware", table["hardware"], hardware))
    found = []
    for kind, theirs, mine in pairs:
        names = sorted({*theirs, *mine} - {*IRRELEVANT})
        found += [
            f"this machine has other {kind} ({n} {mine.get(n, 'absent')}, not "
            f"{theirs.get(n, 'absent')})"
            for n in names
            if theirs.get(n) != mine.get(n)
        ]
    return " and ".join(found)
