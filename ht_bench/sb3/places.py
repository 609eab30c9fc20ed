"""Where a module and its submodules keep their tensors, by the names a slow copy gives them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from ht_bench.methods.average import SlowCopy


class Place(NamedTuple):
    """A tensor's place, read anew at each use: `Module.to` and loading replace tensors."""

    table: dict[str, Any]
    key: str
    name: str


def places_of(module: nn.Module, kind: str) -> list[Place]:
    """Return the places of "_parameters" or "_buffers"; a tensor kept twice has one name."""
    names: dict[int, str] = {}
    found = []
    for prefix, child in module.named_modules():
        table = getattr(child, kind)
        for key, tensor in table.items():
            if tensor is not None:
                name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                found.append(Place(table, key, name))
    return found


def slow_tensors(slow: SlowCopy) -> dict[str, Tensor]:
    """Return a slow copy's own tensors by name."""
    named: dict[str, Tensor] = getattr(slow, "named", slow.tensors)()
    return named
