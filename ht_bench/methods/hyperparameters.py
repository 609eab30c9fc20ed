"""Hyperparameters as plain Python numbers, whatever library they came from."""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Mapping
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.streams.tables import fits


def plain(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with NumPy's and torch's numbers as Python's, 1e4 as 10000 where it counts.

    cls: the method's class, whose fields' types say what a value is for. What is no number stays.
    """
    hints = _hints(cls)
    return {key: _plain(value, hints.get(key, Any)) for key, value in values.items()}


def check_numbers(cls: type, values: Mapping[str, Any]) -> None:
    """Raise UsageError for a field of type float that holds no finite number (a bool is none)."""
    hints = _hints(cls)
    for key, value in values.items():
        hint = hints.get(key, Any)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{key} = {value} is not a finite number; give one.")
        if fits(0.5, hint) and not fits(value, hint):
            raise UsageError(f"{key} = {value!r} is no number; give one.")


def _plain(value: Any, hint: Any) -> Any:
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():  # a scalar of NumPy or torch
        value = _shortest(value, item())
    whole = isinstance(value, float) and value.is_integer()
    if whole and hint is not Any and fits(1, hint) and not fits(0.5, hint):
        return int(value)
    return value


def _shortest(scalar: Any, number: Any) -> Any:
    """np.float32(0.9) means 0.9, not 0.8999999761581421."""
    if isinstance(number, float) and str(getattr(scalar, "dtype", "")) in ("float32", "float16"):
        return float(str(scalar))
    return number


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError:  # a user's annotation that only a type checker can resolve
        return {}
