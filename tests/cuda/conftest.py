"""A device for the tests that need one; without it they are skipped.

HT_BENCH_CUDA_TESTS_ON=cpu runs them on a CPU, tapes standing in for CUDA graphs: that the tests
themselves are sound can be seen without a device, and nothing else.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ht_bench.methods.base import Method
from ht_bench.streams.data import load
from ht_bench.streams.dataset import Dataset, make_dataset
from ht_bench.streams.task import Task, parse_task
from ht_bench.training.capture import CudaGraphs
from ht_bench.training.device import Compute, settings
from ht_bench.training.history import Observer
from ht_bench.training.supervised import SupervisedRun
from ht_bench.training.tape import Tapes

HERE = Path(__file__).parent
STAND_IN = os.environ.get("HT_BENCH_CUDA_TESTS_ON") == "cpu"
PHASES = [
    {"new": 0.5, "wrong": 0.5, "updates": 12},
    {"new": 0.5, "updates": 9},
]
"""12 updates on 30 examples (2 steps an epoch, the second of 14), 9 on 60 (4 steps)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fail for this package's own warnings alone: libraries say much about a device.

    Among it that a perceptron's agent would be faster on a CPU, that cuBLAS had no context yet,
    and which of two settings for TF32 is the newer.
    """
    mine = (
        "default",
        "error:.*cannot be captured",
        "error:.*trains uncompiled",
        "error:.*no step of the optimizer",
    )
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings(*mine))


@pytest.fixture(autouse=True)
def device() -> str:
    """The device; skips where there is none."""
    if not STAND_IN and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return "cpu" if STAND_IN else "cuda"


class Counting:
    """Graphs that count captures and replays."""

    def __init__(self) -> None:
        self._graphs: Any = Tapes() if STAND_IN else CudaGraphs()
        self.runs_while_capturing = self._graphs.runs_while_capturing
        self.captures, self.replays = 0, 0

    def active(self) -> AbstractContextManager[None]:
        active: AbstractContextManager[None] = self._graphs.active()
        return active

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        again = self._graphs.capture(step)

        def replay() -> None:
            self.replays += 1
            again()

        return replay


class Uncaptured:
    """Runs what is to be captured, on the same tensors, each time anew."""

    runs_while_capturing = False

    @contextmanager
    def active(self) -> Iterator[None]:
        yield

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        return step


@pytest.fixture
def graphs() -> Counting:
    """Graphs of one run."""
    return Counting()


@pytest.fixture
def uncaptured() -> Uncaptured:
    """What takes the place of graphs where every step is run anew."""
    return Uncaptured()


@pytest.fixture(scope="session")
def pictures() -> Dataset:
    """80 + 20 random colour images of 3×8×8 in four classes, a shade per class."""
    draw = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = draw.integers(0, 4, count)
        images = draw.integers(0, 128, (count, 3, 8, 8)) + 30 * labels[:, None, None, None]
        return images.astype(np.uint8), labels

    return make_dataset("pictures", part(80), part(20), classes=4)


def task_of(**changes: Any) -> Task:
    """Return a tiny task, top-level tables replaced."""
    table = {
        "name": "tiny",
        "family": "warm-start",
        "seeds": "100-101",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [16, 12], "linear_norm": "batch"},
        "optimizer": {"lr": 1e-2, "clip": 0.5},
        "training": {"batch": 16, "points": 3, "stack": 2},
        "phases": PHASES,
    }
    task = parse_task({**table, **changes}, "tiny.toml")
    assert isinstance(task, Task)
    return task


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """make_task(**changes): the tiny task."""
    return task_of


@pytest.fixture
def train(device: str) -> Callable[..., SupervisedRun]:
    """train(task, method, graphs=…, precision=…, seeds=…, data=…, plan=…, observer=…): the run.

    Determinism and precision are set as for every run of the command line.
    """

    def trained(
        task: Task,
        method: Method,
        graphs: Any = "auto",
        precision: str = "fp32",
        seeds: Sequence[int] = (100, 101),
        data: Dataset | None = None,
        plan: Any = None,
        observer: Observer | None = None,
    ) -> SupervisedRun:
        compute = Compute(device, precision)
        with settings(compute), warnings.catch_warnings():
            # torch names operations that have no deterministic form on CUDA.
            warnings.filterwarnings("ignore", ".*deterministic.*", UserWarning)
            source = data or load(task.data.name)
            run = SupervisedRun(task, source, method, seeds, "test", compute, graphs)
            run.train(plan, observer)
        return run

    return trained
