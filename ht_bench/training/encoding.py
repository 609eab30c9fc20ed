"""Values as lists, numbers and tensors: what a checkpoint holds, read without running code."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def encode(value: Any) -> Any:
    """Return a value as lists, numbers and tensors, which share the memory of contiguous arrays.

    Raises TypeError for what is neither data nor a generator of NumPy's.
    """
    if value is None or (isinstance(value, bool | int | float | str) and not _is_numpy(value)):
        return value
    if isinstance(value, np.ndarray):
        name = value.dtype.str
        # Whatever the type: torch has no 32-bit numbers without sign, of which seeds are made.
        return ["array", name, list(value.shape), torch.from_numpy(_bytes(value))]
    if _is_numpy(value):
        return ["scalar", value.dtype.str, value.item()]
    if isinstance(value, np.random.Generator):
        return ["generator", encode(value.bit_generator.state)]
    if isinstance(value, Mapping):
        return ["dict", [[encode(key), encode(item)] for key, item in value.items()]]
    if isinstance(value, deque):
        return ["deque", value.maxlen, [encode(item) for item in value]]
    if isinstance(value, list | tuple):
        return ["list" if isinstance(value, list) else "tuple", [encode(item) for item in value]]
    raise TypeError(f"{type(value).__name__} cannot be part of a checkpoint")


def decode(value: Any) -> Any:
    """Return what `encode` was given."""
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == "array":
        name, shape, content = rest
        whole: Any = content.cpu().numpy()[: math.prod(shape) * np.dtype(name).itemsize]
        return whole.view(name).reshape(shape).copy()
    if kind == "scalar":
        return np.dtype(rest[0]).type(rest[1])
    if kind == "generator":
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = decode(rest[0])
        return generator
    if kind == "dict":
        return {decode(key): decode(item) for key, item in rest[0]}
    if kind == "deque":
        return deque([decode(item) for item in rest[1]], rest[0])
    items = [decode(item) for item in rest[0]]
    return items if kind == "list" else tuple(items)


def _is_numpy(value: Any) -> bool:
    return isinstance(value, np.generic)


def _bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    flat = np.ascontiguousarray(array).reshape(-1)
    flat = flat if flat.flags.writeable else flat.copy()  # of which torch would warn
    return flat.view(np.uint8)
