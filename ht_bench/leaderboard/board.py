"""The board: submissions → records → the one ranking, recomputed from committed curves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.valid import read_submission
from ht_bench.leaderboard.verified import Verified, digests, has_changed, level_of
from ht_bench.ranking.comparison import Table, make_table
from ht_bench.ranking.curves import MeanCurve, mean_curve
from ht_bench.ranking.entries import Setting, TaskInfo
from ht_bench.ranking.pairs import Measured, PairedTask, measure
from ht_bench.records.metrics import metric_key
from ht_bench.streams.suite import Suite, known_suites
from ht_bench.version import EPOCH, epoch_order

ABILITIES = ("core", "noisy-start", "clean-start", "shift", "images", "trainability", "control")
"""The order of suites: generalization first, from the paper's own question on."""
SETTING = Setting("test", "any precision", "any device")


@dataclass(frozen=True, eq=False)
class TaskRuns:
    """A submission's runs of one task. words: what it says of them (hyperparameters, software)."""

    known: KnownTask
    runs: Measured
    curve: MeanCurve | None
    words: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Submitted:
    """A submission without its raw curves. about: its content without the tasks.

    level: how far it was verified; changed: whether the verified file was another one. verdict:
    its record (`leaderboard.verified`), empty without one: reruns, rules, hardware.
    """

    name: str
    about: Mapping[str, Any]
    sha256: str
    level: str
    changed: bool
    verdict: Mapping[str, Any]
    tasks: Mapping[str, TaskRuns]

    @property
    def benchmark(self) -> str:
        """The comparability epoch of its runs; only entries of one epoch share a board."""
        return str(self.about["benchmark"])

    @property
    def needs_boundaries(self) -> bool:
        """Whether the method must be told when the data change."""
        return bool(self.about["method"]["needs_boundaries"])


@dataclass(frozen=True)
class Board:
    """Everything that the page shows: tables of suites and of tasks, and what they are made of.

    benchmark: the epoch of all its entries. titles: of suites and tasks. pairs: per task, its
    entries and anchors; frozen: the tasks whose anchors stand in a released suite.
    """

    benchmark: str
    entries: Mapping[str, Submitted]
    suites: tuple[Table, ...]
    tasks: tuple[Table, ...]
    titles: Mapping[str, str]
    known: Mapping[str, KnownTask]
    pairs: Mapping[str, PairedTask]
    frozen: frozenset[str]


def read_entries(folder: Path, verified: Verified) -> list[Submitted]:
    """Return every submission of a folder, of whatever epoch, its curves averaged.

    Entries of an earlier epoch may lie in a folder of its name, such as 0.1/none.json, and stay
    valid as the very files that `verified` holds the digests of.
    Raises UsageError with the first fault of a file that is not valid: nothing on the board may
    come from one.
    """
    entries: list[Submitted] = []
    history = digests(verified)
    for path in sorted([*folder.glob("*.json"), *folder.glob("[0-9]*.[0-9]*/*.json")]):
        submission, faults = read_submission(path, history)
        if submission is None:
            raise UsageError(f"{path} is not valid: {faults[0]} `ht-bench verify {path}` says all.")
        entries.append(_submitted(submission, verified))
    _check_names(entries)
    if not entries:
        raise UsageError(
            f"{folder} holds no submission (*.json); `ht-bench submit … --out {folder}/NAME.json` "
            "writes one."
        )
    return entries


def _check_names(entries: Sequence[Submitted]) -> None:
    """Names become file names, and some systems tell no Entry from an entry."""
    names: dict[tuple[str, str], Submitted] = {}
    for entry in entries:
        other = names.setdefault((entry.benchmark, entry.name.casefold()), entry)
        if other.name != entry.name:
            raise UsageError(
                f"The submissions {other.name} and {entry.name} differ in case alone; rename one."
            )
        if other is not entry:
            raise UsageError(
                f"Two submissions of {entry.benchmark} are called {entry.name}; leave one of them."
            )


def _submitted(submission: Submission, verified: Verified) -> Submitted:
    tasks = {}
    for name in submission.tasks:
        known = find_known(name)
        assert isinstance(known, KnownTask), name
        tasks[name] = _task_runs(submission, known)
    about = {key: value for key, value in submission.content.items() if key != "tasks"}
    level, verdict = level_of(submission, verified)
    changed = has_changed(submission, verified)
    return Submitted(submission.name, about, submission.sha256, level, changed, verdict, tasks)


def _task_runs(submission: Submission, known: KnownTask) -> TaskRuns:
    name = known.task.name
    table = submission.tasks[name]
    records = [
        {
            **submission.record(name, seed, known.random),
            "cost": table["seeds"][str(seed)],
            "extra_parameters": table["extra_parameters"],
        }
        for seed in submission.seeds(name)
    ]
    none = table["none_cost"]
    runs = replace(
        measure(records, _info(known)),
        submitted=True,
        none_cost=none and (none["seconds"], none["peak_memory_bytes"]),
    )
    words = {key: value for key, value in table.items() if key not in ("seeds", "grid")}
    return TaskRuns(known, runs, mean_curve(records, metric_key(known.task.family)), words)


def _info(known: KnownTask) -> TaskInfo:
    task = known.task
    return TaskInfo(task.name, task.family, known.classes, task.seeds, task.sha256, known.random)


def shown_suites(more: Iterable[Suite] = ()) -> list[Suite]:
    """Return the suites known by name and `more`, in the order of their abilities."""
    suites = {**known_suites(), **{suite.name: suite for suite in more}}
    return [suites[name] for name in sorted(suites, key=_place)]


def _place(name: str) -> tuple[int, str]:
    """Return where a suite stands among others; one of an ability not listed comes after shift."""
    places = (place for place, part in enumerate(ABILITIES) if f"-{part}-" in name)
    return next(places, ABILITIES.index("shift")), name


def make_boards(entries: Sequence[Submitted], suites: Iterable[Suite] | None = None) -> list[Board]:
    """Return a board for each epoch that has entries, the newest first."""
    shown = shown_suites() if suites is None else list(suites)
    epochs = sorted({entry.benchmark for entry in entries}, key=epoch_order, reverse=True)
    return [
        make_board([entry for entry in entries if entry.benchmark == epoch], shown)
        for epoch in epochs
    ]


def make_board(entries: Sequence[Submitted], suites: Iterable[Suite] | None = None) -> Board:
    """Rank the entries, all of one epoch, on every suite that has any, and on every task.

    suites: the shipped ones if left out. Anchors are those frozen in a suite of the same epoch; a
    task outside all of them takes the entries `none` and `full-reset`.
    Raises UsageError for entries of two epochs.
    """
    epochs = sorted({entry.benchmark for entry in entries}, key=epoch_order) or [EPOCH]
    if len(epochs) > 1:
        raise UsageError(f"Entries of {' and '.join(epochs)} do not compare: a board holds one.")
    [benchmark] = epochs
    shown = _suites_of(benchmark, shown_suites() if suites is None else suites)
    known = {task.known.task.name: task.known for e in entries for task in e.tasks.values()}
    order = list(dict.fromkeys(name for suite in shown for name in suite.tasks))
    names = [*(n for n in order if n in known), *sorted(known.keys() - set(order))]
    own = [suite for suite in shown if suite.benchmark == benchmark]
    anchors = {name: _frozen(known[name], own) for name in names}
    pairs = {
        name: PairedTask(
            _info(known[name]),
            {entry.name: entry.tasks[name].runs for entry in entries if name in entry.tasks},
            anchors=anchors[name],
        )
        for name in names
    }
    tables = [
        make_table(suite.name, [pairs[n] for n in suite.tasks], SETTING, benchmark, is_suite=True)
        for suite in shown
        if all(name in pairs and pairs[name].anchored for name in suite.tasks)
    ]
    titles = {name: known[name].task.title for name in names}
    return Board(
        benchmark=benchmark,
        entries={entry.name: entry for entry in entries},
        suites=tuple(tables),
        tasks=tuple(make_table(name, [pairs[name]], SETTING, benchmark) for name in names),
        titles=titles | {suite.name: suite.title for suite in shown},
        known=known,
        pairs=pairs,
        frozen=frozenset(name for name in names if anchors[name] is not None),
    )


def _suites_of(benchmark: str, suites: Iterable[Suite]) -> list[Suite]:
    """Return the suites that an epoch has: none newer, of the same tasks or name the newest."""
    shown = [s for s in suites if epoch_order(s.benchmark) <= epoch_order(benchmark)]
    newest: dict[frozenset[str] | str, Suite] = {}
    for suite in sorted(shown, key=lambda s: (epoch_order(s.benchmark), _version(s.name)[1])):
        newest[frozenset(suite.tasks)] = newest[_version(suite.name)[0]] = suite
    return [
        suite
        for suite in shown
        if newest[frozenset(suite.tasks)] is suite is newest[_version(suite.name)[0]]
    ]


def _version(name: str) -> tuple[str, int]:
    """Return ("suite-x", 2) for suite-x-v2; a name without a version is of version 0."""
    found = re.fullmatch(r"(.+)-v(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 0)


def _frozen(known: KnownTask, suites: Sequence[Suite]) -> Mapping[str, Mapping[int, float]] | None:
    for suite in suites:
        anchors = suite.anchors.get(known.task.name)
        if anchors is not None and anchors.task_sha256 == known.task.sha256:
            return anchors.by_seed()
    return None
