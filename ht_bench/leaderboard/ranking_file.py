"""ranking.json: the committed ranking, and the proof that the committed curves give it.

It is of the newest epoch that has entries; those of earlier epochs are called ranking-0.1.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import read_json, write_atomically
from ht_bench.leaderboard.board import Board, Submitted, make_board
from ht_bench.ranking.rows import Row
from ht_bench.ranking.score import Estimate
from ht_bench.streams.suite import Suite

TOLERANCE = 1e-4


def ranking(board: Board) -> dict[str, Any]:
    """Return the ranks and scores of every suite as JSON types."""
    return {
        "benchmark": board.benchmark,
        "entries": list(board.entries),
        "suites": {
            table.name: {row.label: _standing(row) for row in table.rows} for table in board.suites
        },
    }


def _standing(row: Row) -> dict[str, Any]:
    return {
        "rank": row.rank,
        "gap_closed": _numbers(row.gap_closed),
        "metric": row.metric and row.metric.value,
        "by_task": {task: _numbers(gap) for task, gap in row.by_task.items()},
    }


def _numbers(gap: Estimate | None) -> list[float | None] | None:
    """Return value and interval; null for an end that the data do not bound."""
    if gap is None:
        return None
    return [x if math.isfinite(x) else None for x in (gap.value, gap.low, gap.high)]


def write_ranking(path: Path, board: Board) -> None:
    """Write ranking.json, a line per entry."""
    content = ranking(board)
    suites = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items())
        + "\n  }"
        for name, rows in content["suites"].items()
    ]
    head = f' "benchmark": "{board.benchmark}",\n "entries": {json.dumps(content["entries"])},\n'
    write_atomically(path, "{\n" + head + ' "suites": {\n' + ",\n".join(suites) + "\n }\n}\n")


def write_rankings(folder: Path, boards: Sequence[Board]) -> list[Path]:
    """Write every board's ranking; boards: the newest first. Returns the files."""
    files = [folder / f"ranking-{board.benchmark}.json" for board in boards]
    files[0] = folder / "ranking.json"
    for path, board in zip(files, boards, strict=True):
        write_ranking(path, board)
    return files


def read_rankings(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the committed rankings, the newest epoch's first; raises as `read_ranking` does."""
    files = [folder / "ranking.json", *sorted(folder.glob("ranking-*.json"))]
    return {path: read_ranking(path) for path in files}


def read_ranking(path: Path) -> dict[str, Any]:
    """Return the committed ranking; raises UsageError when it is absent or malformed."""
    cure = "`ht-bench page` writes it"
    content = read_json(path, cure)
    kinds = {"benchmark": str, "entries": list, "suites": dict}
    sound = isinstance(content, dict) and all(
        isinstance(content.get(key), kind) for key, kind in kinds.items()
    )
    if not sound or not all(isinstance(name, str) for name in content["entries"]):
        raise UsageError(f"{path} is no ranking; {cure}.")
    return dict(content)


def ranking_faults(
    committed: Mapping[str, Any],
    entries: Sequence[Submitted],
    suites: Sequence[Suite] | None = None,
) -> list[str]:
    """Say where a committed ranking is not what the curves of its entries give, to TOLERANCE.

    Entries that the ranking does not name yet are left aside: a new submission changes the ranks
    of others only when the ranking is written again. So are those of another epoch. suites: those
    that it scores; None are all that are known.
    """
    epoch = committed["benchmark"]
    by_name = {entry.name: entry for entry in entries if entry.benchmark == epoch}
    absent = [name for name in committed["entries"] if name not in by_name]
    if absent:
        return [f"{name} is ranked, but its submission is not there" for name in absent]
    board = make_board([by_name[name] for name in committed["entries"]], suites)
    # Through JSON, so that both sides hold the same types.
    again = json.loads(json.dumps(ranking(board)))
    return [*_differences(committed, again, "ranking")]


def _differences(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{where}, {key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            yield from _differences(one, other, where)
    elif not _same(old, new):
        yield f"{where}: {new} from the curves, {old} in the file"


def _same(old: Any, new: Any) -> bool:
    numbers = [isinstance(x, int | float) and not isinstance(x, bool) for x in (old, new)]
    return abs(old - new) <= TOLERANCE if all(numbers) else bool(old == new)
