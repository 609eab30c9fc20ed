"""Notices weights that move without the method's hooks: another optimizer steps, or none hooked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from ht_bench.methods.hooks import StepHooks


class Watch:
    """Compares, from look to look, whether weights moved and whether steps were seen."""

    def __init__(self, name: str, module: nn.Module, hooks: StepHooks) -> None:
        self._name, self._module, self._hooks = name, module, hooks
        self._warned = False
        self.note()

    def note(self) -> None:
        """Take the weights as they are for granted: the method wrote them, or they were loaded."""
        self._versions, self._fired = _versions(self._module), self._hooks.fired

    def look(self) -> None:
        """Warn, once, where weights moved since the last look and no hooked step was seen."""
        versions = _versions(self._module)
        moved, fired = versions != self._versions, self._hooks.fired != self._fired
        self._versions, self._fired = versions, self._hooks.fired
        if moved and not fired and not self._warned and self._hooks.optimizers:
            self._warned = True
            warnings.warn(
                f"{self._name}: the weights changed, but no step of the optimizer given to attach "
                f"({_kinds(self._hooks.optimizers)}) was seen; attach to the optimizer whose "
                "step() runs, anew when it is replaced, and call resync() after loading weights.",
                stacklevel=4,
            )


def _versions(module: nn.Module) -> int:
    return sum(p._version for p in module.parameters() if not p.is_inference())


def _kinds(optimizers: Sequence[torch.optim.Optimizer]) -> str:
    return ", ".join(type(optimizer).__name__ for optimizer in optimizers)
