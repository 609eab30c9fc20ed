"""Whether methods that score high on one suite score high on another."""

from __future__ import annotations

import math
from collections.abc import Collection

from ht_bench.leaderboard.board import Board
from ht_bench.ranking.comparison import Table
from ht_bench.ranking.correlation import correlate
from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.influence import Statistic
from ht_bench.ranking.pairs import FULL_RESET, NONE, suite_score

ENOUGH = 8
"""Methods: the ranks of fewer have no correlation worth telling."""


def related(
    board: Board, first: Table, second: Table, without: Collection[str] = ()
) -> tuple[Estimate, int] | None:
    """Return the rank correlation of two suites' scores with its 95 % interval, and its methods.

    The interval is `correlate`'s: methods and seeds are resampled. The anchors, which are near 0
    and 1 on every suite by definition, are left out, and the methods that `without` names. None
    where fewer than ENOUGH methods are ranked on both, or one side's scores are equal.
    """
    here, there = _statistics(board, first), _statistics(board, second)
    both = [label for label in here if label in there and label not in without]
    if len(both) < ENOUGH:
        return None
    name = f"{first.name} {second.name}"
    found, _ = correlate([here[each] for each in both], [there[each] for each in both], name)
    return None if math.isnan(found.value) else (found, len(both))


def _statistics(board: Board, table: Table) -> dict[str, Statistic]:
    """Return the score of each method that is ranked there, with its runs' influences."""
    pairs = [board.pairs[task] for task in table.tasks]
    labels = [row.label for row in table.rows if row.rank and row.label not in (NONE, FULL_RESET)]
    scores = {label: suite_score(pairs, label) for label in labels}
    return {label: score.statistic for label, score in scores.items() if score}
