"""Plasticity injection: outputs unchanged at first, a fresh head learns, the old one is frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from stable_baselines3 import PPO
from torch import Tensor, nn
from torch.nn.functional import relu

import ht_bench.sb3  # noqa: F401
from ht_bench import networks
from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.plasticity_injection import PlasticityInjection
from ht_bench.training.capture import storage

from .conftest import INPUTS, LABELS, Make, copied, descend

SHAPE = (3, 8, 8)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: networks.build({"name": "mlp", "hidden": [16, 12]}, SHAPE, 3, 2),
    "cnn": lambda: networks.build({"name": "cnn", "channels": [4], "hidden": [8]}, SHAPE, 3),
    "cnn-stack": lambda: networks.build(
        {"name": "cnn", "channels": [4], "hidden": [8], "linear_norm": "batch"}, SHAPE, 3, 2
    ),
    "resnet18": lambda: networks.build({"name": "resnet18"}, SHAPE, 3),
    "vit": lambda: networks.build({"name": "vit"}, SHAPE, 3),
}


def images(net: nn.Module) -> Tensor:
    shape = (2, 4, *SHAPE) if getattr(net, "stacked", False) else (4, *SHAPE)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def attached(net: nn.Module, **values: int) -> PlasticityInjection:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    generators = [torch.Generator().manual_seed(s) for s in range(2)]
    method = PlasticityInjection(**values)
    return method.attach(
        net, optimizer, generator=generators if getattr(net, "stacked", False) else generators[0]
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_at_first_as_before_though_the_head_is_new(name: str) -> None:
    net = NETWORKS[name]()
    method = attached(net, layers=2, injections=2)
    net.eval()
    before, weights = net(images(net)), copied(net)
    for index in (1, 2):
        method.enter_phase(index, 5, None, 3)
        torch.testing.assert_close(net(images(net)), before, rtol=1e-4, atol=1e-5)
    head = [n for n in weights if n.startswith(method._prefixes) and n.endswith("weight")]
    assert any(not torch.equal(net.state_dict()[n], weights[n]) for n in head)
    kept = [n for n in weights if not n.startswith(method._prefixes)]
    assert all(torch.equal(net.state_dict()[n], weights[n]) for n in kept)


@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn-stack"])
def test_statistics_move_once_a_step(name: str) -> None:
    net, plain = NETWORKS[name](), NETWORKS[name]()
    plain.load_state_dict(net.state_dict())
    method = attached(net)
    method.enter_phase(1, 5, None, 3)
    inputs = images(net)
    net.train(), plain.train()
    net(inputs), plain(inputs)
    for (key, mine), theirs in zip(net.named_buffers(), plain.buffers(), strict=True):
        if not key.startswith(method._prefixes):
            assert torch.equal(mine, theirs), key


def test_it_trains_as_the_formula_by_hand(make_net: Make) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    method = attached(net, layers=2)
    optimizer = method.optimizer
    descend(net, optimizer, INPUTS, LABELS)
    old = {name: t.clone() for name, t in net.state_dict().items()}
    optimizer.state.clear()
    method.enter_phase(1, 5, None, 3)
    twin = {name: t.clone() for name, t in net.state_dict().items()}
    mine = {name: t.clone().requires_grad_() for name, t in net.state_dict().items()}
    theirs = torch.optim.AdamW(mine.values(), lr=1e-2)

    def head(weights: dict[str, Tensor], hidden: Tensor) -> Tensor:
        inner = relu(hidden @ weights["2.weight"].T + weights["2.bias"])
        return inner @ weights["4.weight"].T + weights["4.bias"]

    for _ in range(5):
        hidden = relu(INPUTS @ mine["0.weight"].T + mine["0.bias"])
        outputs = head(old, hidden) + head(mine, hidden) - head(twin, hidden)
        theirs.zero_grad()
        nn.functional.cross_entropy(outputs, LABELS).backward()
        theirs.step()
        descend(net, optimizer, INPUTS, LABELS)
        torch.testing.assert_close(net(INPUTS), net(INPUTS))
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, mine[name].detach(), rtol=1e-4, atol=1e-6)
    assert all(not torch.equal(net.state_dict()[name], twin[name]) for name in twin)


def test_moments_of_the_head_alone_are_cleared(make_net: Make) -> None:
    net = make_net()
    method = attached(net, layers=1)
    descend(net, method.optimizer, INPUTS, LABELS)
    method.enter_phase(1, 5, None, 3)
    for name, parameter in net.named_parameters():
        assert (parameter in method.optimizer.state) != name.startswith(method._prefixes), name


def test_no_more_heads_than_asked_for_and_captures_are_told(make_net: Make) -> None:
    net = make_net()
    method = attached(net, layers=1, injections=1)
    first = storage(net)
    method.enter_phase(1, 5, None, 4)
    assert len(method._frozen) == 1 and len(storage(net)) > len(first)
    frozen = copied(method.state_dict()["frozen"][0][0])
    before = copied(net)
    method.enter_phase(2, 5, None, 4)
    descend(net, method.optimizer, INPUTS, LABELS)
    assert len(method._frozen) == 1
    assert all(torch.equal(t, method._frozen[0][0][n]) for n, t in frozen.items())
    assert any(not torch.equal(t, before[n]) for n, t in net.state_dict().items())
    method.detach()
    assert storage(net) == first


def test_where_the_outputs_are_not_the_module_s_it_is_refused() -> None:
    with pytest.raises(Unsuitable, match="a policy has many forward passes"):
        PPO("PlasticMlpPolicy", "CartPole-v1", policy_kwargs={"plasticity": "plasticity-injection"})
    for values in ({"layers": 0}, {"injections": -1}, {"injections": True}):
        with pytest.raises(UsageError, match="give a whole number"):
            PlasticityInjection(**values)
    assert replace(PlasticityInjection(layers=3)).layers == 3
