"""Eigenvalues against the whole Hessian by torch.autograd.functional; what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench import networks
from ht_bench.networks import curvature
from ht_bench.networks.curvature import Spectrum, lanczos, spectrum

from .test_diagnostics import state

LABELS = torch.arange(20) % 3


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def mean_loss(outputs: Tensor) -> Tensor:
    """Each seed's mean cross-entropy, summed."""
    batched = outputs if outputs.dim() == 3 else outputs[None]
    return torch.stack([cross_entropy(z, LABELS[: len(z)]) for z in batched]).sum()


def tanh_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def whole_hessian(net: nn.Module, inputs: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The Hessian over all parameters as one matrix, by torch.autograd.functional."""
    named = dict(net.named_parameters())

    def of_flat(flat: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in named.values()])
        weights = {n: v.view_as(p) for (n, p), v in zip(named.items(), parts, strict=True)}
        return loss(torch.func.functional_call(net, weights, (inputs,)))

    flat = torch.cat([p.detach().flatten() for p in named.values()])
    return torch.autograd.functional.hessian(of_flat, flat)


def test_a_lone_networks_eigenvalues_are_those_of_its_hessian() -> None:
    net, inputs = tanh_net(), draw(20, 4)
    values = torch.linalg.eigvalsh(whole_hessian(net, inputs, mean_loss).double())
    size = len(values)
    exact = spectrum(net, inputs, mean_loss, steps=size, probes=1)
    assert exact.parameters == size == 43
    torch.testing.assert_close(exact.top(5)[0], values.flip(0)[:5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exact.lowest()[0], values[0], rtol=1e-3, atol=1e-5)
    few = spectrum(net, inputs, mean_loss, steps=15, probes=1)
    torch.testing.assert_close(few.top()[0, 0], values[-1], rtol=1e-4, atol=1e-6)


def test_a_stacks_eigenvalues_are_its_slots() -> None:
    """By the whole Hessian of each slot's lone network, ReLU, so that the by-hand chain is met."""
    table = {"name": "mlp", "hidden": [5]}
    torch.manual_seed(2)
    stack = networks.build(table, (1, 2, 2), 3, stack=3)
    inputs = draw(3, 20, 1, 2, 2)
    found = spectrum(stack, inputs, mean_loss, steps=43, probes=1)
    for slot in range(3):
        lone = networks.build(table, (1, 2, 2), 3, stack=1)
        slots = {n: t[slot : slot + 1] for n, t in stack.state_dict().items()}
        lone.load_state_dict(slots)
        values = torch.linalg.eigvalsh(
            whole_hessian(lone, inputs[slot : slot + 1], mean_loss).double()
        )
        torch.testing.assert_close(found.top(4)[slot], values.flip(0)[:4], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found.lowest()[slot], values[0], rtol=1e-3, atol=1e-5)
        alone = spectrum(lone, inputs[slot : slot + 1], mean_loss, steps=43, probes=1)
        torch.testing.assert_close(found.top(4)[slot], alone.top(4)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("planted", [False, True])
def test_without_reorthogonalisation_an_eigenvalue_would_come_twice(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if planted:
        monkeypatch.setattr(curvature, "_orthogonal", lambda v, b: _against_last_two(v, b))
    values = torch.cat([torch.linspace(0, 1, 99), torch.tensor([1e3])]).double()
    start = torch.ones(1, 100, dtype=torch.float64)
    matrix = lanczos(lambda v: v * values, start, 60, torch.Generator())
    nodes = torch.linalg.eigvalsh(matrix)[0]
    assert nodes[-1].item() == pytest.approx(1e3)
    assert (int((nodes > 999).sum()) == 1) is not planted


def _against_last_two(vectors: Tensor, basis: Tensor) -> Tensor:
    along = torch.bmm(basis[:, -2:], vectors[:, :, None])
    return vectors - torch.bmm(basis[:, -2:].mT, along)[:, :, 0]


def test_an_invariant_subspace_hides_nothing() -> None:
    """Start in the eigenvector of −3: the iterations go on and find 2 and 7."""
    values = torch.tensor([-3.0, 2.0, 7.0, 2.0], dtype=torch.float64)
    start = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    matrix = lanczos(lambda v: v * values, start, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.linalg.eigvalsh(matrix)[0], values.sort().values)


def known(*values: float) -> Spectrum:
    """The exact spectrum of a diagonal matrix, seen by one probe."""
    nodes = torch.tensor([[sorted(values)]], dtype=torch.float64)
    return Spectrum(nodes, torch.full_like(nodes, 1 / len(values)), len(values))


def test_summaries_of_a_known_spectrum() -> None:
    found = known(4.0, 4.0, 0.0, -4.0)
    assert found.top(2).tolist() == [[4.0, 4.0]] and found.lowest().tolist() == [-4.0]
    assert found.trace().item() == pytest.approx(4.0)
    assert found.effective_rank().item() == pytest.approx(3.0)
    assert found.negative_share().item() == pytest.approx(0.25)
    points = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = found.density(points, 0.1)
    assert torch.trapezoid(density[0], points).item() == pytest.approx(1.0, abs=1e-4)
    assert density[0, 3000].item() == pytest.approx(2 * density[0, 1000].item())


def test_the_density_is_that_of_the_eigenvalues_as_its_random_vector_weighs_them() -> None:
    """Σ_i (v·e_i)² f(λ_i), from all eigenvectors, for the trace and for the effective rank."""
    net, inputs = tanh_net(), draw(20, 4)
    values, vectors = torch.linalg.eigh(whole_hessian(net, inputs, mean_loss).double())
    vector = torch.randn(43, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = (vectors.T @ (vector / vector.norm())).square()
    found = spectrum(net, inputs, mean_loss, steps=20, probes=1)
    assert found.trace().item() == pytest.approx(43 * (weights @ values).item(), rel=1e-3)
    sizes = values.abs()
    mean, logs = weights @ sizes, weights @ (sizes * sizes.log())
    rank = ((43 * mean).log() - logs / mean).exp().item()
    assert found.effective_rank().item() == pytest.approx(rank, rel=5e-2)


TABLES: list[dict[str, Any]] = [
    {"name": "mlp", "hidden": [6], "linear_norm": "batch"},
    {"name": "cnn", "channels": [3], "hidden": [4]},
]


@pytest.mark.parametrize("table", TABLES, ids=[table["name"] for table in TABLES])
def test_the_network_and_every_generator_are_left_bit_identical(table: dict[str, Any]) -> None:
    net = networks.build(table, (1, 8, 8), 3, stack=2)
    inputs = draw(2, 20, 1, 8, 8)
    net(inputs).sum().backward()
    before, facts = state(net)
    values = curvature.curvature(net, inputs, mean_loss, steps=4)
    after, facts_after = state(net)
    assert facts == facts_after
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(value.shape == (2,) and value.isfinite().all() for value in values.values())
    assert not any(value.requires_grad for value in values.values())


def test_attention_has_a_second_derivative() -> None:
    class Attends(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            z = super().forward(x).view(-1, 1, 2, 4)
            mixed = nn.functional.scaled_dot_product_attention(z, z, z)
            return mixed.flatten(1)

    net = nn.Sequential(Attends(4, 8), nn.Linear(8, 3))
    assert spectrum(net, draw(20, 4), mean_loss, steps=5, probes=1).top().item() > 0


def test_a_diverged_seed_leaves_its_mates_numbers() -> None:
    stack = networks.build({"name": "mlp", "hidden": [5]}, (1, 2, 2), 3, stack=2)
    alone = spectrum(stack, draw(2, 20, 1, 2, 2), mean_loss, steps=6).top()
    with torch.no_grad():
        stack.get_parameter("linear0.weight")[1] = torch.nan
    found = spectrum(stack, draw(2, 20, 1, 2, 2), mean_loss, steps=6).top()
    assert torch.equal(found[0], alone[0]) and found[1].isnan().all()


def test_a_loss_without_curvature_has_none() -> None:
    found = spectrum(nn.Linear(4, 3), draw(20, 4), lambda outputs: outputs.sum(), steps=5)
    assert found.top().tolist() == [[0.0]] and found.lowest().tolist() == [0.0]
