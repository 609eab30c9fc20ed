"""Which method wrote a saved state, and whether another can go on from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.methods.contract import own_name
from ht_bench.sb3.state_tensors import STRUCTURE, from_tensors

GENERATOR = "generator"
_WRITTEN_BY = "written_by."
OTHER_METHOD = "the state of another method than '{}', which is left out"
OTHER_SETTINGS = "the state of '{}' with other hyperparameters, which is left out"


def sign(tensors: dict[str, Tensor], method: Method, device: torch.device) -> None:
    """Add who wrote these tensors, in the name, and how many they are, unless there are none."""
    if tensors:
        # A number like the clock, not bytes: averages and casts of a state_dict leave it whole.
        count = torch.tensor(float(len(tensors)), device=device)
        tensors[_WRITTEN_BY + own_name(type(method))] = count


def take_signature(tensors: dict[str, Tensor]) -> tuple[str, int] | None:
    """Take out who wrote these tensors, and how many they were; None in files of before."""
    for key in tensors:
        if key.startswith(_WRITTEN_BY):
            return key.removeprefix(_WRITTEN_BY), int(tensors.pop(key).item())
    return None


def misfit(
    method: Method,
    signature: tuple[str, int] | None,
    own: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    template: Mapping[str, Any],
) -> str:
    """Return why a saved state is not one that `method` goes on from, in words; "" if it is.

    own: the saved tensors. expected, template: the method's own state, as tensors and as it is.
    A state of the method's that was cut afterwards is one; torch says what it lacks.
    """
    lacks = STRUCTURE not in own and any(key not in own for key in expected)
    if signature is None:
        return "" if not lacks and _fits(method, own, expected, template) else OTHER_METHOD
    writer, count = signature
    if writer != own_name(type(method)):
        return OTHER_METHOD
    return OTHER_SETTINGS if lacks and count == len(own) else ""


def _fits(
    method: Method,
    own: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    template: Mapping[str, Any],
) -> bool:
    """Whether an unsigned state has the names and shapes of the method's."""
    if STRUCTURE in own:
        return from_tensors(own, template).keys() == template.keys()
    statistics = [name for name, _ in method.module.named_buffers()]
    more = own.keys() - expected.keys() - {GENERATOR}
    if not all(_ends_with_one(key, statistics) for key in more):
        return False
    return all(own[key].shape == tensor.shape for key, tensor in expected.items())


def _ends_with_one(key: str, names: Collection[str]) -> bool:
    # A slow copy that averaged statistics goes on as one that copies them.
    return any(key.endswith(f".{name}") for name in names)
