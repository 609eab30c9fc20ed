"""A slow copy of a module: the exponential moving average behind several methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Buffers = Literal["average", "copy"]
Place = tuple[Mapping[str, Any], str]
"""Where a module keeps a tensor: `Module.to` replaces buffers, so each is read anew."""


class SlowCopy:
    """s ← μ s + (1−μ) θ over a module's parameters and buffers, in storage of its own.

    buffers: "average" treats floating buffers as weights (the code of Lee et al. 2024) and
    copies the others; "copy" copies them all. A module that moves to another device or dtype
    takes its slow copy along at the next use.
    """

    def __init__(self, module: nn.Module, buffers: Buffers = "average") -> None:
        self._averaged = _places(module, "_parameters")
        self._copied: dict[str, Place] = {}
        for name, (table, key) in _places(module, "_buffers").items():
            averaged = buffers == "average" and table[key].is_floating_point()
            (self._averaged if averaged else self._copied)[name] = (table, key)
        self._slow = [tensor.clone() for tensor in _read(self._averaged)]
        self._slow_copied = [tensor.clone() for tensor in _read(self._copied)]
        self._placed = False

    def tensors(self) -> dict[str, Tensor]:
        """Return the slow parameters and buffers by name."""
        names = [*self._averaged, *self._copied]
        return dict(zip(names, self._slow + self._slow_copied, strict=True))

    def _fast(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the module's tensors as they are now, the slow ones moved beside them."""
        fast, copied = _read(self._averaged), _read(self._copied)
        if fast and (fast[0].device, fast[0].dtype) != (self._slow[0].device, self._slow[0].dtype):
            self._slow = [slow.to(now) for slow, now in zip(self._slow, fast, strict=True)]
            pairs = zip(self._slow_copied, copied, strict=True)
            self._slow_copied = [slow.to(now) for slow, now in pairs]
        return fast, copied

    def follow(self) -> None:
        """Move to the device and dtype that the module has now."""
        self._fast()

    def update(self, decay: float) -> None:
        """Move the slow weights a step toward the fast ones: weight 1 − decay on the fast."""
        fast, copied = self._fast()
        torch._foreach_lerp_(self._slow, fast, 1 - decay)
        if copied:
            torch._foreach_copy_(self._slow_copied, copied)

    def load_into_fast(self) -> None:
        """θ ← s, by value: the two never share storage."""
        fast, copied = self._fast()
        torch._foreach_copy_(fast + copied, self._slow + self._slow_copied)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over tensors by name, by value."""
        for name, tensor in self.tensors().items():
            tensor.copy_(state[name])

    @contextmanager
    def in_place_of_fast(self) -> Iterator[None]:
        """Hold the slow tensors themselves in the module; the fast ones come back bit for bit.

        An exchange by reference: parameters and buffers stay the same objects, and afterwards
        they have their storage again, so that optimizers, views and CUDA graphs notice nothing.
        What is written into them meanwhile stays in the slow copy. Nested it does nothing.
        """
        if self._placed:
            yield
            return
        self._fast()
        slow = self._slow + self._slow_copied
        held = [table[key] for table, key in (*self._averaged.values(), *self._copied.values())]
        fast = [tensor.data for tensor in held]
        self._placed = True
        try:
            for tensor, data in zip(held, slow, strict=True):
                tensor.data = data
            yield
        finally:
            for tensor, data in zip(held, fast, strict=True):
                tensor.data = data
            self._placed = False


def _places(module: nn.Module, kind: Literal["_parameters", "_buffers"]) -> dict[str, Place]:
    """Return name → (table, key) of a module's tensors; a shared one is named once."""
    found: dict[str, Place] = {}
    seen: set[int] = set()
    for prefix, child in module.named_modules():
        table = getattr(child, kind)
        for key, tensor in table.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{prefix}.{key}" if prefix else key] = (table, key)
    return found


def _read(places: Mapping[str, Place]) -> list[Tensor]:
    return [table[key].detach() for table, key in places.values()]
