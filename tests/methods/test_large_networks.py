"""Penalties and projections take a step on ResNet-18 and ViT-Tiny, their rule held."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ht_bench import networks
from ht_bench.methods.recipe import get_recipe
from ht_bench.methods.resolve import find_class

METHODS = (
    "fire",
    "normalize-and-project",
    "parseval",
    "spectral-regularization",
    "upgd",
    "wasserstein",
    "weight-clipping",
    "weight-decay",
)


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(images), torch.tensor([0, 1])).backward()
    optimizer.step()


@pytest.mark.parametrize("name", [pytest.param("resnet18", marks=pytest.mark.evidence), "vit"])
def test_a_step_and_a_boundary(name: str) -> None:
    torch.manual_seed(0)
    net = networks.build({"name": name}, (3, 8, 8), 5, stack=None)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    for method_name in METHODS:
        net.load_state_dict(start)
        recipe = get_recipe(method_name)
        assert recipe is not None
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
        method = find_class(method_name)(**recipe.active).attach(net, optimizer)
        step(net, optimizer)
        method.enter_phase(1, 10, None, 2)
        step(net, optimizer)
        method.detach()
        for key, parameter in net.named_parameters():
            assert bool(torch.isfinite(parameter).all()), (method_name, key)
            assert not parameter.equal(start[key]), (method_name, key)
