"""ht-bench page: the leaderboard as a static site."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ht_bench.commands.naming import own_suites
from ht_bench.errors import UsageError

if TYPE_CHECKING:
    from ht_bench.leaderboard.board import Submitted
    from ht_bench.streams.suite import Suite


def page(
    folder: Annotated[Path, tyro.conf.Positional] = Path("leaderboard"),
    out: Path | None = None,
    check: bool = False,
    task: str = "",
    suite: str = "",
    questions: Path = Path("docs/questions"),
) -> int:
    """Render the leaderboard's site from its submissions, and write the ranking.

    Reads FOLDER/submissions/*.json and FOLDER/verified.json; writes FOLDER/site/ and
    FOLDER/ranking.json. Open FOLDER/site/index.html in a browser: it needs no server. Scores
    compare within one epoch (major.minor of ht-bench): the newest that has entries comes first,
    earlier ones are kept in FOLDER/site/0.1/ and FOLDER/ranking-0.1.json.

    Example: ht-bench page leaderboard

    Args:
        folder: the folder that holds submissions/.
        out: where to write the site; FOLDER/site if left out.
        check: write nothing; say whether FOLDER/ranking.json, and that of every earlier epoch, is
            what the committed curves give, to 1e-4 (exit code 1 if not).
        task: TOML files of tasks of your own, separated by commas; their entries are shown too.
        suite: suites of your own, by name or TOML file, that the page scores beside its own.
        questions: the folder of open questions, which come first where there are any.

    """
    from ht_bench.leaderboard.board import make_boards, read_entries, shown_suites
    from ht_bench.leaderboard.ranking_file import write_rankings
    from ht_bench.leaderboard.verified import read_verified

    if not (folder / "submissions").is_dir():
        raise UsageError(
            f"{folder} has no folder submissions/; run this beside leaderboard/, or name it."
        )
    suites = shown_suites(own_suites(task, suite))
    entries = read_entries(folder / "submissions", read_verified(folder / "verified.json"))
    if check:
        return _check(folder, entries, suites)
    if importlib.util.find_spec("jinja2") is None:
        raise UsageError("The page needs jinja2: pip install 'ht-bench[page]'.")
    from ht_bench.views.answers import tell
    from ht_bench.views.page import write_site

    newest, *earlier = make_boards(entries, suites)
    told = tell(questions) if questions.is_dir() else []
    written = write_site(newest, out or folder / "site", earlier, told)
    rankings = write_rankings(folder, [newest, *earlier])
    print(f"Wrote {len(written)} pages and {' and '.join(map(str, rankings))}; open {written[0]}")
    return 0


def _check(folder: Path, entries: Sequence[Submitted], suites: Sequence[Suite]) -> int:
    from ht_bench.leaderboard.ranking_file import ranking_faults, read_rankings

    faults: list[str] = []
    ranked: set[tuple[str, str]] = set()
    for path, committed in read_rankings(folder).items():
        found = ranking_faults(committed, entries, suites)
        names, benchmark = committed["entries"], committed["benchmark"]
        ranked |= {(benchmark, name) for name in names}
        faults += [f"{path}: {sentence}" for sentence in found]
        if not found:
            print(f"{path}: {len(names)} entries of {benchmark}, recomputed from their curves.")
    for sentence in faults:
        print(sentence)
    waiting = [entry.name for entry in entries if (entry.benchmark, entry.name) not in ranked]
    if waiting:
        print(
            f"Not ranked yet: {', '.join(waiting)}; `ht-bench page {folder}` ranks them.",
            file=sys.stderr,
        )
    return 1 if faults else 0
