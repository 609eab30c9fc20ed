"""What the entries of a suite took, and on which machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import numpy as np

from ht_bench.leaderboard.board import Board
from ht_bench.ranking.comparison import Table

UNITS = ((1 / 60, "hour"), (1.0, "minute"), (60.0, "second"))


def effort(board: Board, table: Table) -> str:
    """Say how long the training of a method took over a table's tasks, and on what.

    The median over the entries that have every task, their least and most; evaluation is apart.
    Empty where no entry says its seconds.
    """
    minutes: list[float] = []
    machines: list[str] = []
    for row in table.rows:
        tasks = board.entries[row.label].tasks if row.label in board.entries else {}
        runs = [tasks[name] for name in table.tasks if name in tasks]
        seconds = sum(float(each.runs.seconds.sum()) for each in runs)
        if len(runs) == len(table.tasks) and seconds > 0:  # not a number, where one says none
            minutes.append(seconds / 60)
            machines += [machine(each.words["hardware"]) for each in runs]
    if not minutes:
        return ""
    low, high = duration(min(minutes)), duration(max(minutes))
    spread = f" ({low} to {high})" if low != high else ""
    return f"A method's training took {duration(median(minutes))}{spread}, on {_names(machines)}."


def total(board: Board) -> str:
    """Say how many methods and runs stand on a board, what their training took, and on what."""
    runs = [each for entry in board.entries.values() for each in entry.tasks.values()]
    count = sum(len(each.runs.seeds) for each in runs)
    seconds = float(np.nansum([each.runs.seconds.sum() for each in runs]))
    made = _names([machine(each.words["hardware"]) for each in runs])
    return (
        f"{len(board.entries)} methods, {count:,} runs, {duration(seconds / 60)} of training, "
        f"on {made}."
    )


def _names(machines: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(machines))


def machine(hardware: Mapping[str, Any]) -> str:
    """Return the name of what trained: a GPU, else the processor."""
    name = hardware.get("gpu") or hardware.get("processor") or "a machine not named"
    return str(name).replace("(R)", "").replace(" Processor", "").replace("(TM)", "")


def duration(minutes: float) -> str:
    """Return a duration to two digits, in the unit that suits it."""
    count, unit = next(
        ((minutes * each, word) for each, word in UNITS if minutes * each >= 1),
        (minutes * 60, "second"),
    )
    text = f"{count:.0f}" if count >= 10 else f"{count:.2g}"
    return f"{text} {unit}" if text == "1" else f"{text} {unit}s"
