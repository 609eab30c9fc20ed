"""What each task of a suite brings to the differences between entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ht_bench.ranking.influence import Array, quartile_ends

FEWEST = 3
"""Entries below which a variance between them says nothing."""
SWAMPED = 0.5


def task_shares(entries: Sequence[Mapping[str, Array]]) -> dict[str, float]:
    """Return each task's share of the variance between entries' scores; they add up to 1.

    entries: task → gap closed of each run, [seeds]. A score is taken as the mean over tasks of the
    runs' values, winsorized at the quartiles of all of an entry's runs, which is the interquartile
    mean but for the weight of its ends; a task's share is the covariance of its part with the
    whole over the variance of the whole. Empty for fewer than three entries, or equal ones.
    """
    if len(entries) < FEWEST:
        return {}
    tasks = list(entries[0])
    parts = np.array([_parts([entry[task] for task in tasks]) for entry in entries])
    centred = parts - parts.mean(axis=0)
    whole = centred.sum(axis=1)
    variance = float(whole @ whole)
    if not variance > 0:
        return {}
    return dict(zip(tasks, (centred.T @ whole / variance).tolist(), strict=True))


def swamping(shares: Mapping[str, float]) -> list[str]:
    """Return the tasks that bring more than half; of two tasks, more than three quarters."""
    most = max(SWAMPED, 1.5 / max(len(shares), 1))
    return [task for task, share in shares.items() if share > most]


def _parts(runs: Sequence[Array]) -> list[float]:
    low, high = quartile_ends(runs)
    return [float(np.clip(x, low, high).mean()) / len(runs) for x in runs]
