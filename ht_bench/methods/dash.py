"""Direction-aware shrinking: weights shrink where they point away from the old data's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.matrices import weight_matrices
from ht_bench.networks.modes import evaluation_mode


@dataclass(eq=False)
class DirectionAwareShrinking(Method):
    """At each phase start w ← w · clip(cos(G, w), λ, 1), G an average of −∇ over the old data.

    Shin et al. 2024 (2410.23495, Algorithm 1): G ← (1−α) G + α (−∇L) over the batches of the
    phase that has ended, α = `averaging`, λ = `threshold`. The cosine is taken for each kernel
    (one input channel of one filter), each row of a linear layer, and each bias as a whole;
    normalisations are left alone. λ = 1 does nothing.
    """

    name = "dash"
    needs: ClassVar[frozenset[str]] = frozenset({"old data"})

    averaging: float = 0.3
    threshold: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.averaging <= 1:
            raise UsageError(f"averaging = {self.averaging}: a share above 0, at most 1.")
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold = {self.threshold}: it lies between 0 and 1.")

    def on_phase(self, index: int) -> None:
        """Gather the old data's gradient, then shrink."""
        if self.threshold == 1:
            return
        tensors = self._shrinking()
        towards = self._descent(tensors)
        for tensor, direction in zip(tensors, towards, strict=True):
            similarity = self._cosine(direction, tensor.detach())
            tensor.detach().mul_(similarity.clamp(self.threshold, 1.0))

    def _shrinking(self) -> list[nn.Parameter]:
        """Return the weights and biases of the layers that have a matrix or kernels."""
        matrices = weight_matrices(self.module, self.name)
        own = [p for m in matrices for p in (m.parameter, m.bias) if p is not None]
        return [p for p in own if p.requires_grad]

    def _descent(self, tensors: list[nn.Parameter]) -> list[Tensor]:
        """Return G of each tensor; nothing else of the network or the optimizer moves."""
        averages = [torch.zeros_like(tensor) for tensor in tensors]
        assert self.loop.old_batches is not None and self.loop.loss is not None
        # In evaluation mode, unlike the authors' code, so that statistics and dropout stay put.
        with evaluation_mode(self.module), torch.enable_grad():
            for inputs, labels in self.loop.old_batches():
                loss = self.loop.loss(self.module(inputs), labels)
                gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
                for average, gradient in zip(averages, gradients, strict=True):
                    average.mul_(1 - self.averaging)
                    if gradient is not None:
                        average.sub_(gradient, alpha=self.averaging)
        return averages

    def _cosine(self, direction: Tensor, tensor: Tensor) -> Tensor:
        """Return cos(G, w) of each kernel, row or bias, shaped to multiply the tensor."""
        seeds = int(self.stacked)
        dims = (-2, -1) if tensor.dim() - seeds == 4 else (-1,)
        product = (direction * tensor).sum(dims, keepdim=True)
        norms = torch.linalg.vector_norm(
            direction, dim=dims, keepdim=True
        ) * torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
        return product / norms.clamp(min=1e-8)
