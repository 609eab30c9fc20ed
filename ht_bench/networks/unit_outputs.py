"""Units by their outputs on a batch: dormant, saturated, duplicate ones; one share per seed.

A convolution's unit is a channel, over all positions; a transformer's is a feature, over all
tokens. Dormant: Sokar et al. 2023 (2302.12902), Eq. 1. Saturated: a unit that its activation
treats as a linear one (Lyle et al. 2024, 2402.18762, on linearised units), or that a bounded
activation holds at its bounds (Glorot & Bengio 2010). Duplicate: parallel to a unit before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ht_bench.networks.parts import CReLU

DUPLICATE = 0.99
"""Cosine of two units' outputs from which on the second one counts as a duplicate."""
LINEAR = 0.01
"""Relative spread of outputs over inputs up to which a unit counts as linear."""
AT_BOUND = 0.01
"""Share of a bounded activation's range within which an output is at its bound."""


@dataclass
class Units:
    """What one layer's units did on a batch: mean |h|, saturated, duplicate; [seeds, units] each.

    The last two are bools and do not hold for a unit that is zero on the whole batch.
    """

    mean: Tensor
    saturated: Tensor
    duplicate: Tensor


@torch.no_grad()
def observe(activation: nn.Module, received: Tensor, output: Tensor, stacked: bool) -> Units:
    """Return what one call of an activation shows of its units."""
    mean = mean_activations(output, stacked)
    outputs = _by_unit(output, stacked)
    fires = mean > 0
    return Units(
        mean,
        _saturated(activation, received, output, stacked) & fires,
        duplicates(outputs) & fires,
    )


def mean_activations(activation: Tensor, stacked: bool) -> Tensor:
    """Return each unit's E|h|, [seeds, units]."""
    batched = activation if stacked else activation[None]
    channel = _unit_dimension(batched)
    others = [d for d in range(1, batched.dim()) if d != channel]
    return batched.detach().float().abs().mean(others)


def dormant_share(means: list[Tensor], threshold: float = 0.0) -> Tensor:
    """Return the share of units with score ≤ threshold over all layers, [seeds].

    means: E|h_i|, [seeds, units] of each layer. score_i = E|h_i| / mean_k E|h_k| (Sokar et al.
    2023, Eq. 1). A layer of zeros is all dormant. There must be a layer.
    """
    dormant: list[Tensor] = []
    for mean in means:
        score = mean / mean.mean(1, keepdim=True).clamp(min=1e-9)
        dormant.append((score <= threshold).float())
    return torch.cat(dormant, dim=1).mean(1)


def share(flags: list[Tensor]) -> Tensor:
    """Return the share of units that are flagged over all layers, [seeds]."""
    return torch.cat(flags, dim=1).float().mean(1)


def duplicates(outputs: Tensor, threshold: float = DUPLICATE) -> Tensor:
    """Say which units are parallel to one of lower index: bool [S, U] from outputs [S, N, U].

    |cosine| ≥ threshold over the N outputs, not centred: such a unit's outgoing weights could be
    added to the other's. Of a unit that is zero on all of them but one, a cosine says nothing.
    """
    exact = torch.nan_to_num(outputs.detach().double(), nan=0.0, posinf=0.0, neginf=0.0)
    normal = torch.nn.functional.normalize(exact, dim=1, eps=1e-30)
    cosines = torch.bmm(normal.mT, normal).abs()
    known = (exact != 0).sum(1) > 1
    parallel = (cosines >= threshold) & known[:, :, None] & known[:, None]
    return parallel.tril(-1).any(2)


def _saturated(activation: nn.Module, received: Tensor, output: Tensor, stacked: bool) -> Tensor:
    """Say which units are linear, or at their activation's bounds, on the whole batch."""
    outputs = _by_unit(output, stacked)
    found = torch.zeros(outputs[:, 0].shape, dtype=torch.bool, device=output.device)
    if not isinstance(activation, _CENTRED) or isinstance(activation, nn.ReLU6):
        found |= _linear(_like_outputs(activation, received), output, stacked)
    bounds = _bounds(activation)
    if bounds is not None:
        low, high = bounds
        near = AT_BOUND * (high - low)
        found |= ((outputs <= low + near) | (outputs >= high - near)).all(1)
    return found


def _linear(received: Tensor | None, output: Tensor, stacked: bool) -> Tensor:
    """Say whose output is a fixed multiple of its input: ReLU that is always on has slope 1."""
    outputs = _by_unit(output, stacked)
    if received is None or received.shape != output.shape:
        return torch.zeros(outputs[:, 0].shape, dtype=torch.bool, device=output.device)
    inputs = _by_unit(received, stacked)
    slopes = outputs / inputs  # 0 / 0 says nothing of the slope
    high = torch.nan_to_num(slopes, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(1)
    low = torch.nan_to_num(slopes, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(1)
    return high - low <= LINEAR * torch.maximum(high.abs(), low.abs())


def _like_outputs(activation: nn.Module, received: Tensor) -> Tensor | None:
    """Return what each output would be without the non-linearity, shaped as the outputs."""
    if isinstance(activation, CReLU):
        return torch.cat((received, -received), activation.dim)
    return received


_CENTRED = (nn.Tanh, nn.Sigmoid, nn.Softsign, nn.Hardtanh)
"""Bounded and nearly linear in the middle, where a unit learns best: not saturated there."""


def _bounds(activation: nn.Module) -> tuple[float, float] | None:
    if isinstance(activation, nn.Tanh | nn.Softsign):
        return -1.0, 1.0
    if isinstance(activation, nn.Sigmoid | nn.Hardsigmoid):
        return 0.0, 1.0
    if isinstance(activation, nn.Hardtanh):  # ReLU6 is one
        return float(activation.min_val), float(activation.max_val)
    return None


def _unit_dimension(batched: Tensor) -> int:
    return 2 if batched.dim() == 5 else batched.dim() - 1


def _by_unit(activation: Tensor, stacked: bool) -> Tensor:
    """View outputs as [seeds, batch and positions, units]."""
    batched = (activation if stacked else activation[None]).detach().float()
    if batched.dim() == 2:  # one number for each example
        batched = batched[..., None]
    return batched.movedim(_unit_dimension(batched), -1).flatten(1, -2)
