"""Planted dormant, saturated and duplicate units are found; where there are none, none is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.networks.diagnostics import last_layer, recorded, symptoms
from ht_bench.networks.parts import CReLU
from ht_bench.networks.unit_outputs import DUPLICATE, duplicates, observe

SHARES = [f"plasticity/{name}_fraction" for name in ("dormant", "saturated", "duplicate")]


def healthy(activation: nn.Module, seed: int = 0) -> nn.Sequential:
    """Linear 8 → 12 with directions of their own, the activation, linear 12 → 3."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 12), activation, nn.Linear(12, 3))


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def plant(net: nn.Sequential, kind: str, units: list[int]) -> None:
    """Make the first layer's `units` dormant, saturated, or copies of unit 11 scaled."""
    first = net[0]
    assert isinstance(first, nn.Linear)
    for unit in units:
        if kind == "dormant":
            first.bias[unit] = -1e3
        elif kind == "saturated":
            first.bias[unit] = 1e3
        else:
            first.weight[unit] = first.weight[11] * (unit + 2)
            first.bias[unit] = first.bias[11] * (unit + 2)


def found(net: nn.Module, batch: Tensor) -> list[float]:
    values = symptoms(net, batch)
    return [float(values[key]) for key in SHARES]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.GELU()])
def test_planted_units_are_found_and_no_others(activation: nn.Module) -> None:
    batch = inputs(64, 8)
    assert found(healthy(activation), batch) == [0.0, 0.0, 0.0]
    for place, kind in enumerate(("dormant", "saturated", "duplicate")):
        net = healthy(activation)
        plant(net, kind, [1, 4, 5])
        expected = [0.0, 0.0, 0.0]
        expected[place] = 3 / 12
        shares = found(net, batch)
        if kind == "saturated":  # constant units, which add up to one, are parallel too
            shares[2] = 0.0
        if kind == "duplicate" and not isinstance(activation, nn.ReLU):
            continue  # a multiple of the input is no multiple of the output
        assert shares == expected, kind


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.Softsign(), nn.Hardtanh()])
def test_bounded_units_are_saturated_at_their_bounds_of_either_sign(activation: nn.Module) -> None:
    net, batch = healthy(activation), inputs(64, 8)
    assert symptoms(net, batch)["plasticity/saturated_fraction"].item() == 0.0
    with torch.no_grad():
        net[0].weight[0] *= 1e5  # flips from bound to bound
        net[0].bias[3] = 1e4
        net[0].bias[4] = 1e4
        net[0].weight[6] = 1e-3  # nearly linear: where a bounded unit learns best
    assert symptoms(net, batch)["plasticity/saturated_fraction"].item() == pytest.approx(3 / 12)


def test_a_leaky_unit_is_linear_on_either_side() -> None:
    received = torch.tensor([[1.0, -1.0, 1.0], [2.0, -3.0, -1.0]])
    activation = nn.LeakyReLU(0.1)
    seen = observe(activation, received, activation(received), stacked=False)
    assert seen.saturated.tolist() == [[True, True, False]]


def test_crelus_halves_are_features_of_their_own() -> None:
    received, activation = torch.tensor([[1.0, -1.0, 1.0], [2.0, -3.0, -1.0]]), CReLU()
    seen = observe(activation, received, activation(received), stacked=False)
    assert seen.saturated.tolist() == [[True, False, False, False, True, False]]
    assert (seen.mean == 0).tolist() == [[False, True, False, True, False, False]]


def test_an_activation_that_changes_the_shape_has_no_slope() -> None:
    class Both(nn.Module):
        is_nonlinearity = True

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((x.sin(), x.cos()), -1)

    batch, net = inputs(64, 8), nn.Sequential(nn.Linear(8, 6), Both(), nn.Linear(12, 3))
    assert symptoms(net, batch)["plasticity/saturated_fraction"].item() == 0.0


def test_duplicates_by_hand() -> None:
    """Units (1, 0), (2, 0), (0, 1), (-3, 0), zero: the second and the fourth repeat the first."""
    one, two, other = torch.tensor([[1.0, 1.0], [2.0, 2.0], [1.0, -1.0]])
    outputs = torch.stack([one, two, other, -3 * one, torch.zeros(2)], 1)[None]
    assert duplicates(outputs).tolist() == [[False, True, False, True, False]]


@pytest.mark.parametrize(("cosine", "is_one"), [(DUPLICATE + 0.004, True), (0.98, False)])
def test_a_duplicate_has_a_cosine_of_the_threshold_at_least(cosine: float, is_one: bool) -> None:
    angle = torch.tensor(cosine).acos()
    pair = torch.tensor([[1.0, 1e-9], [float(angle.cos()), float(angle.sin())]]).T[None]
    assert duplicates(pair).tolist() == [[False, is_one]]


def test_a_single_firing_is_no_ground_for_a_duplicate() -> None:
    outputs = torch.zeros(1, 9, 2)
    outputs[0, 4] = torch.tensor([1.0, 3.0])
    assert not duplicates(outputs).any()
    outputs[0, 5] = torch.tensor([1.0, 3.0])
    assert duplicates(outputs).tolist() == [[False, True]]


def test_a_channel_is_a_unit_and_each_seed_has_its_own() -> None:
    table: dict[str, Any] = {"name": "cnn", "channels": [8], "hidden": [16]}
    torch.manual_seed(0)
    stack = networks.build(table, (1, 8, 8), 4, stack=3)
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            if name.endswith("conv_norm0.bias"):
                parameter[1, :4] = -1e3
                parameter[2, :2] = 1e3
    stack.eval()
    with torch.no_grad(), recorded(stack, last_layer(stack)) as records:
        stack(inputs(3, 32, 1, 8, 8))
    first = records.units[0]
    assert (first.mean == 0).sum(1).tolist() == [0, 4, 0]
    assert first.saturated.nonzero().tolist() == [[2, 0], [2, 1]]
    assert first.mean.shape == first.duplicate.shape == (3, 8)


def test_plain_modules_without_layers_are_read_in_the_order_of_their_forward_pass() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)
            self.layers = nn.ModuleList([nn.Linear(8, 6), nn.ReLU(inplace=True)])

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layers[1](self.layers[0](x)))

    net, batch = Reversed(), inputs(64, 8)
    with torch.no_grad():
        net.layers[0].weight[:, 1:] = 0  # type: ignore[index]
        net.layers[0].bias.zero_()  # type: ignore[union-attr]
        features = net.layers[1](net.layers[0](batch))
    rank = torch.linalg.matrix_rank(features)
    values = symptoms(net, batch)
    assert values["plasticity/srank"].item() == rank.item() == 2
    assert values["plasticity/duplicate_fraction"].item() == pytest.approx(4 / 6)


def test_what_cannot_be_seen_is_no_number() -> None:
    class Functional(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    values = symptoms(nn.Sequential(Functional(8, 6), nn.Linear(6, 3)), inputs(64, 8))
    assert all(values[key].isnan().all() for key in SHARES)
    assert values["plasticity/srank"].item() > 1
    assert all(value.isnan().all() for value in symptoms(nn.Flatten(), inputs(4, 8)).values())
