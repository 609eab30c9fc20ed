"""The three levels of a submission: valid, consistent, reproduced (PROTOCOL, "Submissions").

Nothing here trains: the command line hands in what does (`ht_bench.running.reruns`). What a
submission says of its own machine never weakens what is asked: on the very same software and
processor every bit must be equal, elsewhere the verifier measures the noise of rounding itself
(`leaderboard.twins`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.leaderboard.consistent import FirstPoints, consistency_faults
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.reading import MOST_FAULTS, Fault, Submission, json_path, plain
from ht_bench.leaderboard.reproduced import beyond_noise, claim_faults, differing, equal
from ht_bench.leaderboard.twins import ERROR_RATE, FEWEST_SEEDS
from ht_bench.leaderboard.valid import read_submission
from ht_bench.records.record import Record
from ht_bench.streams.seeds import format_seeds
from ht_bench.version import EPOCH

LEVELS = ("not valid", "valid", "consistent", "reproduced")
BITS, TWINS = "bit for bit", "rounding twins"
"""The two rules by which a run trained again is compared."""
IRRELEVANT = ("python", "ht_bench")
"""Software whose version decides no bits (the benchmark's major.minor does, and is checked)."""

Rerun = Callable[[KnownTask, Submission, Sequence[int], int], Mapping[int, Record]]
"""(task, submission, seeds, twin) → seed → the record of training it again.

twin: 0, or the number of a rounding twin: weights disturbed in their last bit at phase starts.
"""
Machine = Callable[[KnownTask, int], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""(task, CPU threads) → (software, hardware) of this machine, as records name them."""


@dataclass
class Report:
    """What `verify` found: the level reached, the faults that kept it from the next, notes.

    could_not: sentences on what could not be checked here (missing data, missing code). Sentences
    are lines of printable ASCII, whatever they quote. reruns: task → the seeds that were trained
    again and how they agreed. benchmark: the entry's epoch.
    """

    file: str
    name: str = ""
    sha256: str = ""
    level: str = LEVELS[0]
    faults: list[Fault] = field(default_factory=list)
    could_not: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reruns: dict[str, dict[str, Any]] = field(default_factory=dict)
    benchmark: str = ""

    @property
    def exit_code(self) -> int:
        """0: all that was asked holds; 1: something does not; 2: something could not be run."""
        return 1 if self.faults else 2 if self.could_not else 0

    def fail(self, sentence: str) -> None:
        """Add something that could not be checked here; what several tasks lack is said once."""
        if (said := plain(sentence)) not in self.could_not:
            self.could_not.append(said)

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


def verify(path: Path, checks: Checks, history: Container[str] = ()) -> Report:
    """Say how far one file gets.

    history: digests of committed files, which may be of an earlier epoch: what can be checked
    without that epoch's engine is, nothing is trained again.
    Raises UsageError where it cannot be read, or the seeds asked for are not the task's.
    """
    report = Report(str(path))
    submission, report.faults = read_submission(path, history)
    if submission is None:
        return report
    report.name, report.benchmark = submission.name, submission.benchmark
    report.sha256, report.level = submission.sha256, "valid"
    tasks = [known for known in map(find_known, submission.tasks) if isinstance(known, KnownTask)]
    if checks.first_points is None:
        return report
    for known in tasks:
        report.faults += _consistent(submission, known, checks, report)
    report.faults = report.faults[:MOST_FAULTS]
    if report.faults or report.could_not:
        return report
    report.level = "consistent"
    if submission.benchmark != EPOCH:
        _earlier(submission, checks, report)
        return report
    if checks.rerun is None:
        return report
    for known in tasks:
        report.faults += _reproduced(submission, known, checks, report)
    if not report.faults and not report.could_not:
        report.level = "reproduced"
    return report


def _earlier(submission: Submission, checks: Checks, report: Report) -> None:
    """Say what this epoch's engine cannot check of an entry of an earlier one."""
    own = submission.benchmark
    if checks.rerun is None:
        report.note(f"An entry of {own}: its untrained networks are those of {own}, not compared.")
    else:
        report.fail(
            f"An entry of {own} is not trained again by {EPOCH}, since numbers moved; install "
            f"ht-bench {own} for that."
        )


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
    if submission.benchmark != EPOCH:
        faults = consistency_faults(submission, known, {}, same_arithmetic=False)
        return [*itertools.islice(faults, MOST_FAULTS)]
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
    name = known.task.name
    seeds = _draw(checks.seeds, submission.seeds(name))
    try:
        return _compared(submission, known, seeds, checks, report)
    except CouldNotRun as error:
        report.fail(str(error))
        return []
    except UsageError as error:
        return [Fault(json_path(("tasks", name)), f"cannot be trained again: {error}")]


def _compared(
    submission: Submission,
    known: KnownTask,
    seeds: tuple[int, ...],
    checks: Checks,
    report: Report,
) -> list[Fault]:
    """Train seeds again, then ask for equal bits, or measure the noise where bits may differ."""
    assert checks.rerun is not None
    name = known.task.name
    again = dict(checks.rerun(known, submission, seeds, 0))
    record = next(iter(again.values()))
    other = _differences(submission, known, record["software"], record["hardware"])
    faults = [*claim_faults(submission, known, record)]
    bits = all(equal(submission, name, seed, again[seed]) for seed in seeds)
    outcome: dict[str, Any] = {"rule": BITS, "how": BITS}
    if not faults and not bits and not other:
        faults = [*differing(submission, known, again)]
    elif not faults and not bits:
        seeds, outcome, faults = _by_noise(submission, known, again, checks)
        report.note(f"{name}: equal bits were not asked for, since {other}.")
    elif bits and other:
        report.note(f"{name}: all bits are equal, although {other}.")
    report.reruns[name] = {
        "seeds": list(seeds),
        "agree": not faults,
        **(outcome if not faults else {**outcome, "how": "not at all"}),
        "hardware": _words(record),
    }
    claimed = submission.method["source_sha256"]
    if record["source_sha256"] != claimed:
        report.note(
            f"{name}: the code that was run again has another source hash "
            f"({record['source_sha256'][:12]}…) than the submission's ({claimed[:12]}…)."
        )
    return faults


def _by_noise(
    submission: Submission, known: KnownTask, again: dict[int, Record], checks: Checks
) -> tuple[tuple[int, ...], dict[str, Any], list[Fault]]:
    """Return the seeds, more of them if need be, how they agree, and what noise cannot explain."""
    assert checks.rerun is not None
    missing = _mates(known, again, submission.seeds(known.task.name), checks.seeds)
    if missing:
        again |= checks.rerun(known, submission, missing, 0)
    seeds = tuple(sorted(again))
    twins = checks.rerun(known, submission, seeds, 1)
    runs = {seed: [again[seed], twins[seed]] for seed in seeds}
    power, faults = beyond_noise(submission, known, runs, ERROR_RATE / len(submission.tasks))
    outcome = {
        "rule": TWINS,
        "how": f"within rounding noise ({len(seeds)} seeds, twice each)",
        "power": power,
    }
    return seeds, outcome, faults


def _mates(
    known: KnownTask,
    again: Mapping[int, Record],
    seeds: Sequence[int],
    asked: int | tuple[int, ...],
) -> tuple[int, ...]:
    """Draw seeds to measure noise on: FEWEST_SEEDS in all, or a stack, whose mates cost nothing."""
    if not isinstance(asked, int):
        if len(again) < min(FEWEST_SEEDS, len(seeds)):
            raise CouldNotRun(
                f"{known.task.name}: bits differ on this machine, and its noise is measured on "
                f"{FEWEST_SEEDS} seeds or more; name so many, or --rerun {FEWEST_SEEDS}."
            )
        return ()
    wanted = max(FEWEST_SEEDS, known.task.stack, len(again))
    rest = [seed for seed in seeds if seed not in again]
    return tuple(sorted(random.SystemRandom().sample(rest, min(len(rest), wanted - len(again)))))


def _words(record: Record) -> str:
    """Say in a line on what machine a record was made."""
    hardware, software = record["hardware"], record["software"]
    names = [hardware.get("gpu"), hardware.get("processor"), hardware.get("instructions")]
    return ", ".join([*(str(name) for name in names if name), f"torch {software['torch']}"])


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
