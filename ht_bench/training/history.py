"""What a run records, one value per seed of the stack, and how it tells of it and is stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Point = dict[str, Any]


class Interrupted(BaseException):
    """Training was asked to stop; its checkpoint is saved. No `except Exception` takes it."""


@dataclass
class Observer:
    """How a run reports and is stopped; the defaults do neither.

    progress(steps): so many more optimizer steps are done (or need not be). point(entry): a point
    of the curve. stop(): whether to save and raise Interrupted.
    """

    progress: Callable[[int], None] = lambda steps: None
    point: Callable[[Point], None] = lambda entry: None
    stop: Callable[[], bool] = lambda: False


class History:
    """Points of the curve and diagnostics; each has `phase`, `step` and, per metric key, a list.

    A value that does not exist (a loss before training, a diverged seed's) is None. `alive`, bool
    [seeds] on the host: all losses and weights stayed finite.
    """

    def __init__(self, seeds: int) -> None:
        self.points: list[Point] = []
        self.diagnostics: list[Point] = []
        self.alive = torch.ones(seeds, dtype=torch.bool)

    def state_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, and `alive`."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.points, self.diagnostics = list(state["points"]), list(state["diagnostics"])
        self.alive = state["alive"].cpu()

    def curve(self, slot: int) -> dict[str, list[Any]]:
        """Return one seed's curve: key → values in order."""
        return _columns(self.points, slot)

    def diagnosis(self, slot: int) -> dict[str, list[Any]]:
        """Return one seed's diagnostics: key → values in order."""
        return _columns(self.diagnostics, slot)


def point(phase: int, step: int, values: Mapping[str, Sequence[float | None] | Tensor]) -> Point:
    """Make a point; tensors become lists, and numbers that are not finite become None."""
    made: Point = {"phase": phase, "step": step}
    for key, value in values.items():
        numbers = value.tolist() if isinstance(value, Tensor) else list(value)
        made[key] = [n if n is not None and math.isfinite(n) else None for n in numbers]
    return made


def _columns(points: Sequence[Point], slot: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for entry in points for key in entry):
        columns[key] = [
            entry[key] if key in ("phase", "step") else _value(entry, key, slot) for entry in points
        ]
    return columns


def _value(entry: Point, key: str, slot: int) -> float | None:
    """One seed's value; None where this point lacks the key: costly ones may have come later."""
    value: float | None = entry[key][slot] if key in entry else None
    return value
