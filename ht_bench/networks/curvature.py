"""The Hessian of the loss on a fixed batch: extreme eigenvalues and the spectral density.

Lanczos iterations with full reorthogonalisation on Hessian-vector products (Pearlmutter 1994), all
seeds of a stack at once: their losses share no weight, so one product serves all. The density is
by stochastic Lanczos quadrature (Ghorbani et al. 2019, 1901.10159). Against loss of plasticity:
Lewandowski et al. 2023 (2312.00246) on the Hessian's rank, Lyle et al. 2023 (2303.01486) on its
top eigenvalue. The network is left bit-identical.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import is_stacked

Loss = Callable[[Tensor], Tensor]
Product = Callable[[Tensor], Tensor]
STEPS, PROBES = 30, 2
"""Lanczos iterations and random vectors unless others are asked for."""
BROKEN = 1e-7
"""Share of the largest coefficient below which an invariant subspace has been found."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A quadrature of the spectral density: its nodes and weights, [seeds, probes, steps] each.

    The nodes are Ritz values, ascending: the outer ones are eigenvalues. Of each probe the weights
    add up to 1. parameters: of one seed, the number of eigenvalues.
    """

    nodes: Tensor
    weights: Tensor
    parameters: int

    def top(self, count: int = 1) -> Tensor:
        """Return the largest eigenvalues, descending, [seeds, count]: a multiple one once."""
        best = self.nodes[..., -1].argmax(1)
        chosen = self.nodes[torch.arange(len(best)), best]
        return chosen.flip(1)[:, :count]

    def lowest(self) -> Tensor:
        """Return the smallest eigenvalue, [seeds]."""
        return self.nodes.amin((1, 2))

    def negative_share(self, above: float = 1e-3) -> Tensor:
        """Return the share of eigenvalues below −`above` times the largest magnitude, [seeds]."""
        edge = above * self.nodes.abs().amax((1, 2), keepdim=True)
        return ((self.nodes < -edge) * self.weights).sum(2).mean(1)

    def trace(self) -> Tensor:
        """Return an estimate of the sum of eigenvalues, [seeds]."""
        return self.parameters * (self.nodes * self.weights).sum(2).mean(1)

    def effective_rank(self) -> Tensor:
        """Return an estimate of exp(entropy of |λ| / Σ|λ|), [seeds] (Roy & Vetterli 2007).

        From n E|λ| and E[|λ| log|λ|]: entropy = log(n E|λ|) − E[|λ| log|λ|] / E|λ|.
        """
        sizes = self.nodes.abs()
        mean = (sizes * self.weights).sum(2).mean(1).clamp(min=1e-300)
        logs = (torch.xlogy(sizes, sizes) * self.weights).sum(2).mean(1)
        entropy = (self.parameters * mean).log() - logs / mean
        return entropy.exp().clamp(1.0, float(self.parameters))

    def density(self, points: Tensor, width: float) -> Tensor:
        """Return the density at `points` [P], each node a Gaussian of deviation `width`: [S, P]."""
        apart = (points - self.nodes[..., None]) / width
        bells = (-apart.square() / 2).exp() / (width * math.sqrt(2 * math.pi))
        return (bells * self.weights[..., None]).sum(2).mean(1)


def spectrum(
    module: nn.Module, inputs: Tensor, loss: Loss, steps: int = STEPS, probes: int = PROBES
) -> Spectrum:
    """Return the spectrum of each seed's Hessian on a batch.

    Args:
        module: a stack of seeds or a lone network, seen in evaluation mode.
        inputs: training examples as the module takes them.
        loss: outputs → a scalar, each seed's mean summed.
        steps: Lanczos iterations of each probe; as many as there are parameters make it exact.
        probes: random vectors over which the density is averaged; the outer eigenvalues need one.

    Memory: steps + 3 times the parameters, in double precision. Time: probes × steps second
    backward passes. Nothing is drawn from a generator but an own one.

    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    seeds = len(parameters[0]) if is_stacked(module) else 1
    size = sum(p.numel() for p in parameters) // seeds
    generator = torch.Generator().manual_seed(0)
    # Fused attention has no second derivative.
    with evaluation_mode(module), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        product = _hessian_product(parameters, seeds, loss(module(inputs)))
        found = []
        for _ in range(probes):
            # One vector for all seeds: a seed's numbers do not depend on its mates.
            start = torch.randn(size, generator=generator, dtype=torch.float64)
            start = start.to(parameters[0].device).expand(seeds, -1)
            found.append(_quadrature(product, start, min(steps, size), generator))
    nodes, weights = (torch.stack(each, 1) for each in zip(*found, strict=True))
    return Spectrum(nodes, weights, size)


def curvature(
    module: nn.Module, inputs: Tensor, loss: Loss, steps: int = STEPS, probes: int = PROBES
) -> dict[str, Tensor]:
    """Return what of the spectrum is recorded, [seeds] by metric key; see `spectrum`."""
    found = spectrum(module, inputs, loss, steps, probes)
    return {
        "curvature/top_eigenvalue": found.top()[:, 0],
        "curvature/lowest_eigenvalue": found.lowest(),
        "curvature/negative_share": found.negative_share(),
        "curvature/trace": found.trace(),
        "curvature/effective_rank": found.effective_rank(),
    }


def _hessian_product(parameters: list[nn.Parameter], seeds: int, loss: Tensor) -> Product:
    """Return v → Hv, [seeds, parameters] in double precision."""
    gradients = torch.autograd.grad(
        loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True
    )

    def product(vectors: Tensor) -> Tensor:
        parts, at = [], 0
        for parameter in parameters:
            width = parameter.numel() // seeds
            parts.append(vectors[:, at : at + width].to(parameter.dtype).reshape(parameter.shape))
            at += width
        pairs = [(g, v) for g, v in zip(gradients, parts, strict=True) if g.requires_grad]
        if not pairs:  # a loss that is linear in the weights
            return torch.zeros_like(vectors)
        moved = torch.autograd.grad(
            [g for g, _ in pairs],
            parameters,
            [v for _, v in pairs],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat([m.detach().reshape(seeds, -1) for m in moved], 1).double()

    return product


@torch.no_grad()
def _quadrature(
    product: Product, start: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return Ritz values, ascending, and the squares of their vectors' first entries, [S, steps].

    NaN of a seed with a non-finite Hessian.
    """
    matrix = lanczos(product, start, steps, generator).cpu()
    whole = matrix.isfinite().all(2).all(1)
    values, vectors = torch.linalg.eigh(torch.where(whole[:, None, None], matrix, 0.0))
    alive = torch.where(whole, 1.0, torch.nan)[:, None]
    return values * alive, vectors[:, 0].square() * alive


def lanczos(product: Product, start: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Return the tridiagonal matrices [S, steps, steps] of Lanczos iterations from start [S, n].

    product: v → Av, [S, n], of a symmetric A for each seed. Where an invariant subspace has been
    found, the iterations go on from a new random direction, and the matrix falls into blocks.
    """
    seeds, size = start.shape
    basis = torch.zeros(seeds, steps, size, dtype=start.dtype, device=start.device)
    matrix = torch.zeros(seeds, steps, steps, dtype=start.dtype, device=start.device)
    vector = start / torch.linalg.vector_norm(start, dim=1, keepdim=True)
    scale = torch.zeros(seeds, dtype=start.dtype, device=start.device)
    for step in range(steps):
        basis[:, step] = vector
        moved = product(vector)
        matrix[:, step, step] = (moved * vector).sum(1)
        moved = _orthogonal(moved, basis[:, : step + 1])
        length = torch.linalg.vector_norm(moved, dim=1)
        scale = torch.maximum(scale, torch.maximum(matrix[:, step, step].abs(), length))
        if step + 1 == steps:
            break
        broken = length <= BROKEN * scale
        other = torch.randn(size, generator=generator, dtype=torch.float64).to(start)
        fresh = _orthogonal(other.expand(seeds, -1), basis[:, : step + 1])
        vector = torch.where(broken[:, None], fresh, moved)
        vector = vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        beta = torch.where(broken, 0.0, length)
        matrix[:, step, step + 1] = matrix[:, step + 1, step] = beta
    return matrix


def _orthogonal(vectors: Tensor, basis: Tensor) -> Tensor:
    """Return vectors [S, n] less their parts along basis [S, k, n], twice: rounding leaves some."""
    for _ in range(2):
        along = torch.bmm(basis, vectors[:, :, None])
        vectors = vectors - torch.bmm(basis.mT, along)[:, :, 0]
    return vectors
