"""Spaces of hyperparameters that a search draws from: listed values and ranges. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from ht_bench.errors import UsageError, did_you_mean, shown


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; log: drawn evenly in their logarithm.

    Whole numbers where both ends are written as such.
    """

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers belong to it."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = Mapping[str, Sequence[Any] | Range]
"""Hyperparameter → the values it may take, or a range of them."""


def read_space(table: Mapping[str, Any], where: str) -> Space:
    """Return the space that a TOML table describes; `where` names it in error sentences.

    A list holds the values themselves: `decay = [0.9, 0.99]`; a table is a range:
    `strength = { low = 1e-5, high = 1e-2, log = true }`.
    """
    return {key: _read(value, f"{where}: '{key}'") for key, value in table.items()}


def _read(value: Any, where: str) -> Sequence[Any] | Range:
    if isinstance(value, list) and value:
        return tuple(value)
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{where} is {shown(value)}; write a list of values, or a range such as "
            "{ low = 1e-5, high = 1e-2, log = true }."
        )
    known = ("low", "high", "log")
    for key in value:
        if key not in known:
            raise UsageError(
                f"{where} has the unknown key '{key}'.{did_you_mean(key, known)} Known keys: "
                f"{', '.join(known)}."
            )
    low, high, log = (value.get(key) for key in known)
    if not (_is_number(low) and _is_number(high) and low <= high and log in (None, True, False)):
        raise UsageError(
            f"{where} is {shown(dict(value))}; a range has two finite numbers, 'low' not above "
            "'high', and 'log' is true or false."
        )
    if log and low <= 0:
        raise UsageError(f"{where}: a logarithmic range begins above 0, not at {low}.")
    return Range(low, high, bool(log))


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value)


def is_grid(space: Space) -> bool:
    """Whether every hyperparameter has its values listed."""
    return not any(isinstance(values, Range) for values in space.values())


def combinations(space: Space) -> list[dict[str, Any]]:
    """Return all combinations of a grid in order, the last hyperparameter changing fastest."""
    lists = [values for values in space.values() if not isinstance(values, Range)]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]
