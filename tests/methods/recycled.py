"""Networks whose units are recycled in tests, and methods that do so within a few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.methods.base import Method
from ht_bench.methods.continual_backprop import ContinualBackprop
from ht_bench.methods.grama import GraMa
from ht_bench.methods.recycling import UnitMethod
from ht_bench.methods.redo import ReDo
from ht_bench.methods.self_normalized_resets import SelfNormalizedResets
from ht_bench.networks import build

from .conftest import convolutional, dense

SHAPE = (1, 8, 8)
NETS: dict[str, Callable[[], nn.Module]] = {
    "dense": dense,
    "convolutional": convolutional,
    "mlp": lambda: build({"name": "mlp", "hidden": [12, 8], "linear_norm": "batch"}, SHAPE, 3, 3),
    "mlp crelu": lambda: build({"name": "mlp", "hidden": [12, 8], "activation": "crelu"}, SHAPE, 3),
    "cnn": lambda: build({"name": "cnn", "channels": [4, 6], "hidden": [8]}, SHAPE, 3),
    "cnn stack": lambda: build(
        {"name": "cnn", "channels": [4, 6], "hidden": [8], "linear_norm": "layer"}, SHAPE, 3, 2
    ),
    "cnn crelu": lambda: build(
        {"name": "cnn", "channels": [4, 6], "hidden": [8], "activation": "crelu"}, SHAPE, 3, 2
    ),
    "resnet18": lambda: build({"name": "resnet18"}, (3, 8, 8), 3),
    "vit": lambda: build({"name": "vit"}, (3, 8, 8), 3),
}
METHODS = {
    "redo": ReDo(threshold=0.9, every=2),
    "grama": GraMa(threshold=0.9, every=2),
    "continual-backprop": ContinualBackprop(replacement_rate=0.2, maturity=1),
    "self-normalized-resets": SelfNormalizedResets(percentile=0.5, every=1),
}


def inputs_of(net: nn.Module, name: str) -> Tensor:
    if name in ("dense", "convolutional"):
        return torch.randn(8, 6)
    shape = (3, 8, 8) if name in ("resnet18", "vit") else SHAPE
    lead = (net.stack,) if getattr(net, "stacked", False) else ()
    return torch.randn(*lead, 4, *shape)


def trained(
    name: str, method: UnitMethod, steps: int = 2, kind: Any = torch.optim.AdamW
) -> UnitMethod:
    """The method on a network that has taken some steps."""
    torch.manual_seed(0)
    net = NETS[name]()
    optimizer = kind(net.parameters(), lr=1e-2)
    seeds = net.stack if getattr(net, "stacked", False) else 1
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    method.attach(net, optimizer, generator=generators)
    train(method, name, steps)
    return method


def train(method: Method, name: str, steps: int) -> None:
    for _ in range(steps):
        outputs = method.module(inputs_of(method.module, name)).flatten(0, -2)
        method.optimizer.zero_grad()
        cross_entropy(outputs, torch.arange(len(outputs)) % 3).backward()
        method.optimizer.step()
