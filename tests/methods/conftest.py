"""Fixtures of the method tests: small networks, a tiny task on digits, an independent loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ht_bench.methods.base import Method
from ht_bench.streams.data import load
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.task import Task, parse_task
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.supervised import SupervisedRun

Array = npt.NDArray[np.float64]

MLP = {"name": "mlp", "hidden": [16, 12], "linear_norm": "batch"}
CNN = {"name": "cnn", "channels": [4], "hidden": [8]}


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


def dense() -> nn.Sequential:
    """Linear 6 → 8, BatchNorm, ReLU, linear 8 → 5, ReLU, linear 5 → 3: widths decrease."""
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)]
    return nn.Sequential(*layers, nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def convolutional() -> nn.Sequential:
    """A convolution with BatchNorm, then a linear layer on its flattened channels."""
    layers = [nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6, 3))


@pytest.fixture(params=[dense, convolutional])
def make_net(request: pytest.FixtureRequest) -> Callable[[], nn.Sequential]:
    """Return a function that builds a network from [B, 6] to [B, 3], always the same one."""

    def make() -> nn.Sequential:
        torch.manual_seed(1)
        net: nn.Sequential = request.param()
        return net

    return make


def batch(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(16, 6, generator=draw), torch.randint(3, (16,), generator=draw)


@pytest.fixture
def train_step() -> Callable[..., None]:
    """Return train_step(net, optimizer, step): one step on a batch that `step` decides."""

    def train(net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        inputs, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()

    return train


@pytest.fixture
def snapshot() -> Callable[[nn.Module], dict[str, Tensor]]:
    """Return snapshot(net): copies of its parameters and buffers by name."""
    return lambda net: {name: tensor.clone() for name, tensor in net.state_dict().items()}


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


@pytest.fixture
def two_layers() -> type[TwoLayers]:
    """Return the class of the NumPy network."""
    return TwoLayers


# ---- this package's loop on a tiny task ----


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Return the bundled digits."""
    return load("digits")


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


@pytest.fixture
def make_run(digits: Dataset) -> Callable[..., SupervisedRun]:
    """Return make_run(method, net=MLP, seeds=(100, 101), **task): an untrained SupervisedRun."""

    def make(
        method: Method,
        net: Mapping[str, Any] = MLP,
        seeds: tuple[int, ...] = (100, 101),
        **changes: Any,
    ) -> SupervisedRun:
        seeds = seeds if net["name"] == "mlp" else seeds[:1]
        return SupervisedRun(tiny(net, **changes), digits, method, seeds)

    return make


def assert_same_run(left: SupervisedRun, right: SupervisedRun) -> None:
    theirs = right.module.state_dict()
    for name, tensor in left.module.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    shared = ("train/accuracy", "train/loss", "step")
    for mine, other in zip(left.history.points, right.history.points, strict=True):
        assert [mine[key] for key in shared] == [other[key] for key in shared]


@pytest.fixture(scope="session")
def _plain_runs() -> dict[str, SupervisedRun]:
    return {}


@pytest.fixture
def assert_trains_as_none(
    make_run: Callable[..., SupervisedRun], _plain_runs: dict[str, SupervisedRun]
) -> Callable[[Method], None]:
    """Return a check that a method trains, to the bit, the weights that `none` trains."""

    def check(make: Callable[[], Method]) -> None:
        for net in (MLP, CNN):
            name = str(net["name"])
            if name not in _plain_runs:
                _plain_runs[name] = make_run(Method(), net)
                _plain_runs[name].train()
            run = make_run(make(), net)
            run.train()
            assert_same_run(run, _plain_runs[name])

    return check


@pytest.fixture
def assert_resumes(
    make_run: Callable[..., SupervisedRun], tmp_path: Path
) -> Callable[[Callable[[], Method]], None]:
    """Return a check: stopped after some steps and resumed, a run equals an uninterrupted one."""

    def check(make: Callable[[], Method], steps: tuple[int, ...] = (1, 5, 12, 13, 20)) -> None:
        whole, resumed = make_run(make()), make_run(make())
        whole.train()
        plan = CheckpointPlan(tmp_path / "tiny.pt", "tiny")
        for before, step in itertools.pairwise((0, *steps)):
            stops = iter([False] * (step - before - 1) + [True])
            with pytest.raises(Interrupted):
                make_run(make()).train(plan, Observer(stop=lambda stops=stops: next(stops)))
        resumed.train(plan)
        assert_same_run(resumed, whole)
        assert resumed.history.points == whole.history.points
        assert resumed.steps_taken == whole.steps_taken

    return check
