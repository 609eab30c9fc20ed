"""Normalize-and-project: by hand, against a NumPy loop, norms held, everything else free."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.methods import normalize_and_project
from ht_bench.methods.normalize_and_project import NormalizeAndProject
from ht_bench.networks.mlp import StackedLayerNorm

from .conftest import Make, TwoLayers, copied, descend, make_run, train_step
from .stacks import assert_a_stack_is_its_seeds


def test_by_hand() -> None:
    """‖W0‖ = 5; W = (6, 8) goes back to (3, 4), and the bias stays where the step put it."""
    net = nn.Linear(2, 1)
    net.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    NormalizeAndProject().attach(net, optimizer)
    net.weight.data.copy_(torch.tensor([[5.0, 7.0]]))
    net.bias.data.fill_(2.0)
    net.weight.grad, net.bias.grad = -torch.ones(1, 2), -torch.ones(1)
    optimizer.step()
    torch.testing.assert_close(net.weight.data, torch.tensor([[3.0, 4.0]]))
    assert net.bias == 3.0


def test_it_is_a_numpy_loop() -> None:
    ours = TwoLayers()
    net = ours.twin()
    norms = {name: np.linalg.norm(weights) for name, weights in ours.weights.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    NormalizeAndProject().attach(net, optimizer)
    for step in range(15):
        inputs, labels = ours.batch(step)
        ours.step(ours.gradients(inputs, labels), 0.3)
        for name, weights in ours.weights.items():
            if weights.ndim == 2:
                ours.weights[name] = weights * norms[name] / np.linalg.norm(weights)
        descend(net, optimizer, inputs, labels)
    ours.assert_equals(net)


def layer_norms(net: nn.Module) -> dict[str, Tensor]:
    """The Frobenius norm of each layer, an optimizer's view of [out, rest]."""
    kinds = nn.Linear | nn.Conv2d
    named = net.named_modules()
    return {n: m.weight.detach().norm() for n, m in named if isinstance(m, kinds)}


def train(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    assert isinstance(net, nn.Sequential)
    for step in range(4):
        train_step(net, optimizer, step)


def test_every_layer_keeps_its_norm_and_the_rest_is_free(make_net: Make) -> None:
    net = make_net()
    start, norms = copied(net), layer_norms(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    NormalizeAndProject().attach(net, optimizer)
    train(net, optimizer)
    for name, norm in layer_norms(net).items():
        torch.testing.assert_close(norm, norms[name])
        assert not torch.equal(net.get_submodule(name).weight, start[f"{name}.weight"])
    for name, tensor in net.named_parameters():
        assert not torch.equal(tensor, start[name])
    assert all(len(optimizer.state[p]["exp_avg"]) for p in net.parameters())


def test_norms_taken_after_the_first_step_would_be_found(
    make_net: Make,
) -> None:
    """Fault 6."""

    def after_step(self: NormalizeAndProject) -> None:
        if not self.steps_seen:
            self.setup()
        NormalizeAndProject.after_step(self)

    faulty = type("Late", (NormalizeAndProject,), {"after_step": after_step})
    net = make_net()
    norms = layer_norms(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    faulty().attach(net, optimizer)
    train(net, optimizer)
    close = [torch.allclose(norm, norms[name]) for name, norm in layer_norms(net).items()]
    assert not all(close)


def test_a_stack_is_its_seeds() -> None:
    assert_a_stack_is_its_seeds(NormalizeAndProject())


def test_one_norm_for_all_seeds_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalize_and_project, "frobenius", lambda matrices: matrices.norm())
    with pytest.raises(AssertionError):
        assert_a_stack_is_its_seeds(NormalizeAndProject())


def test_its_networks_have_layer_norm() -> None:
    run = make_run(NormalizeAndProject())
    children = run.module.modules()
    assert any(isinstance(child, StackedLayerNorm) for child in children)


def test_zeros_stay_and_resync_takes_the_present_norms() -> None:
    net = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(net.weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    method = NormalizeAndProject().attach(net, optimizer)
    net.weight.grad = torch.zeros_like(net.weight)
    optimizer.step()
    assert torch.equal(net.weight, torch.zeros(2, 2))
    net.weight.data.fill_(2.0)
    method.resync()
    net.weight.grad = torch.ones_like(net.weight)
    optimizer.step()
    torch.testing.assert_close(net.weight.data, torch.full((2, 2), 2.0))
