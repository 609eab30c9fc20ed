"""What both scripts of pilots share: the anchors of a task, trained, and the names they take."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable

import numpy as np

import ht_bench
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import Task


def gap(
    task: Task | ReinforcementTask,
    seeds: Iterable[int],
    digits: int,
    device: str = "cpu",
    progress: bool = False,
) -> str:
    """Train both anchors on the validation split; return their means, their gap and its error.

    Three cells of a Markdown row: means over the seeds, paired mean difference ± standard error.
    """
    none, fresh = (
        np.asarray(
            ht_bench.evaluate(
                method, task, seeds, split="validation", device=device, progress=progress
            ).final
        )
        for method in ("none", "full-reset")
    )
    paired = fresh - none
    error = paired.std(ddof=1) / len(paired) ** 0.5
    numbers = (f"{x:.{digits}f}" for x in (none.mean(), fresh.mean(), paired.mean(), error))
    return "{} | {} | {} ± {}".format(*numbers)


def known(parser: argparse.ArgumentParser, names: Collection[str], pilots: Iterable[str]) -> None:
    """Refuse names of pilots that are not there, in a sentence."""
    if unknown := set(names) - set(pilots):
        parser.error(f"no pilot is called {', '.join(sorted(unknown))}; see PILOTS in this file")
