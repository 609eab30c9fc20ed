"""Helpers of the method tests: small networks, a tiny task on digits, an independent loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ht_bench.methods.base import Method
from ht_bench.streams.data import load
from ht_bench.streams.task import Task, parse_task
from ht_bench.training.supervised import SupervisedRun

Array = npt.NDArray[np.float64]
Make = Callable[[], nn.Sequential]
Tensors = dict[str, Tensor]

MLP = {"name": "mlp", "hidden": [16, 12], "linear_norm": "batch"}
CNN = {"name": "cnn", "channels": [4], "hidden": [8], "linear_norm": "batch"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread, one known state of torch's generator; both as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


# ---- small networks in plain torch ----

INPUTS = torch.linspace(-2, 2, 8 * 6).view(8, 6)
LABELS = torch.arange(8) % 3


def dense() -> nn.Sequential:
    """Linear 6 → 8, BatchNorm, ReLU, linear 8 → 5, ReLU, linear 5 → 3: widths decrease."""
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)]
    return nn.Sequential(*layers, nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def convolutional() -> nn.Sequential:
    """A convolution with BatchNorm, then a linear layer on its flattened channels."""
    layers = [nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6, 3))


class Net(nn.Sequential):
    """Two hidden layers of decreasing width with BatchNorm and dropout, then the output."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            hidden = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2)]
            hidden += [nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ReLU()]
            super().__init__(*hidden, nn.Linear(5, 3))
        self.first_parameters = [id(parameter) for parameter in self.parameters()]

    def layers(self) -> list[str]:
        return ["0", "4", "7"]


@pytest.fixture(params=[dense, convolutional])
def make_net(request: pytest.FixtureRequest) -> Make:
    """Return a function that builds a network from [B, 6] to [B, 3], always the same one."""

    def make() -> nn.Sequential:
        torch.manual_seed(1)
        net: nn.Sequential = request.param()
        return net

    return make


def descend(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor | Array,
    labels: Tensor | npt.NDArray[np.int64],
    method: Method | None = None,
) -> None:
    """One step on the cross-entropy, with the auxiliary loss of `method`."""
    inputs = torch.as_tensor(inputs)
    optimizer.zero_grad()
    outputs = net(inputs)
    loss = nn.functional.cross_entropy(outputs, torch.as_tensor(labels))
    auxiliary = method.auxiliary_loss(inputs, outputs) if method else None
    (loss if auxiliary is None else loss + auxiliary).backward()
    optimizer.step()


def train_step(net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One step on a batch that `step` decides."""
    draw = torch.Generator().manual_seed(step)
    inputs = torch.randn(16, 6, generator=draw)
    descend(net, optimizer, inputs, torch.randint(3, (16,), generator=draw))


def copied(tensors: nn.Module | Mapping[str, Tensor]) -> Tensors:
    """Copies of tensors by name; of a module its parameters and buffers."""
    named = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    return {name: tensor.clone() for name, tensor in named.items()}


def assert_equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def state_of(method: Method) -> tuple[list[Tensor], list[Any]]:
    """Everything that evaluation must leave alone, of network, optimizer, method, generators."""
    net, saved = method.module, tree_leaves(method.state_dict())
    tensors = [*net.state_dict().values(), *(p.grad for p in net.parameters())]
    tensors += [t for entry in method.optimizer.state.values() for t in entry.values()]
    tensors += [torch.get_rng_state(), *(leaf for leaf in saved if isinstance(leaf, Tensor))]
    facts: list[Any] = [tensor.data_ptr() for tensor in net.state_dict().values()]
    facts += [leaf for leaf in saved if not isinstance(leaf, Tensor)]
    facts += [np.random.get_state()[1].tolist()]
    facts += [parameter.requires_grad for parameter in net.parameters()]
    for child in net.modules():
        hooks = (child._forward_hooks, child._forward_pre_hooks, child._backward_hooks)
        facts += [child.training, *map(len, hooks)]
    return [tensor.clone() for tensor in tensors], facts


@contextmanager
def leaves_no_trace(method: Method) -> Iterator[None]:
    """Fail unless the body leaves everything bit-identical."""
    tensors, facts = state_of(method)
    yield
    tensors_after, facts_after = state_of(method)
    assert facts == facts_after
    assert all(torch.equal(a, b) for a, b in zip(tensors, tensors_after, strict=True))


# ---- a two-layer network by hand, in NumPy ----


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


class TwoLayers:
    """linear – ReLU – linear with cross-entropy and SGD, gradients written out; names as torch's.

    `weights` are float64 arrays under the names of the `nn.Sequential` that `twin` returns.
    """

    def __init__(self, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        shapes = {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (3, 5), "2.bias": (3,)}
        self.weights = {name: draw.normal(size=shape) for name, shape in shapes.items()}

    def twin(self) -> nn.Sequential:
        net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
        net.load_state_dict({name: torch.tensor(value) for name, value in self.weights.items()})
        return net

    def logits(self, inputs: Array, weights: Mapping[str, Array] | None = None) -> Array:
        w = weights or self.weights
        hidden = np.maximum(inputs @ w["0.weight"].T + w["0.bias"], 0)
        return np.asarray(hidden @ w["2.weight"].T + w["2.bias"])

    def gradients(
        self, inputs: Array, labels: npt.NDArray[np.int64], extra: Array | float = 0.0
    ) -> dict[str, Array]:
        """Of the mean cross-entropy; `extra` is added to the derivative by the logits."""
        w = self.weights
        before = inputs @ w["0.weight"].T + w["0.bias"]
        hidden = np.maximum(before, 0)
        error = (softmax(self.logits(inputs)) - np.eye(3)[labels]) / len(labels) + extra
        back = (error @ w["2.weight"]) * (before > 0)
        first = {"0.weight": back.T @ inputs, "0.bias": back.sum(0)}
        return {**first, "2.weight": error.T @ hidden, "2.bias": error.sum(0)}

    def step(self, gradients: Mapping[str, Array], lr: float) -> None:
        for name, gradient in gradients.items():
            self.weights[name] = self.weights[name] - lr * gradient

    @staticmethod
    def batch(step: int) -> tuple[Array, npt.NDArray[np.int64]]:
        draw = np.random.default_rng(1000 + step)
        return draw.normal(size=(7, 4)), draw.integers(0, 3, 7)

    def assert_equals(self, net: nn.Module) -> None:
        for name, tensor in net.state_dict().items():
            np.testing.assert_allclose(tensor, self.weights[name], rtol=1e-10, err_msg=name)


# ---- this package's loop on a tiny task ----


def tiny(net: Mapping[str, Any], **changes: Any) -> Task:
    """Two phases of 12 updates: 30 examples (2 steps an epoch), then 60 (4 steps)."""
    phases = [{"new": 0.5, "wrong": 0.5, "updates": 12}, {"new": 0.5, "updates": 12}]
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": dict(net),
        "optimizer": {"lr": 1e-2, "clip": 0.5},
        "training": {"batch": 16, "points": 3},
        "phases": phases,
    }
    return parse_task({**table, **changes}, "tiny.toml")


digits = functools.cache(lambda: load("digits"))


def make_run(
    method: Method, net: Mapping[str, Any] = MLP, trained: bool = True, **changes: Any
) -> SupervisedRun:
    """A run of the tiny task on two seeds, one of a cnn; `changes` replace tables of the task."""
    seeds = (100, 101) if net["name"] == "mlp" else (100,)
    run = SupervisedRun(tiny(net, **changes), digits(), method, seeds)
    if trained:
        run.train()
    return run
