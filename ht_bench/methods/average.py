"""A slow copy of a module: the exponential moving average behind several methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.copies import Copies
from ht_bench.methods.derived import Derived

Buffers = Literal["average", "copy"]


class SlowCopy(Copies):
    """s ← μ s + (1−μ) θ over a module's parameters and running statistics, in storage of its own.

    buffers: "average" treats running statistics as weights (the code of Lee et al. 2024); "copy"
    judges with those the module has. Every other buffer stays the module's own in both. bf16 and
    fp16 parameters have a slow copy in fp32, or it would stand still: 1 − μ is below their
    rounding. What a module derives from its weights (parametrizations, spectral norm's vectors,
    weight norm and pruning by hooks) is derived anew from the slow ones while they are in place.
    """

    def __init__(self, module: nn.Module, buffers: Buffers = "average") -> None:
        self._placed = False
        super().__init__(module, statistics=buffers == "average", wide=True)

    def restart(self) -> None:
        """Start again at the module's present weights."""
        if self._placed:
            raise UsageError("The slow weights are in place now; leave `evaluating()` first.")
        super().restart()
        self._derived = Derived(self.module)

    def tensors(self) -> dict[str, Tensor]:
        """Return the slow tensors by name, and the module's own where there is none."""
        own: dict[str, Tensor] = dict(self.module.named_parameters())
        own.update(self.module.named_buffers())
        slow = self.named()
        rest = {name: tensor.detach() for name, tensor in own.items() if name not in slow}
        return {**slow, **rest}

    def state(self) -> dict[str, Tensor]:
        """Return copies of the slow tensors alone, by name."""
        return {name: tensor.clone() for name, tensor in self.named().items()}

    def follow(self) -> None:
        """Move to the device and dtype that the module has now."""
        self.now()

    def update(self, decay: float) -> None:
        """Move the slow weights a step toward the fast ones: weight 1 − decay on the fast."""
        if torch.is_grad_enabled():
            with torch.no_grad():
                self.update(decay)
            return
        if self._placed:
            raise UsageError("The optimizer stepped inside `evaluating()`; train outside it.")
        fast = self.now()
        if self._narrow:
            fast = [t.to(v.dtype) for t, v in zip(fast, self._values, strict=True)]
        torch._foreach_lerp_(self._values, fast, 1 - decay)

    @torch.no_grad()
    def load_into_fast(self) -> None:
        """θ ← s, by value: the two never share storage."""
        if self._placed:
            return
        torch._foreach_copy_(self.now(), self._values)
        self._derived.follow()

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
        held = self.now()
        slow = self._values
        if self._narrow:
            slow = [v.to(t.dtype) for t, v in zip(held, slow, strict=True)]
        fast = [tensor.data for tensor in held]
        self._placed = True
        try:
            for tensor, data in zip(held, slow, strict=True):
                tensor.data = data
            with self._derived.following():
                yield
        finally:
            for tensor, data in zip(held, fast, strict=True):
                tensor.data = data
            self._placed = False
