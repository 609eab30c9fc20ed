"""Arithmetic over a leading seed dimension, for a stack of seeds and for a lone network alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def is_stacked(module: nn.Module) -> bool:
    """Whether the module's tensors carry a leading seed dimension."""
    return bool(getattr(module, "stacked", False))


def per_seed(tensor: Tensor, stacked: bool) -> Tensor:
    """View `tensor` as [seeds, rest]; a lone network is one seed."""
    return tensor.flatten(1) if stacked and tensor.dim() > 1 else tensor.reshape(1, -1)


def squared_norms(tensors: Sequence[Tensor], stacked: bool) -> Tensor:
    """Return each seed's squared Euclidean norm over all `tensors`, shape [seeds]."""
    if not stacked:
        norms = torch.stack(torch._foreach_norm(list(tensors)))
        wide = torch.promote_types(norms.dtype, torch.float32)
        return norms.to(wide).square().sum().reshape(1)
    parts = [torch.linalg.vector_norm(per_seed(tensor, True), dim=1) for tensor in tensors]
    return torch.stack(parts).square().sum(0)


def clip_gradients(module: nn.Module, maximum: float) -> None:
    """Scale each seed's gradients so that their norm is at most `maximum`, with no host read.

    The same rule as `torch.nn.utils.clip_grad_norm_`, seed by seed.
    """
    stacked = is_stacked(module)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    norms = squared_norms(gradients, stacked).sqrt()
    scale = (maximum / (norms + 1e-6)).clamp(max=1.0)
    if not stacked:
        torch._foreach_mul_(gradients, scale[0])
        return
    scales = [scale.view(-1, *[1] * (gradient.dim() - 1)) for gradient in gradients]
    torch._foreach_mul_(gradients, scales)


def finite(module: nn.Module) -> Tensor:
    """Return a bool per seed, shape [seeds]: all parameters and floating buffers are finite."""
    stacked = is_stacked(module)
    tensors = [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]
    flags = [torch.isfinite(per_seed(tensor.detach(), stacked)).all(1) for tensor in tensors]
    return torch.stack(flags).all(0)
