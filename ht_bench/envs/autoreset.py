"""What Gymnasium's vector environments do where an episode ends, and seeds, as users give them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from ht_bench.errors import UsageError

SAME_STEP, NEXT_STEP, DISABLED = (
    AutoresetMode.SAME_STEP,
    AutoresetMode.NEXT_STEP,
    AutoresetMode.DISABLED,
)


def autoreset_mode(given: AutoresetMode | str) -> AutoresetMode:
    """Return the mode of that value ("NextStep") or name ("NEXT_STEP"); raises UsageError."""
    for mode in AutoresetMode:
        if given in (mode, mode.value, mode.name):
            return mode
    known = ", ".join(f'"{mode.value}"' for mode in AutoresetMode)
    raise UsageError(f"autoreset_mode = {given!r}; give one of {known}.")


def must_be_reset() -> UsageError:
    """Return the error of a step after an episode's end where no autoreset begins another."""
    return UsageError(
        "An episode is over and autoreset is disabled; call reset(), for some rows with "
        'options={"reset_mask": …}.'
    )


def split_mask(
    options: Mapping[str, Any] | None, rows: int
) -> tuple[dict[str, Any], np.ndarray[Any, Any] | None]:
    """Return the options without "reset_mask", and the mask; raises UsageError for a wrong one."""
    others = dict(options or {})
    mask = others.pop("reset_mask", None)
    right = isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (rows,)
    if mask is not None and not (right and mask.any()):
        raise UsageError(
            f"options: reset_mask = {mask!r}; give a bool array [{rows}] with a True in it."
        )
    return others, mask


def whole_seed(seed: Any) -> int | None:
    """Return a seed as Python's int, which Gymnasium asks for, NumPy's too; raises UsageError."""
    if seed is None:
        return None
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"seed = {seed!r}; give a whole number, 0 or more.")
    return operator.index(seed)
