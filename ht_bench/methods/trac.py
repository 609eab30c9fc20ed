"""TRAC (Muppidi et al. 2024, "Fast TRAC: A Parameter-Free Optimizer for …", 2405.16642)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.copies import Copies
from ht_bench.networks.stacking import per_seed

EPSILON = 1e-8
"""Added to the denominator of a tuner, and where its sum of gradients begins (the paper's code)."""
LARGEST = 26.0
"""Argument beyond which erfi overflows a double."""
NODES = 128
"""Of the quadrature of erfi: relative error below 1e-12 up to LARGEST."""


@dataclass(eq=False)
class Trac(Method):
    """θ = θ_ref + max(Σⱼ sⱼ, 0) δ: δ is what the optimizer's steps sum to, the sⱼ are learned.

    θ_ref: the weights at attach. At each step h = ⟨∇, δ⟩, and each tuner j of `tuners`, with
    discount βⱼ = 1 − 10⁻ʲ, does v ← β² v + h², σ ← β σ − h,
    s ← `scale` / erfi(1/√2) · erfi(σ / (√(2 v) + ε)) (Algorithms 1 and 2). Any optimizer takes
    the steps; each seed of a stack has tuners of its own, an actor and a critic too. δ is kept:
    the paper's code recovers it from θ, which float32 rounds away while the scale is small.
    """

    name = "trac"
    capturable = True
    may_rest = True  # at θ_ref, while the scales' sum is not positive

    tuners: int = 6
    scale: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.tuners, bool) or self.tuners < 1:
            raise UsageError(f"tuners = {self.tuners}: give 1 or more.")
        if self.scale <= 0:
            raise UsageError(f"scale = {self.scale}: it lies above 0.")

    def setup(self) -> None:
        """Keep θ_ref; δ and the tuners start at nothing."""
        self._reference, self._delta, self._before = (
            Copies(self.module, wide=True) for _ in range(3)
        )
        count = len(next(self.module.parameters())) if self.stacked else 1
        device = next(self.module.parameters()).device
        # Doubles: erfi spans more than the range of a float.
        self._product = torch.zeros(count, 1, dtype=torch.float64, device=device)
        self._variance, self._sigma, self._scales = (
            self._product.new_zeros(count, self.tuners) for _ in range(3)
        )
        self._betas = 1 - 0.1 ** torch.arange(1, self.tuners + 1, dtype=torch.float64).to(device)
        self._nodes = nodes(device)
        self._begin()

    def _begin(self) -> None:
        torch._foreach_zero_(self._delta.values)
        self._variance.zero_()
        self._sigma.fill_(EPSILON)
        self._scales.zero_()

    def before_step(self) -> None:
        """Note the weights, and ⟨∇, δ⟩ of each seed."""
        weights = self._reference.now()
        self._follow(weights[0].device)
        torch._foreach_copy_(self._before.values, weights)
        moved = [
            per_seed(weight.grad.to(delta.dtype) * delta, self.stacked).sum(1)
            for weight, delta in zip(weights, self._delta.values, strict=True)
            if weight.grad is not None
        ]
        if moved:
            self._product.copy_(torch.stack(moved).double().sum(0)[:, None])

    def _follow(self, device: torch.device) -> None:
        """Move beside the weights, where the module was moved after attach."""
        self._delta.now(), self._before.now()
        if self._product.device != device:
            for name in ("_product", "_variance", "_sigma", "_scales", "_betas", "_nodes"):
                setattr(self, name, getattr(self, name).to(device))

    def after_step(self) -> None:
        """Add the optimizer's step to δ, tune the scales, and place the weights."""
        self._tune()
        scale = self._scales.sum(1).clamp(min=0.0)
        rows = zip(
            self._reference.now(),
            self._before.values,
            self._delta.values,
            self._reference.values,
            strict=True,
        )
        for weight, before, delta, reference in rows:
            if weight.grad is not None:
                delta += weight - before
                each = scale.to(delta.dtype).view(-1, *[1] * (delta.dim() - 1))
                weight.copy_(reference + (each if self.stacked else scale.to(delta.dtype)) * delta)

    def _tune(self) -> None:
        self._variance.mul_(self._betas**2).add_(self._product**2)
        self._sigma.mul_(self._betas).sub_(self._product)
        ratio = self._sigma / ((2 * self._variance).sqrt() + EPSILON)
        self._scales.copy_(self.scale / ERFI_OF_HALF_ROOT * erfi(ratio, self._nodes))

    def resync(self) -> None:
        """θ_ref ← the present weights; δ and the tuners start again."""
        for copies in (self._reference, self._delta, self._before):
            copies.restart()
        self._begin()
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return θ_ref, δ and the tuners."""
        tuners = {"variance": self._variance, "sigma": self._sigma, "scales": self._scales}
        return {
            "reference": dict(self._reference.named()),
            "delta": dict(self._delta.named()),
            **{name: tensor.clone() for name, tensor in tuners.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over θ_ref, δ and the tuners."""
        tuners = [
            (self._variance, state["variance"]),
            (self._sigma, state["sigma"]),
            (self._scales, state["scales"]),
        ]
        self._reference.load(state["reference"])
        self._delta.load(state["delta"])
        for mine, saved in tuners:
            mine.copy_(saved)


def nodes(device: torch.device) -> Tensor:
    """Return the quadrature of a unit interval: squared places and weights, [2, NODES]."""
    places, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.tensor(np.stack([((places + 1) / 2) ** 2, weights / 2]), device=device)


def erfi(x: Tensor, quadrature: Tensor) -> Tensor:
    """Return the imaginary error function, 2/√π ∫₀ˣ exp(t²) dt, of doubles up to LARGEST."""
    x = x.clamp(-LARGEST, LARGEST)
    squares, weights = quadrature
    return 2 / math.sqrt(math.pi) * x * (weights * torch.exp(x[..., None] ** 2 * squares)).sum(-1)


ERFI_OF_HALF_ROOT = 0.9534382692512611
"""erfi(1/√2)."""
