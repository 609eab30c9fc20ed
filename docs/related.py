"""How alike suites order methods: `python docs/related.py --without ema,swa,lawa`.

Prints the rank correlation of each suite's scores with those of a suite of trainability, with its
95 % interval over methods and seeds, as the leaderboard's page does; without the methods named.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ht_bench.leaderboard.board import make_boards, read_entries, shown_suites
from ht_bench.leaderboard.verified import verified_beside
from ht_bench.views.page_content import GENERALIZATION
from ht_bench.views.related import related
from ht_bench.views.text import format_estimate

SUBMISSIONS = Path(__file__).parents[1] / "leaderboard" / "submissions"


def main() -> None:
    """Print a line for each suite of generalization."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", default="", help="methods to leave out, separated by commas")
    without = [name for name in parser.parse_args().without.split(",") if name]
    entries = read_entries(SUBMISSIONS, verified_beside(SUBMISSIONS / "any.json"))
    newest = make_boards(entries, shown_suites())[0]
    if unknown := [name for name in without if name not in newest.entries]:
        parser.error(f"{unknown[0]} is no entry; `ht-bench compare leaderboard` shows them.")
    tables = {table.name: table for table in newest.suites}
    for suite, trainability in GENERALIZATION.items():
        if suite in tables and trainability in tables:
            found = related(newest, tables[suite], tables[trainability], without)
            told = (
                f"{format_estimate(found[0])} ({found[1]} methods)" if found else "too few methods"
            )
            print(f"{suite} with {trainability}: {told}")


if __name__ == "__main__":
    main()
