"""The board: entries ranked on every suite and every task, recomputed from committed curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.leaderboard.known import KnownTask
from ht_bench.leaderboard.ranker import Anchors, Ranker, Table
from ht_bench.leaderboard.summary import Array, Entry, summarize
from ht_bench.leaderboard.valid import read_submission
from ht_bench.leaderboard.verify import Verified, level_of
from ht_bench.ranking import score
from ht_bench.ranking.pairing import FRESH, WARM
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.suite import Suite, get_suite, suite_files


@dataclass(frozen=True)
class Board:
    """Everything that the page shows."""

    entries: tuple[Entry, ...]
    suites: tuple[Table, ...]
    tasks: tuple[Table, ...]
    anchors: Mapping[str, Anchors]


def read_entries(folder: Path, verified: Verified) -> list[Entry]:
    """Return every submission of a folder, boiled down.

    Raises UsageError with the first fault of a file that is not valid: nothing on the board may
    come from one.
    """
    entries: list[Entry] = []
    for path in sorted(folder.glob("*.json")):
        submission, faults = read_submission(path)
        if submission is None:
            raise UsageError(f"{path} is not valid: {faults[0]} `ht-bench verify {path}` says all.")
        level, judged = level_of(submission, verified)
        entries.append(summarize(submission, level, judged.get("reruns", {})))
    _check_names(entries)
    if not entries:
        raise UsageError(
            f"{folder} holds no submission (*.json); `ht-bench submit … --out {folder}/NAME.json` "
            "writes one."
        )
    return entries


def _check_names(entries: Sequence[Entry]) -> None:
    """Names become file names, and some systems tell no Entry from an entry."""
    met: dict[str, str] = {}
    for entry in entries:
        other = met.setdefault(entry.name.casefold(), entry.name)
        if other != entry.name:
            raise UsageError(
                f"The submissions {other} and {entry.name} differ in case alone; rename one."
            )


def shipped_suites() -> list[Suite]:
    """Return the shipped suites, those of generalization first."""
    names = sorted(suite_files(), key=lambda name: ("core" not in name, "control" in name, name))
    return [get_suite(name) for name in names]


def make_board(entries: Sequence[Entry], suites: Iterable[Suite] | None = None) -> Board:
    """Rank the entries on every suite that has any, and on every task.

    suites: the shipped ones if left out. Anchors are those frozen in a suite; a task outside all
    suites takes the entries `none` and `full-reset`.
    """
    chosen = shipped_suites() if suites is None else list(suites)
    known = {s.known.task.name: s.known for entry in entries for s in entry.tasks.values()}
    order = [name for suite in chosen for name in suite.tasks]
    names = sorted(
        known, key=lambda name: (name not in order, order.index(name) if name in order else 0, name)
    )
    ranker = Ranker({entry.name: entry for entry in entries})
    ranker.anchors = {n: a for n in names if (a := _anchors(known[n], chosen, ranker)) is not None}
    suite_tables = [
        ranker.table(suite.name, suite.title, [known[name] for name in suite.tasks])
        for suite in chosen
        if all(name in known and name in ranker.anchors for name in suite.tasks)
    ]
    task_tables = [ranker.table(name, known[name].task.title, [known[name]]) for name in names]
    return Board(tuple(entries), tuple(suite_tables), tuple(task_tables), ranker.anchors)


def _anchors(known: KnownTask, suites: Sequence[Suite], ranker: Ranker) -> Anchors | None:
    task = known.task
    for suite in suites:
        found = suite.anchors.get(task.name)
        if found is None or found.task_sha256 != task.sha256:
            continue
        order = np.argsort(parse_seeds(found.seeds))
        pair = np.asarray(found.none)[order], np.asarray(found.full_reset)[order]
        return _admitted(known, *pair, frozen=True)
    own = [ranker.summary(name, task.name) for name in (WARM, FRESH)]
    if own[0] is None or own[1] is None:
        return None
    return _admitted(known, own[0].final, own[1].final, frozen=False)


def _admitted(known: KnownTask, warm: Array, fresh: Array, *, frozen: bool) -> Anchors:
    least = score.least_gap(fresh, known.random)
    return Anchors(warm, fresh, frozen, score.admission(warm, fresh, least, known.task.name))
