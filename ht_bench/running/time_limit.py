"""A limit of time for a command: when to stop, and what is still worth beginning."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ht_bench.errors import UsageError

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str, option: str) -> float:
    """Return the seconds of "12m", "90s", "2h" or "1h30m"; raises UsageError naming `option`."""
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        amounts = [float(part or 0) for part in parts.groups()] if parts and text.strip() else []
    except ValueError:
        amounts = []
    seconds = sum(amount * unit for amount, unit in zip(amounts, UNITS.values(), strict=False))
    if not seconds > 0:
        raise UsageError(f"{option} {text}: write a time such as 12m, 90s or 2h.")
    return seconds


@dataclass(frozen=True)
class TimeLimit:
    """Seconds from `began`, on `clock`; without an end by default.

    Training stops before them, so that the last point is measured and checkpoints are saved.
    """

    seconds: float = float("inf")
    clock: Callable[[], float] = time.monotonic
    began: float = field(default_factory=time.monotonic)

    @property
    def reserve(self) -> float:
        """Seconds kept for stopping: a twentieth, between 10 seconds and a minute, at most half."""
        return min(max(10.0, self.seconds / 20), 60.0, self.seconds / 2)

    @property
    def left(self) -> float:
        """Seconds left to train in."""
        if self.seconds == float("inf"):
            return self.seconds
        return self.began + self.seconds - self.reserve - self.clock()

    def is_over(self) -> bool:
        """Whether training is to stop."""
        return self.left <= 0

    def admits(self, expected: float | None) -> bool:
        """Whether a stack is worth beginning that takes `expected` seconds (None: not known).

        It is if it fits, or if half the reserve is left to it: it is saved then, and the next call
        goes on.
        """
        return self.left >= min(self.reserve / 2, float("inf") if expected is None else expected)


NO_LIMIT = TimeLimit()
