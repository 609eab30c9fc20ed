"""A slow copy of a module: the exponential moving average behind several methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Buffers = Literal["average", "copy"]


class SlowCopy:
    """s ← μ s + (1−μ) θ over a module's parameters and buffers, in storage of its own.

    buffers: "average" treats floating buffers as weights (the code of Lee et al. 2024) and
    copies the others; "copy" copies them all.
    """

    def __init__(self, module: nn.Module, buffers: Buffers = "average") -> None:
        averaged: dict[str, Tensor] = dict(module.named_parameters())
        copied: dict[str, Tensor] = {}
        for name, buffer in module.named_buffers():
            group = averaged if buffers == "average" and buffer.is_floating_point() else copied
            group[name] = buffer
        self._fast = [tensor.detach() for tensor in averaged.values()]
        self._fast_copied = [tensor.detach() for tensor in copied.values()]
        self._names = [*averaged, *copied]
        self._slow = [tensor.clone() for tensor in self._fast]
        self._slow_copied = [tensor.clone() for tensor in self._fast_copied]

    def tensors(self) -> dict[str, Tensor]:
        """Return the slow parameters and buffers by name."""
        return dict(zip(self._names, self._slow + self._slow_copied, strict=True))

    def update(self, decay: float) -> None:
        """Move the slow weights a step toward the fast ones: weight 1 − decay on the fast."""
        torch._foreach_lerp_(self._slow, self._fast, 1 - decay)
        if self._slow_copied:
            torch._foreach_copy_(self._slow_copied, self._fast_copied)

    def load_into_fast(self) -> None:
        """θ ← s, by value: the two never share storage."""
        torch._foreach_copy_(self._fast + self._fast_copied, self._slow + self._slow_copied)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over tensors by name, by value."""
        for name, tensor in self.tensors().items():
            tensor.copy_(state[name])

    @contextmanager
    def in_place_of_fast(self) -> Iterator[None]:
        """Hold the slow values in the module; the fast ones come back bit for bit."""
        kept = [tensor.clone() for tensor in self._fast + self._fast_copied]
        with torch.no_grad():
            self.load_into_fast()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._fast + self._fast_copied, kept)
