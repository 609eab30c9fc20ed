"""The table of docs/performance.md from benchmarks/results/: `python -m benchmarks.report`.

`--write` puts it into the page; `--device cuda` prints the claims of one device alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.claims import CLAIMS, Claim, number

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return results by file name: command, date, machine, rows."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def measured_rows(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return every claim's row by the claim's id."""
    return {row["claim"]: row for result in results.values() for row in result.get("rows", [])}


def measured(row: dict[str, Any]) -> str:
    """Return a row's numbers in words: its own, the peer's, the ratio, the share of the peak."""
    words = [f"{number(row['own'])} {row['unit']}"]
    if row["peer"] is not None:
        words.append(f"{row['peer_name']} {number(row['peer'])}")
    if row["ratio"]:
        ratio = row["ratio"]
        words.append(
            f"ratio **{number(ratio['median'])}** [{number(ratio['low'])}, {number(ratio['high'])}]"
        )
    if row["share"] is not None:
        words.append(f"{row['share']:.0%} of the peak")
    return "; ".join(words)


def verdict(claim: Claim, row: dict[str, Any]) -> str:
    """Return whether the goal is met, in a word."""
    return {True: "yes", False: "**no**", None: ""}[claim.met(row)]


def claims_table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of claims, a line for each, measured or not."""
    rows = measured_rows(results)
    lines = ["| what | goal | measured | met | command |", "|---|---|---|---|---|"]
    for claim in CLAIMS.values():
        if claim.id in rows:
            words, met = measured(rows[claim.id]), verdict(claim, rows[claim.id])
        else:
            needs = ": needs a CUDA device" if claim.device == "cuda" else ""
            words, met = f"not measured{needs}", ""
        lines.append(f"| {claim.what} | {claim.goal} | {words} | {met} | `{claim.command}` |")
    return "\n".join(lines)


def peaks_table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of what the devices' arithmetic can do at most."""
    lines = ["| what | precision | threads | peak |", "|---|---|---|---|"]
    for name in ("peaks-cpu", "peaks-cuda"):
        for peak in results.get(name, {}).get("peaks", []):
            where = peak["threads"] or "GPU"
            rate = f"{number(peak['rate'])} {peak['unit']}"
            lines.append(f"| {peak['what']} | {peak['precision']} | {where} | {rate} |")
    return "\n".join(lines)


def machines_list(results: dict[str, dict[str, Any]]) -> str:
    """Return a line per result: machine, date, versions."""
    lines = []
    for name, result in results.items():
        machine = result["machine"]
        device = machine.get("gpu") or f"{machine['processor']} ({machine['instructions']})"
        lines.append(
            f"- `{name}`: {result['date']}, {device}, {machine['cores']} cores, load "
            f"{machine['load']} at the start; ht-bench {machine['ht_bench']}, torch "
            f"{machine['torch']}, Python {machine['python']}"
        )
    return "\n".join(lines) or "Nothing yet."


def updated(page: str, results: dict[str, dict[str, Any]]) -> str:
    """Return the page with its generated parts made anew."""
    parts = {"claims": claims_table, "peaks": peaks_table, "machines": machines_list}
    for name, make in parts.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, rest = page.split(begin, 1)
        page = before + begin + make(results) + end + rest.split(end, 1)[1]
    return page


def print_device(results: dict[str, dict[str, Any]], device: str) -> None:
    """Print one device's claims: what, goal, measured."""
    rows = measured_rows(results)
    table = Table("what", "goal", "measured", "met", title=f"Claims on {device}")
    for claim in CLAIMS.values():
        if claim.device == device:
            row = rows.get(claim.id)
            words = measured(row).replace("**", "") if row else "not measured"
            met = verdict(claim, row).strip("*") if row else ""
            table.add_row(claim.what, claim.goal, words, met)
    console = Console(width=140)
    console.print(table)
    console.print(machines_list(results), highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the claims, or write them into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="", help="cpu or cuda (default: both)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md anew")
    given = parser.parse_args(arguments)
    results = read_results(given.results)
    if given.write:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
        print(f"Written: docs/{PAGE.name}")
        return 0
    for device in [given.device] if given.device else ["cpu", "cuda"]:
        print_device(results, device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
