"""Which method wrote a saved state, and whether another can go on from it.

The signature is metadata of the `state_dict`, as torch's own versions of modules are, so that its
tensors are the method's alone: files keep it, a plain dict of the same tensors does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.methods.contract import own_name
from ht_bench.sb3.state_tensors import CLOCK, STRUCTURE, from_tensors

GENERATOR = "generator"
SIGNED = "plasticity"
"""Where `state_dict`'s metadata of the policy say who wrote: part → (method, its tensors)."""
OTHER_METHOD = "the state of another method than '{}', which is left out"
OTHER_SETTINGS = "the state of '{}' with other hyperparameters, which is left out"


def signature_of(method: Method, tensors: Collection[str]) -> tuple[str, int]:
    """Return who wrote these tensors, and how many they are."""
    return own_name(type(method)), len(tensors)


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
    if signature is None:
        return "" if _fits(method, own, expected, template) else OTHER_METHOD
    lacks = STRUCTURE not in own and any(key not in own for key in expected)
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
    """Whether an unsigned state has names of the method's, no others, and as many numbers.

    What else does not fit is a state that was cut or is of other shapes: torch says so.
    """
    if STRUCTURE in own:
        return from_tensors(own, template).keys() == template.keys()
    statistics = [name for name, _ in method.module.named_buffers()]
    named = own.keys() - {GENERATOR}
    if not all(_ends_with_one(key, statistics) for key in named - expected.keys()):
        return False
    numbers = [tensors[CLOCK].shape for tensors in (own, expected) if CLOCK in tensors]
    shares = bool(named & expected.keys()) or not (named or expected)  # or random numbers alone
    return shares and len(set(numbers)) < 2


def _ends_with_one(key: str, names: Collection[str]) -> bool:
    # A slow copy that averaged statistics goes on as one that copies them.
    return any(key.endswith(f".{name}") for name in names)
