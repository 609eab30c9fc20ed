"""What was found, as a table with what to do below it, or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ht_bench.doctor.checks import Examined
from ht_bench.doctor.finding import STATES, Finding
from ht_bench.version import VERSION

COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "fault": "bold red"}


def counts(examined: Sequence[Examined]) -> dict[str, int]:
    """Return how many findings there are of each state."""
    counted = Counter(finding.state for each in examined for finding in each.findings)
    return {state: counted[state] for state in STATES}


def to_json(examined: Sequence[Examined]) -> str:
    """Return every finding as JSON."""
    findings = [
        {
            "about": each.about,
            "state": finding.state,
            "sentence": finding.sentence,
            "remedy": finding.remedy,
        }
        for each in examined
        for finding in each.findings
    ]
    content = {"ht_bench": VERSION, "counts": counts(examined), "findings": findings}
    return json.dumps(content, indent=1, ensure_ascii=False)


def show(examined: Sequence[Examined], console: Any) -> None:
    """Print the table, the remedies and a summary to a rich Console."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("state", "about", "finding"):
        table.add_column(title, no_wrap=title != "finding")
    for each in examined:
        for finding in each.findings:
            colour = COLOURS[finding.state]
            state = f"[{colour}]{finding.state}[/]"
            table.add_row(state, escape(each.about), escape(finding.sentence))
    console.print(table)
    # Commands stand in lines of their own, unbroken, to be copied.
    for title, states in (("What to do", ("fault", "warning")), ("If you want it", ("note",))):
        lines = _remedies(examined, states)
        if lines:
            console.print(f"\n{title}:", highlight=False)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\n{summary(examined)}", highlight=False)


def _remedies(examined: Sequence[Examined], states: Sequence[str]) -> list[str]:
    """Return "about: remedy" for every finding of some states that has one, the worst first."""
    found: list[tuple[str, Finding]] = [
        (each.about, finding)
        for state in states
        for each in examined
        for finding in each.findings
        if finding.state == state and finding.remedy
    ]
    return list(dict.fromkeys(f"{about}: {finding.remedy}" for about, finding in found))


def summary(examined: Sequence[Examined]) -> str:
    """Say in one sentence how it stands."""
    counted = counts(examined)
    words = [
        f"{count} {name}{'' if count == 1 else 's'}"
        for name, count in (
            ("fault", counted["fault"]),
            ("warning", counted["warning"]),
            ("note", counted["note"]),
        )
    ]
    return f"{', '.join(words[:-1])} and {words[-1]} in {len(examined)} checks."
