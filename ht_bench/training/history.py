"""What a run recorded: points of its curve and diagnostics, one value per seed of the stack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Point = dict[str, Any]


class History:
    """Lists of points; each has `phase`, `step` and, per metric key, one value per seed.

    A value that does not exist (a loss before training, a diverged seed's) is None.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.diagnostics: list[Point] = []

    def state_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {"points": self.points, "diagnostics": self.diagnostics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.points, self.diagnostics = list(state["points"]), list(state["diagnostics"])

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


def repeated(last: Point | None, key: str, unknown: Tensor) -> Tensor:
    """The last point's value again, for a stretch in which nothing was trained."""
    if last is None:
        return unknown
    return torch.tensor([float("nan") if v is None else v for v in last[key]], dtype=torch.float64)


def _columns(points: Sequence[Point], slot: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for key in points[0] if points else ():
        columns[key] = [
            entry[key] if key in ("phase", "step") else entry[key][slot] for entry in points
        ]
    return columns
