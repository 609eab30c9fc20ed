"""A method's state as named tensors, so that a policy's `state_dict` holds nothing else.

Tensors keep their names, joined by dots. Numbers, where that is all there is beside them, go in
order into one float64 tensor, "clock", exact up to 2^53, None as -inf; a state with lists or
strings is described by "structure", the UTF-8 bytes of a Python literal.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

CLOCK, STRUCTURE = "clock", "structure"
_IS_TENSOR = "tensor:"


def to_tensors(state: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Return `state` (nested tensors, numbers, strings, lists) as tensors by name."""
    tensors = {name: leaf for name, leaf in _leaves(state) if isinstance(leaf, Tensor)}
    others = [leaf for _, leaf in _leaves(state) if not isinstance(leaf, Tensor)]
    if all(leaf is None or isinstance(leaf, bool | int | float) for leaf in others):
        if others:
            exact = torch.device("cpu") if device.type == "mps" else device  # it has no float64
            numbers = [-math.inf if leaf is None else leaf for leaf in others]
            tensors[CLOCK] = torch.tensor(numbers, dtype=torch.float64, device=exact)
        return tensors
    described, tensors = _describe(state, "")
    text = repr(described).encode()
    tensors[STRUCTURE] = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
    return tensors


def from_tensors(tensors: Mapping[str, Tensor], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that `to_tensors` made `tensors` of; `like` is one of the same method."""
    if STRUCTURE in tensors:
        text = bytes(tensors[STRUCTURE].cpu().tolist()).decode()
        return _rebuild(ast.literal_eval(text), tensors)  # type: ignore[no-any-return]
    numbers = iter(tensors[CLOCK].tolist() if CLOCK in tensors else ())
    return _fill(like, "", tensors, numbers)  # type: ignore[no-any-return]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _fill(like: Any, name: str, tensors: Mapping[str, Tensor], numbers: Iterator[float]) -> Any:
    if isinstance(like, Mapping):
        return {
            key: _fill(part, f"{name}.{key}" if name else str(key), tensors, numbers)
            for key, part in like.items()
        }
    if isinstance(like, Tensor):
        return tensors[name]
    return _number(next(numbers), like)


def _number(number: float, like: Any) -> Any:
    if isinstance(like, float):
        return number
    if number == -math.inf:
        return None
    return number != 0 if isinstance(like, bool) else int(number)


def _describe(value: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    if isinstance(value, Tensor):
        return _IS_TENSOR + name, {name: value}
    if not isinstance(value, Mapping | list | tuple):
        return (value, {}) if not isinstance(value, str) else ("text:" + value, {})
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    parts = {key: _describe(part, f"{name}.{key}" if name else str(key)) for key, part in pairs}
    tensors = {k: tensor for _, named in parts.values() for k, tensor in named.items()}
    described = {key: part for key, (part, _) in parts.items()}
    return (described if isinstance(value, Mapping) else list(described.values())), tensors


def _rebuild(described: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(described, dict):
        return {key: _rebuild(part, tensors) for key, part in described.items()}
    if isinstance(described, list):
        return [_rebuild(part, tensors) for part in described]
    if isinstance(described, str):
        kind, _, rest = described.partition(":")
        return tensors[rest] if f"{kind}:" == _IS_TENSOR else rest
    return described
