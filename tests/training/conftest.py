"""A tiny task on digits, and jobs on it, for the tests of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ht_bench.methods.resolve import Named, resolve
from ht_bench.records.record import Record
from ht_bench.running.job import StackJob, run_stack
from ht_bench.streams.data import load
from ht_bench.streams.dataset import Dataset, make_dataset
from ht_bench.streams.task import Task, parse_task

PHASES = [
    {"new": 0.5, "wrong": 0.5, "updates": 12},
    {"new": 0.25, "wrong": 0.25, "updates": 7},
    {"new": 0.25, "epochs": 2},
]
"""12 updates on 30 examples (2 steps an epoch), 7 on 45 (3 steps), 8 on 60 (4 steps)."""
MLP = {"name": "mlp", "hidden": [16, 12], "linear_norm": "batch"}
CNN = {"name": "cnn", "channels": [4], "hidden": [8]}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread; it and torch's random state are as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


def tiny(**changes: Any) -> Task:
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": MLP,
        "optimizer": {"lr": 1e-2, "clip": 0.5},
        "training": {"batch": 16, "points": 3, "stack": 2},
        "phases": PHASES,
    }
    return parse_task({**table, **changes}, "tiny.toml")


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Return make_task(**changes): the tiny task, top-level tables replaced."""
    return tiny


@pytest.fixture
def make_job() -> Callable[..., StackJob]:
    """Return make_job(method, hyperparameters, out, seeds=(100, 101), **task)."""

    def make(
        method: Named = "none",
        hyperparameters: Mapping[str, Any] | None = None,
        out: Path | None = None,
        seeds: tuple[int, ...] = (100, 101),
        **changes: Any,
    ) -> StackJob:
        spec = resolve(method, "", hyperparameters)
        return StackJob(tiny(**changes), spec, seeds, out=out, tensorboard=False)

    return make


@pytest.fixture(scope="session")
def _records() -> dict[str, list[Record]]:
    return {}


@pytest.fixture
def trained(
    make_job: Callable[..., StackJob], _records: dict[str, list[Record]]
) -> Callable[..., list[Record]]:
    """Return trained(method, hyperparameters): the tiny job's records, trained once a session."""

    def train(method: Named = "none", values: Mapping[str, Any] | None = None) -> list[Record]:
        name = repr((method, values))
        if name not in _records:
            _records[name] = run_stack(make_job(method, values))
        return _records[name]

    return train


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Return the bundled digits."""
    return load("digits")


@pytest.fixture(scope="session")
def pictures() -> Dataset:
    """Return 80 + 20 random colour images of 3×8×8 in four classes, a shade per class."""
    draw = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = draw.integers(0, 4, count)
        images = draw.integers(0, 128, (count, 3, 8, 8)) + 30 * labels[:, None, None, None]
        return images.astype(np.uint8), labels

    return make_dataset("pictures", part(80), part(20), classes=4)


@pytest.fixture
def cnn_changes(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return changes to the tiny task: a lone cnn on augmented `pictures`."""
    monkeypatch.setattr("ht_bench.running.kinds.dataset", lambda name: pictures)
    return {
        "data": {"name": "pictures", "train": 60},
        "net": CNN,
        "training": {"batch": 16, "points": 3},
        "phases": [{**phase, "augment": True} for phase in PHASES],
    }
