"""What a module derives from its weights: spectral norm's vectors, weights computed by old hooks.

When other weights take their place, what is derived from them must follow, or the network judged
is neither the one nor the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

ITERATIONS = 15
"""Power iterations after which torch, too, calls spectral norm's vectors converged."""


@dataclass(frozen=True)
class OldHook:
    """A forward pre-hook that computes `module.<name>` from the parameter `module.<source>`."""

    module: nn.Module
    hook: Any
    name: str
    source: str


def old_hooks(module: nn.Module) -> list[OldHook]:
    """Return the hooks of `weight_norm`, `spectral_norm` and `prune` in their old form."""
    found = []
    for child in module.modules():
        for hook in child._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                found.append(OldHook(child, hook, hook.name, f"{hook.name}_v"))
            elif isinstance(hook, SpectralNorm):
                found.append(OldHook(child, hook, hook.name, f"{hook.name}_orig"))
            elif isinstance(hook, BasePruningMethod):
                name: str = hook._tensor_name
                found.append(OldHook(child, hook, name, f"{name}_orig"))
    return found


class Derived:
    """The derived tensors of one module."""

    def __init__(self, module: nn.Module) -> None:
        self._old = old_hooks(module)
        self._spectral = [
            child
            for child in module.modules()
            if isinstance(child, ParametrizationList)
            and any(isinstance(part, _SpectralNorm) for part in child)
        ]

    def follow(self) -> None:
        """Derive everything anew from the weights that the module holds."""
        for spectral in self._spectral:
            parts = [spectral, *spectral]
            modes = [part.training for part in parts]
            spectral.train()
            for _ in range(ITERATIONS):
                spectral()
            for part, mode in zip(parts, modes, strict=True):
                part.train(mode)
        for old in self._old:
            if isinstance(old.hook, SpectralNorm):
                for _ in range(ITERATIONS):
                    old.hook.compute_weight(old.module, do_power_iteration=True)
                weight = old.hook.compute_weight(old.module, do_power_iteration=False)
                setattr(old.module, old.name, weight)
            else:
                old.hook(old.module, None)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Derive from the weights held now; vectors and computed weights come back after."""
        parametrize._cache.clear()  # inside `parametrize.cached()` it would hold the others'
        try:
            with self._exchanged():
                yield
        finally:
            parametrize._cache.clear()

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        if not (self._old or self._spectral):
            yield
            return
        vectors = self._vectors()
        data = [vector.data for vector in vectors]
        computed = [old.module.__dict__.get(old.name) for old in self._old]
        try:
            with torch.no_grad():
                for vector in vectors:
                    vector.data = vector.data.clone()
                self.follow()
            yield
        finally:
            for vector, old_data in zip(vectors, data, strict=True):
                vector.data = old_data
            for old, weight in zip(self._old, computed, strict=True):
                if weight is not None:
                    old.module.__dict__[old.name] = weight

    def _vectors(self) -> list[Tensor]:
        found = [buffer for spectral in self._spectral for buffer in spectral.buffers()]
        for old in self._old:
            if isinstance(old.hook, SpectralNorm):
                names = (f"{old.name}_u", f"{old.name}_v")
                found += [old.module.get_buffer(name) for name in names]
        return found
