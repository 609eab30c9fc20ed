"""Utility-based perturbed gradient descent, UPGD (Elsayed & Mahmood 2024, 2404.00781)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.copies import matched
from ht_bench.methods.rates import rated
from ht_bench.networks.stacking import per_seed


@dataclass(eq=False)
class UPGD(Method):
    """θ ← θ (1 − lr wd) − α lr (g + σ N) (1 − sigmoid(U / max U)): the first-order global UPGD.

    U ← β U − (1 − β) g θ is each weight's utility, its maximum taken over a seed's whole network;
    N is standard normal noise. It takes the place of the optimizer's own move, whatever optimizer
    that is: the weights are set after its step, from where they stood before it. lr is the
    optimizer's rate, α = `scale` what UPGD multiplies it by (2 in the authors' code, where lr is
    tuned; a task's rate is made for AdamW, of which plain descent needs a multiple), β = `decay`,
    σ = `noise`, wd = `weight_decay`, in place of the optimizer's own.
    """

    name = "upgd"
    capturable = False  # the noise comes from generators of the CPU

    scale: float = 2.0
    decay: float = 0.999
    noise: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise UsageError(f"decay = {self.decay}: it lies between 0 and 1, 1 left out.")
        for name in ("scale", "noise", "weight_decay"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} = {getattr(self, name)}: give zero or more.")

    def setup(self) -> None:
        """Start every utility at zero."""
        named = dict(self.module.named_parameters())
        self._utilities = {name: torch.zeros_like(p) for name, p in named.items()}
        self._next = {name: torch.empty_like(p) for name, p in named.items()}

    def _trained(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, parameter in self.module.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.detach(), parameter.grad

    def before_step(self) -> None:
        """Update the utilities, and compute where the weights are to go."""
        trained = list(self._trained())
        if not trained:
            return
        for name, weights, gradient in trained:
            self._utilities[name].mul_(self.decay).addcmul_(gradient, weights, value=self.decay - 1)
        # The authors' code corrects U for its start at zero, and not max U, by which it divides
        # (fault 8). With both corrected the factor cancels, and none is needed.
        largest = self._largest([self._utilities[name] for name, _, _ in trained])
        rates = {
            id(p): rate
            for rate, parameters in rated(self.module, self._hooks.optimizers)
            for p in parameters
        }
        noise = self._draw([weights for _, weights, _ in trained])
        for (name, weights, gradient), drawn in zip(trained, noise, strict=True):
            rate = rates[id(self.module.get_parameter(name))]
            gate = 1 - torch.sigmoid(self._utilities[name] / _broadcast(largest, weights))
            move = (gradient + drawn) * gate
            target = weights * (1 - rate * self.weight_decay) - self.scale * rate * move
            self._next[name].copy_(target)

    def _has_seeds(self, tensor: Tensor) -> bool:
        return self.stacked and tensor.dim() > 1

    def _largest(self, utilities: list[Tensor]) -> Tensor:
        """Return the largest utility of each seed, [seeds]; above zero, so that it divides."""
        rows = [per_seed(u, self._has_seeds(u)).amax(1) for u in utilities]
        return torch.stack(rows).amax(0).clamp_min(torch.finfo(rows[0].dtype).tiny)

    def _draw(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return σ N for each tensor, each seed's part from its own generator."""
        if not self.noise:
            return [torch.zeros((), device=t.device) for t in tensors]
        rows = [per_seed(tensor, self._has_seeds(tensor)) for tensor in tensors]
        sizes = [row.shape[1] for row in rows]
        generators: list[torch.Generator | None] = [*self._generators()]
        generators = generators or [None] * len(rows[0])
        drawn = torch.stack([_normal(sum(sizes), g) for g in generators])
        drawn = drawn.to(tensors[0].device, tensors[0].dtype).mul_(self.noise)
        parts = drawn.split(sizes, dim=1)
        return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]

    def after_step(self) -> None:
        """Put the weights where UPGD has them, whatever the optimizer did."""
        for name, weights, _ in self._trained():
            weights.copy_(self._next[name])

    def resync(self) -> None:
        """Forget the utilities: those of other weights say nothing of the present ones."""
        self.setup()
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the utilities."""
        return {"utilities": dict(self._utilities)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the utilities."""
        for utility, saved in matched(self._utilities, state["utilities"]):
            utility.copy_(saved)


def _broadcast(per_seed_values: Tensor, like: Tensor) -> Tensor:
    """Return [seeds] shaped to act on a stack's tensor; one seed's value acts on any."""
    if len(per_seed_values) == 1:
        return per_seed_values[0]
    return per_seed_values.view(-1, *[1] * (like.dim() - 1))


def _normal(count: int, generator: torch.Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return torch.randn(count, generator=generator, device=device)
