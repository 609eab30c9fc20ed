"""A folder of submissions → the comparison that `ht-bench compare` makes of a folder of runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.leaderboard.beside import own_entries
from ht_bench.leaderboard.board import (
    Board,
    make_board,
    make_boards,
    read_entries,
    shown_suites,
)
from ht_bench.leaderboard.verified import verified_beside
from ht_bench.ranking.comparison import Comparison, Curves, CurvesOf, Table
from ht_bench.ranking.entries import Setting
from ht_bench.records.metrics import metric_key
from ht_bench.streams.suite import get_suite


def submissions_in(folder: Path) -> Path | None:
    """Return the folder of submissions that `folder` is or has, as leaderboard/ does; else None.

    A folder with finished runs is one of runs, whatever else lies there.
    """
    if any(folder.glob("*/*/seed*/result.json")):
        return None
    for place in (folder / "submissions", folder):
        if any(place.glob("*.json")):
            return place
    return None


def compare_entries(
    submissions: Path, suite: str | Path = "", runs: Path | None = None
) -> tuple[Comparison, CurvesOf]:
    """Compare the entries of the newest epoch in a folder; returns also their mean curves.

    suite: that suite and its tasks alone. runs: a folder of runs that are compared with the
    entries; then only the tables that they are in are shown. Nothing is trained: the entries'
    numbers are recomputed from the committed curves, as those of the page.
    Raises UsageError for a file that is not valid, and for a suite without its anchors.
    """
    entries = read_entries(submissions, verified_beside(submissions / "any.json"))
    asked = get_suite(suite) if suite else None
    newest, *earlier = make_boards(entries, [asked] if asked else shown_suites())
    notes = [
        f"Entries of {board.benchmark} are on a board of their own: `ht-bench compare "
        f"{submissions / board.benchmark}`."
        for board in earlier
        if runs is None
    ]
    own = own_entries(runs, newest.benchmark) if runs else None
    if own is not None:
        both = [*newest.entries.values(), *own.entries]
        newest = make_board(both, [asked] if asked else shown_suites())
    tables = [*newest.suites, *newest.tasks]
    if asked:
        tables = [t for t in tables if t.name == asked.name or t.name in asked.tasks]
        if not newest.suites:
            raise UsageError(
                f"{submissions} has no ranking of {asked.name} in {newest.benchmark}: it needs "
                f"entries on {', '.join(asked.tasks)}, `none` and `full-reset` among them. "
                f"{' '.join(notes)}"
            )

    if own is not None:
        tables, lacking = own.shown(tables)
        notes += [*own.notes, *lacking]
        if not tables:
            raise UsageError(
                f"{runs} has no runs on the tasks of {asked.name if asked else 'any suite'}; "
                "name another suite, or leave --suite out."
            )

    def curves_of(table: Table) -> Curves:
        runs = {
            e.name: e.tasks[table.name] for e in newest.entries.values() if table.name in e.tasks
        }
        curves = {name: task.curve for name, task in runs.items() if task.curve is not None}
        return curves, metric_key(newest.known[table.name].task.family)

    told = (dataclasses.replace(t, setting=_setting(newest, t)) for t in tables)
    return Comparison(tuple(told), tuple(notes)), curves_of


def _setting(board: Board, table: Table) -> Setting:
    """Return the setting of a table's entries, where they share one."""
    abouts = [board.entries[row.label].about for row in table.rows if row.label in board.entries]
    found = {Setting(about["split"], about["precision"], about["device"]) for about in abouts}
    return found.pop() if len(found) == 1 else table.setting
