"""What the supervised loop offers a method: the right examples at the right time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ht_bench.methods.base import Method
from ht_bench.streams.data import load
from ht_bench.streams.task import Task
from ht_bench.training.batches import Examples
from ht_bench.training.supervised import SupervisedRun

MakeTask = Callable[..., Task]


@dataclass(eq=False)
class Reads(Method):
    """Notes, at a boundary, what it is offered."""

    name = "reads"
    needs: ClassVar[frozenset[str]] = frozenset({"data", "old data", "second batch"})

    def on_phase(self, index: int) -> None:
        loop = self.loop
        assert loop.batches and loop.old_batches and loop.second_batch and loop.outputs
        self.new, self.old = list(loop.batches()), list(loop.old_batches())
        self.again = list(loop.batches())
        self.drawn = [loop.second_batch(), loop.second_batch()]
        self.outputs = loop.outputs(self.drawn[0])
        outputs = self.module(self.new[0][0])
        assert loop.loss
        self.loss = loop.loss(outputs, self.new[0][1])
        self.by_hand = torch.stack(
            [cross_entropy(z, y) for z, y in zip(outputs, self.new[0][1], strict=True)]
        ).sum()


def inputs_of(batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.cat([inputs for inputs, _ in batches], dim=1)


def test_examples_of_the_open_phase_and_of_the_one_that_has_ended(make_task: MakeTask) -> None:
    phases = [{"new": 0.5, "wrong": 0.5, "updates": 3}, {"new": 0.5, "updates": 3}]
    method, task = Reads(), make_task(phases=phases)
    run = SupervisedRun(task, load("digits"), method, (100, 101))
    run.train()
    views = [
        Examples([stream.phase(index) for stream in run.streams], run.images) for index in (0, 1)
    ]
    for view, batches in ((views[0], method.old), (views[1], method.new)):
        inputs, labels = view.slice(0, view.examples)
        assert torch.equal(inputs_of(batches), inputs)
        assert torch.equal(torch.cat([y for _, y in batches], dim=1), labels)
    assert views[0].examples < views[1].examples
    assert torch.equal(inputs_of(method.again), inputs_of(method.new))
    first, second = method.drawn
    assert first.shape[:2] == (2, task.training.batch) and not torch.equal(first, second)
    for seed in range(2):  # drawn from the seed's own examples of the phase
        known = {tuple(x.flatten().tolist()) for x in inputs_of(method.new)[seed]}
        assert {tuple(x.flatten().tolist()) for x in first[seed]} <= known
    assert method.outputs.shape == (2, task.training.batch, 10)
    assert float(method.loss) == pytest.approx(float(method.by_hand), rel=1e-6)


def test_a_lone_network_gets_what_it_takes(make_task: MakeTask) -> None:
    net = {"name": "cnn", "channels": [4], "hidden": [8]}
    task = make_task(net=net, training={"batch": 16, "stack": 1, "points": 1})
    method = Lone()
    SupervisedRun(task, load("digits"), method, (100,)).train()
    assert method.shapes[0][0] == (16, 1, 8, 8) and method.shapes[0][1] == (16,)
    assert method.drawn == (16, 1, 8, 8) and method.loss > 0


@dataclass(eq=False)
class Lone(Method):
    """Notes shapes."""

    name = "lone"
    needs: ClassVar[frozenset[str]] = frozenset({"data", "second batch"})

    def on_phase(self, index: int) -> None:
        loop = self.loop
        assert loop.batches and loop.second_batch and loop.loss
        batches = list(loop.batches())
        self.shapes = [(tuple(x.shape), tuple(y.shape)) for x, y in batches]
        self.drawn = tuple(loop.second_batch().shape)
        inputs, labels = batches[0]
        self.loss = float(loop.loss(self.module(inputs), labels))
