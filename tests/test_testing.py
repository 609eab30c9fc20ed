"""check_method and check_task: sound things pass, faults of tasks are named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.streams.stream import Stream
from ht_bench.streams.task import Task, load_task
from ht_bench.testing import check_method, check_task

Write = Callable[..., Path]


pytestmark = pytest.mark.usefixtures("one_thread_and_own_random_state")


# ---- methods that keep the contract ----


@pytest.mark.parametrize("name", registry.methods.names())
def test_every_built_in_method_passes(name: str) -> None:
    check_method(registry.methods.get(name))


@pytest.mark.parametrize(
    "method",
    [
        HareTortoise(decay=0.9, reset_every=2, first_reset=1, optimizer_state="clear"),
        HareTortoise(decay=0.9, reset_every="1 epochs"),
        HareTortoise(reset_every=None),
    ],
)
def test_an_instance_passes(method: Method) -> None:
    check_method(method)
    assert not hasattr(method, "module")


def test_a_network_of_ones_own() -> None:
    made = []

    def make() -> nn.Module:
        made.append(nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)))
        return made[-1]

    check_method(HareTortoise(reset_every=2), make)
    assert made


# ---- tasks ----


@pytest.fixture
def task(write_task: Write) -> Task:
    return load_task(write_task())


@pytest.mark.parametrize("kind", ["warm-start", "continual", "permuted"])
def test_a_shipped_task_passes(kind: str) -> None:
    check_task(f"{kind}-digits-v1")


def test_a_task_file_passes(write_task: Write) -> None:
    check_task(write_task())
    check_task(str(write_task("other")))


def test_a_phase_without_examples_is_named(task: Task) -> None:
    first, second = task.phases
    empty = dataclasses.replace(second, new=0.0, keep=0.0)
    with pytest.raises((AssertionError, UsageError), match="phase 1 has no examples"):
        check_task(dataclasses.replace(task, phases=(first, empty)))


def test_a_task_that_diverges_is_named(task: Task) -> None:
    fast = dataclasses.replace(task.optimizer, lr=1e30, name="sgd")
    with pytest.raises(AssertionError, match="tiny-v1 diverges within its first steps"):
        check_task(dataclasses.replace(task, optimizer=fast))


@pytest.mark.parametrize(
    ("view", "change", "sentence"),
    [
        ("phase", lambda drawn, _: {"labels": drawn.labels + 5}, "phase 0 .* labels outside its"),
        ("test", lambda drawn, i: {"indices": drawn.indices[i * 999 :]}, "phase 1 .* no test exam"),
    ],
)
def test_a_stream_that_is_wrong_is_named(
    task: Task, monkeypatch: pytest.MonkeyPatch, view: str, change: Any, sentence: str
) -> None:
    right = getattr(Stream, view)

    def wrong(self: Stream, index: int) -> Any:
        drawn = right(self, index)
        return dataclasses.replace(drawn, **change(drawn, index))

    monkeypatch.setattr(Stream, view, wrong)
    with pytest.raises(AssertionError, match=sentence):
        check_task(task)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("hidden", "hiden", "unknown key 'hiden'"),
        ("train = 60", "train = 5000", "digits has 1297 training examples"),
    ],
)
def test_a_malformed_task_is_a_usage_error(
    write_task: Write, old: str, new: str, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_task(write_task(change=(old, new)))
