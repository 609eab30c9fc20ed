"""Deep Fourier features: by hand, against NumPy over steps, on every network, where refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.fourier_features import FourierFeatures
from ht_bench.networks.activations import Fourier
from ht_bench.networks.parts import CReLU

from .conftest import CNN, MLP, Array, TwoLayers, copied, descend, make_run, softmax


def test_by_hand() -> None:
    """Units at 0, π/2 and −π/2: sines first, then cosines."""
    outputs = Fourier()(torch.tensor([[0.0, math.pi / 2, -math.pi / 2]]))
    torch.testing.assert_close(outputs, torch.tensor([[0.0, 1.0, -1.0, 1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (5, 2, 3, 4, 4)])
def test_of_maps_the_channels_double(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape)
    outputs = Fourier(-3)(maps)
    assert torch.equal(outputs, torch.cat((maps.sin(), maps.cos()), -3))


class TwoFourierLayers(TwoLayers):
    """linear – [sin, cos] – linear: the second layer reads twice as many features."""

    def __init__(self) -> None:
        super().__init__()
        self.weights["2.weight"] = np.random.default_rng(5).normal(size=(3, 10))

    def twin(self) -> nn.Sequential:
        net = nn.Sequential(nn.Linear(4, 5), Fourier(), nn.Linear(10, 3)).double()
        net.load_state_dict({name: torch.tensor(value) for name, value in self.weights.items()})
        return net

    def gradients(self, inputs: Array, labels: Any, extra: Any = 0.0) -> dict[str, Array]:
        w = self.weights
        before = inputs @ w["0.weight"].T + w["0.bias"]
        hidden = np.concatenate((np.sin(before), np.cos(before)), 1)
        logits = hidden @ w["2.weight"].T + w["2.bias"]
        error = (softmax(logits) - np.eye(3)[labels]) / len(labels) + extra
        sines, cosines = np.split(error @ w["2.weight"], 2, axis=1)
        back = sines * np.cos(before) - cosines * np.sin(before)
        first = {"0.weight": back.T @ inputs, "0.bias": back.sum(0)}
        return {**first, "2.weight": error.T @ hidden, "2.bias": error.sum(0)}


def test_several_steps_agree_with_numpy() -> None:
    theirs = TwoFourierLayers()
    net = theirs.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    FourierFeatures().attach(net, optimizer)
    for step in range(6):
        inputs, labels = theirs.batch(step)
        descend(net, optimizer, inputs, labels)
        theirs.step(theirs.gradients(inputs, labels), lr=0.3)
        theirs.assert_equals(net)


@pytest.mark.parametrize(
    ("table", "shape", "replaced", "relus"),
    [
        ({"name": "mlp", "hidden": [16, 8]}, (1, 8, 8), 2, 0),
        ({"name": "cnn", "channels": [4, 6], "hidden": [8]}, (3, 8, 8), 3, 0),
        ({"name": "resnet18"}, (3, 8, 8), 10, 8),  # behind residual sums ReLU stays
        ({"name": "vgg16"}, (3, 32, 32), 15, 0),
        ({"name": "vit"}, (3, 8, 8), 12, 0),
    ],
)
def test_every_network_has_it_with_half_the_units(
    table: dict[str, Any], shape: tuple[int, int, int], replaced: int, relus: int
) -> None:
    plain = networks.build(table, shape, 10)
    net = networks.build({**table, **FourierFeatures().network_changes()}, shape, 10)
    assert sum(isinstance(child, Fourier) for child in net.modules()) == replaced
    assert sum(isinstance(child, nn.ReLU | nn.GELU | CReLU) for child in net.modules()) == relus
    images = torch.randn(2, *shape)
    assert net(images[None] if table["name"] == "mlp" else images).shape[-1] == 10
    for name, parameter in plain.named_parameters():
        assert net.get_parameter(name).numel() <= parameter.numel()
    output = plain.get_submodule(plain.layers()[-1])  # type: ignore[operator]
    assert net.get_submodule(net.layers()[-1]).weight.shape == output.weight.shape  # type: ignore[operator]


@pytest.mark.parametrize("table", [MLP, CNN])
def test_the_loop_trains_every_weight(table: dict[str, Any]) -> None:
    run = make_run(FourierFeatures(), table, trained=False)
    start = copied(run.recorder.initial)
    run.train()
    assert all(not torch.equal(p, start[name]) for name, p in run.module.named_parameters())
    dormant = [row["plasticity/dormant_fraction"] for row in run.history.diagnostics]
    assert all(
        torch.equal(share, torch.zeros_like(share)) for share in map(torch.as_tensor, dormant)
    )


def test_beside_the_network_it_does_nothing() -> None:
    table = {**MLP, "activation": "fourier"}
    assert (
        make_run(FourierFeatures(), MLP).history.points == make_run(Method(), table).history.points
    )


@pytest.mark.parametrize(
    "table", [{"name": "mlp", "hidden": [9]}, {"name": "cnn", "channels": [3], "hidden": [8]}]
)
def test_odd_widths_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="'fourier': a layer of width .* multiple of 2"):
        networks.build({**table, "activation": "fourier"}, (1, 8, 8), 10)


def test_a_seed_of_a_stack_is_its_own() -> None:
    """Sines of one seed meet no other's cosines: the planted fault concatenates seeds."""
    net = networks.build({"name": "mlp", "hidden": [8], "activation": "fourier"}, (1, 2, 2), 3, 2)
    inputs = torch.randn(2, 4, 1, 2, 2)
    changed = torch.stack((inputs[0], inputs[1] + 1))
    assert torch.equal(net(inputs)[0], net(changed)[0])
    planted = Fourier(dim=0)(inputs)
    assert planted.shape != Fourier()(inputs).shape
