"""The three levels of a submission: valid, consistent, reproduced (PROTOCOL, "Submissions").

Nothing here trains: the command line hands in what does (`ht_bench.running.reruns`).
verified.json records which files a maintainer has verified, how far, and by which reruns.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
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

    could_not: sentences on what could not be checked here (missing data, missing code). Sentences
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
        """Add something that could not be checked here."""
        self.could_not.append(plain(sentence))

    def note(self, sentence: str) -> None:
        """Add a remark that changes no verdict."""
        self.notes.append(plain(sentence))

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {**asdict(self), "exit_code": self.exit_code}


@dataclass(frozen=True)
class Checks:
    """What verifying needs beside the file: how to build and train networks.

    first_points: None stops at *valid*. rerun: None stops at *consistent*. seeds: how many seeds
    of each task to train again, drawn where the submitter cannot foresee them, or these.
    """

    machine: Machine
    first_points: FirstPoints | None = None
    rerun: Rerun | None = None
    seeds: int | tuple[int, ...] = 1


def verify(path: Path, checks: Checks) -> Report:
    """Say how far one file gets.

    Raises UsageError where it cannot be read, or the seeds asked for are not the task's.
    """
    report = Report(str(path))
    submission, report.faults = read_submission(path)
    if submission is None:
        return report
    report.name, report.sha256, report.level = submission.name, submission.sha256, "valid"
    tasks = [known for known in map(find_known, submission.tasks) if isinstance(known, KnownTask)]
    if checks.first_points is None:
        return report
    for known in tasks:
        report.faults += _consistent(submission, known, checks, report)
    report.faults = report.faults[:MOST_FAULTS]
    if report.faults or report.could_not:
        return report
    report.level = "consistent"
    if checks.rerun is None:
        return report
    for known in tasks:
        report.faults += _reproduced(submission, known, checks, report)
    if not report.faults and not report.could_not:
        report.level = "reproduced"
    return report


def _consistent(
    submission: Submission, known: KnownTask, checks: Checks, report: Report
) -> list[Fault]:
    assert checks.first_points is not None
    name = known.task.name
    if known.data is None and not known.is_control:
        report.fail(
            f"{name} needs data that are not on this machine; fetch or import them "
            "(`ht-bench list data`)."
        )
        return []
    alike = not _differences(submission, known, *_here(submission, known, checks))
    try:
        first = checks.first_points(known, submission)
    except UsageError as error:
        return [Fault(json_path(("method", "network")), str(error))]
    faults = consistency_faults(submission, known, first, same_arithmetic=alike)
    return [*itertools.islice(faults, MOST_FAULTS)]


def _reproduced(
    submission: Submission, known: KnownTask, checks: Checks, report: Report
) -> list[Fault]:
    assert checks.rerun is not None
    name = known.task.name
    seeds = _draw(checks.seeds, submission.seeds(name))
    try:
        again = checks.rerun(known, submission, seeds)
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


def _draw(count: int | tuple[int, ...], seeds: Sequence[int]) -> tuple[int, ...]:
    if isinstance(count, int):
        drawn = random.SystemRandom().sample(list(seeds), min(max(1, count), len(seeds)))
        return tuple(sorted(drawn))
    if foreign := [seed for seed in count if seed not in seeds]:
        raise UsageError(f"--seeds: the task has no evaluation seed {format_seeds(foreign)}.")
    return count


def _here(
    submission: Submission, known: KnownTask, checks: Checks
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    threads = submission.software(known.task.name).get("threads", 1)
    return checks.machine(known, threads if isinstance(threads, int) else 1)


def _differences(
    submission: Submission,
    known: KnownTask,
    software: Mapping[str, Any],
    hardware: Mapping[str, Any],
) -> str:
    """Say in what another machine differs so that bits may; "" if in nothing."""
    table = submission.tasks[known.task.name]
    pairs = (("software", table["software"], software), ("hardware", table["hardware"], hardware))
    return " and ".join(
        f"this machine has other {kind} ({name} {mine.get(name, 'absent')}, not "
        f"{theirs.get(name, 'absent')})"
        for kind, theirs, mine in pairs
        for name in sorted({*theirs, *mine} - {*IRRELEVANT})
        if theirs.get(name) != mine.get(name)
    )


# ---- verified.json ----

Verified = Mapping[str, Mapping[str, Any]]
"""Entry's name → {"sha256": of the file, "level": …, "reruns": task → seeds, "how": [words]}."""


def read_verified(path: Path) -> Verified:
    """Return the record of verified files; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries.values():
            entry["sha256"], LEVELS.index(entry["level"])
    except OSError as error:
        raise UsageError(f"Could not read {path}: {error.strerror or error}.") from error
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} must be JSON, an object of objects with 'sha256' and 'level' ({error}); "
            "restore the file."
        ) from error
    return dict(entries)


def add_report(path: Path, report: Report) -> None:
    """Record how far a file got.

    A lower level of the same file does not replace a higher one, unless a fault was found: what
    was called good by luck of the seeds is not good any more.
    """
    entries = dict(read_verified(path))
    before = entries.get(report.name, {})
    lower = LEVELS.index(report.level) < LEVELS.index(before.get("level", LEVELS[0]))
    if lower and before["sha256"] == report.sha256 and not report.faults:
        return
    agreeing = {task: rerun for task, rerun in report.reruns.items() if rerun["agree"]}
    entries[report.name] = {
        "sha256": report.sha256,
        "level": report.level,
        "reruns": {task: rerun["seeds"] for task, rerun in agreeing.items()},
        "how": sorted({str(rerun["how"]) for rerun in agreeing.values()}),
    }
    lines = [f" {json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries)]
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def level_of(submission: Submission, verified: Verified) -> tuple[str, Mapping[str, Any]]:
    """Return (level, the record's entry): "valid" unless this very file was verified further."""
    entry = verified.get(submission.name, {})
    if entry.get("sha256") != submission.sha256 or entry.get("level") not in LEVELS[1:]:
        return LEVELS[1], {}
    return str(entry["level"]), entry
