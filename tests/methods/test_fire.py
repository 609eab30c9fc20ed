"""FIRE: by hand, against NumPy's polar factor and a NumPy loop, tap by tap, what stays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods import fire
from ht_bench.methods.fire import Fire, newton_schulz
from ht_bench.networks.vit import WIDTH

from .conftest import Array, Make, assert_equal, copied, train_step
from .stacks import assert_a_stack_is_its_seeds


def cross(method: Fire, net: nn.Module) -> torch.optim.Optimizer:
    """Enter phase 1."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    dataclasses.replace(method).attach(net, optimizer).enter_phase(1, 10, None, 2)
    return optimizer


def test_by_hand() -> None:
    """diag(3, 4)/5 has singular values 0.6, 0.8; one iteration: 1.5 x − 0.5 x³ of each."""
    net = nn.Linear(2, 2, bias=False)
    net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    cross(Fire(iterations=1), net)
    expected = torch.tensor([1.5 * 0.6 - 0.5 * 0.6**3, 1.5 * 0.8 - 0.5 * 0.8**3])
    torch.testing.assert_close(net.weight.data, torch.diag(expected))


def rule(matrix: Array, iterations: int, taps: int = 1) -> Array:
    """The rule as the paper writes it, for one tap of a kernel."""
    x = matrix / np.sqrt((matrix**2).sum())
    for _ in range(iterations):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return np.asarray(np.sqrt(matrix.shape[0] / matrix.shape[1]) / taps * x)


@pytest.mark.parametrize("amount", [1.0, 0.3])
def test_it_is_a_numpy_loop(amount: float, make_net: Make) -> None:
    """Every linear layer and every tap of every kernel, the output too, 6 iterations."""
    net = make_net().double()
    start = copied(net)
    cross(Fire(iterations=6, amount=amount), net)
    layers = {n: m for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    for name, layer in layers.items():
        old = start[f"{name}.weight"].numpy()
        expected = np.empty_like(old)
        for tap in np.ndindex(old.shape[2:]):
            place = (..., *tap) if tap else ...
            expected[place] = rule(old[place], 6, int(np.prod(old.shape[2:])))
        assert isinstance(layer.weight, nn.Parameter)
        np.testing.assert_allclose(
            layer.weight.detach(), amount * expected + (1 - amount) * old, rtol=1e-9, atol=1e-12
        )
    weights = {f"{name}.weight" for name in layers}
    rest = {n: t for n, t in net.state_dict().items() if n not in weights}
    assert rest  # biases, BatchNorm's scales, shifts, statistics
    assert_equal(rest, {n: start[n] for n in rest})


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_it_is_the_nearest_isometry(shape: tuple[int, int]) -> None:
    """The polar factor of NumPy's SVD, wide or tall, to rounding after enough iterations."""
    matrix = torch.randn(shape, dtype=torch.float64)
    left, _, right = np.linalg.svd(matrix.numpy(), full_matrices=False)
    np.testing.assert_allclose(newton_schulz(matrix, 60), left @ right, atol=1e-9)


def test_a_wide_layer_in_the_papers_order_of_products() -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 7))
    ours = newton_schulz(torch.tensor(matrix), 10)
    np.testing.assert_allclose(ours * np.sqrt(3 / 7), rule(matrix, 10), rtol=1e-9)


def test_of_attention_only_queries_and_keys_move() -> None:
    net = networks.build({"name": "vit"}, (3, 4, 4), 5, stack=None)
    start = copied(net)
    cross(Fire(), net)
    moved = {name for name, tensor in net.state_dict().items() if not tensor.equal(start[name])}
    assert moved == {f"blocks.{index}.attention.qkv.weight" for index in range(12)}
    name = "blocks.3.attention.qkv.weight"
    after = net.state_dict()[name]
    assert torch.equal(after[2 * WIDTH :], start[name][2 * WIDTH :])
    for first in (0, WIDTH):
        block = after[first : first + WIDTH]
        values = torch.linalg.svdvals(block)
        assert values.max() < 1.001
        assert values.median() > 0.95
        expected = newton_schulz(start[name][first : first + WIDTH], 10)
        torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-6)


def test_nothing_at_phase_0_and_the_moments_stay(make_net: Make) -> None:
    net = make_net()
    start = copied(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    method = Fire().attach(net, optimizer)
    method.enter_phase(0, 10, None, 2)
    assert_equal(net.state_dict(), start)
    train_step(net, optimizer, 0)
    moments = [optimizer.state[p]["exp_avg"].clone() for p in net.parameters()]
    method.enter_phase(1, 10, None, 2)
    for parameter, old in zip(net.parameters(), moments, strict=True):
        assert torch.equal(optimizer.state[parameter]["exp_avg"], old)
    before = copied(net)
    train_step(net, optimizer, 1)
    assert all(not p.equal(before[n]) for n, p in net.named_parameters())


def test_a_stack_is_its_seeds() -> None:
    assert_a_stack_is_its_seeds(Fire())


def test_kernels_flattened_over_taps_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fire.isometric
    monkeypatch.setattr(
        fire,
        "isometric",
        lambda taps, n: (
            whole(taps.movedim(2, 4).flatten(3)[:, :, None], n)
            .unflatten(-1, (taps.shape[-1], -1))
            .squeeze(2)
            .movedim(-1, 2)
        ),
    )
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    old = net[0].weight.detach().double().numpy()
    cross(Fire(), net)
    assert not np.allclose(
        net[0].weight.detach()[..., 1, 2], rule(old[..., 1, 2], 10, 9), rtol=1e-3
    )


def test_a_layer_of_zeros_stays() -> None:
    net = nn.Linear(3, 2)
    nn.init.zeros_(net.weight)
    cross(Fire(), net)
    assert torch.equal(net.weight, torch.zeros(2, 3))


@pytest.mark.parametrize("values", [{"iterations": 0}, {"amount": 1.5}, {"amount": -0.5}])
def test_values_it_cannot_take(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(values))} = "):
        Fire(**values)  # type: ignore[arg-type]
