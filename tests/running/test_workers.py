"""What is handed to worker processes: classes they can import, and a sentence for the others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench import registry
from ht_bench.records.record import Record, without_cost
from ht_bench.running.evaluate import Finished, run_plan
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.task import Task, load_task

Write = Callable[..., Path]
MODULE = """\
from dataclasses import dataclass

import torch

import ht_bench


@dataclass(eq=False)
class Noisy(ht_bench.Method):
    scale: float = 0.01

    def after_step(self):
        for parameter in self.module.parameters():
            for slot, generator in enumerate(self.generator):
                noise = torch.randn(parameter[slot].shape, generator=generator)
                parameter[slot] += self.scale * noise
"""


@pytest.fixture
def task(write_task: Write) -> Task:
    """Return the tiny task in two stacks of two seeds."""
    return load_task(write_task(stack=("stack = 4", "stack = 2")))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a module of a user's, importable also in a worker."""
    (tmp_path / "users_methods.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "users_methods", raising=False)
    return importlib.import_module("users_methods")


def run(task: Task, methods: tuple[Any, ...], workers: int) -> Finished:
    return run_plan(make_plan(Request((task,), methods)), workers, progress=False)


def by_run(records: list[Record]) -> dict[tuple[str, int], Record]:
    return {(record["method"], record["seed"]): without_cost(record) for record in records}


def test_workers_import_what_this_process_registered(
    task: Task, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registered name and an instance with the method's own randomness; one class gets lost."""
    monkeypatch.setattr(registry.methods, "_entries", dict(registry.methods._entries))
    ht_bench.register_method("noisy")(module.Noisy)
    lost = type("Lost", (ht_bench.Method,), {"__module__": "users_methods"})
    monkeypatch.setattr(module, "Lost", lost, raising=False)  # here, but in no worker
    fine = ("noisy", ht_bench.L2Init(strength=0.1))
    pool, alone = run(task, (*fine, lost), 2), run(task, fine, 1)
    assert by_run(pool.records) == by_run(alone.records)
    assert len(pool.records) == 8
    assert len(pool.failures) == 2  # the lost method's stacks
    for sentence in pool.failures:
        assert "cannot be handed to worker processes" in sentence and "Lost" in sentence
        assert "\n" not in sentence and "file.py:Class" in sentence


def test_a_class_that_cannot_be_pickled_is_refused_before_anything_starts(task: Task) -> None:
    @dataclass(eq=False)
    class Local(ht_bench.Method):
        pass

    with pytest.raises(ht_bench.UsageError, match="Local cannot be handed to worker processes"):
        ht_bench.evaluate(Local, task, jobs=2, progress=False)
    assert len(ht_bench.evaluate(Local, task, jobs=1, progress=False).records) == 4
