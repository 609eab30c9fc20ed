"""Ranks of features: effective, stable and srank_δ, as they are and with their mean removed.

Effective rank: Roy & Vetterli 2007. Stable rank: ‖A‖²_F / ‖A‖²₂. srank_δ, δ = 0.01: Kumar et al.
2021 (2010.14498). Centred ones are of features less their mean over the examples, which otherwise
is most of the first singular value where activations are never negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = ("effective_rank", "stable_rank", "srank")


def ranks(features: Tensor, delta: float = 0.01) -> dict[str, Tensor]:
    """Return effective rank, stable rank and srank_δ of features [S, B, F], [S] each."""
    # On the host: CUDA has no deterministic cumulative sum.
    finite = torch.nan_to_num(features.detach().cpu(), nan=0.0, posinf=0.0, neginf=0.0)
    singular = torch.linalg.svdvals(finite)
    total = singular.sum(1, keepdim=True).clamp(min=1e-12)
    share = singular / total
    entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
    largest = singular[:, 0].clamp(min=1e-12)
    return {
        "plasticity/effective_rank": entropy.exp(),
        "plasticity/stable_rank": singular.square().sum(1) / largest.square(),
        "plasticity/srank": 1 + (share.cumsum(1) < 1 - delta).sum(1).float(),
    }


def centred_ranks(features: Tensor, delta: float = 0.01) -> dict[str, Tensor]:
    """Return the same ranks of mean-removed features, [S] each, under "centred_…"."""
    finite = torch.nan_to_num(features.detach().double(), nan=0.0, posinf=0.0, neginf=0.0)
    found = ranks(finite - finite.mean(1, keepdim=True), delta)
    centred = [f"plasticity/centred_{name}" for name in NAMES]
    return {new: v.float() for new, v in zip(centred, found.values(), strict=True)}
