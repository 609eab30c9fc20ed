"""How a run reports, is stopped, and where it keeps its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ht_bench.training.history import Point


class Interrupted(Exception):
    """Training was asked to stop; its checkpoint is saved."""


@dataclass
class Observer:
    """How a run reports and is stopped; the defaults do neither.

    progress(steps): so many more optimizer steps are done (or need not be). point(entry): a point
    of the curve. stop(): whether to save and raise Interrupted.
    """

    progress: Callable[[int], None] = lambda steps: None
    point: Callable[[Point], None] = lambda entry: None
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class CheckpointPlan:
    """Where the checkpoint lies (None: nowhere), whose it is, and the seconds between two."""

    path: Path | None = None
    fingerprint: str = ""
    seconds: float = 120.0
