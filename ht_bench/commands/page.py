"""ht-bench page: the leaderboard as a static site."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ht_bench.errors import UsageError

if TYPE_CHECKING:
    from ht_bench.leaderboard.board import Submitted


def page(
    folder: Annotated[Path, tyro.conf.Positional] = Path("leaderboard"),
    out: Path | None = None,
    check: bool = False,
) -> int:
    """Render the leaderboard's site from its submissions, and write the ranking.

    Reads FOLDER/submissions/*.json and FOLDER/verified.json; writes FOLDER/site/ and
    FOLDER/ranking.json. Open FOLDER/site/index.html in a browser: it needs no server.

    Example: ht-bench page leaderboard

    Args:
        folder: the folder that holds submissions/.
        out: where to write the site; FOLDER/site if left out.
        check: write nothing; say whether FOLDER/ranking.json is what the committed curves give,
            to 1e-4 (exit code 1 if not).

    """
    from ht_bench.leaderboard.board import make_board, read_entries
    from ht_bench.leaderboard.ranking_file import write_ranking
    from ht_bench.leaderboard.verified import read_verified

    if not (folder / "submissions").is_dir():
        raise UsageError(
            f"{folder} has no folder submissions/; run this beside leaderboard/, or name it."
        )
    entries = read_entries(folder / "submissions", read_verified(folder / "verified.json"))
    if check:
        return _check(folder, entries)
    if importlib.util.find_spec("jinja2") is None:
        raise UsageError("The page needs jinja2: pip install 'ht-bench[page]'.")
    from ht_bench.views.page import write_site

    board = make_board(entries)
    written = write_site(board, out or folder / "site")
    write_ranking(folder / "ranking.json", board)
    print(f"Wrote {len(written)} pages and {folder / 'ranking.json'}; open {written[0]}")
    return 0


def _check(folder: Path, entries: Sequence[Submitted]) -> int:
    from ht_bench.leaderboard.ranking_file import ranking_faults, read_ranking

    committed = read_ranking(folder / "ranking.json")
    faults = ranking_faults(committed, entries)
    for sentence in faults:
        print(sentence)
    waiting = [entry.name for entry in entries if entry.name not in committed["entries"]]
    if waiting:
        print(
            f"Not ranked yet: {', '.join(waiting)}; `ht-bench page {folder}` ranks them.",
            file=sys.stderr,
        )
    if not faults:
        print(
            f"{folder / 'ranking.json'}: {len(committed['entries'])} entries, recomputed from "
            "their curves."
        )
    return 1 if faults else 0
