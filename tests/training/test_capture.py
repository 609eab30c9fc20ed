"""Captured steps: on a CPU's stand-in for CUDA graphs every method trains as step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.methods.base import Method
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.recipe import get_recipe, recipe_names
from ht_bench.methods.resolve import resolve
from ht_bench.streams.data import load
from ht_bench.streams.task import Task
from ht_bench.training.capture import Captured, storage
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.supervised import SupervisedRun
from ht_bench.training.tape import Tapes

MakeTask = Callable[..., Task]


class Uncaptured:
    """Runs what is to be captured, on the same tensors, each time anew."""

    runs_while_capturing = False

    @contextmanager
    def active(self) -> Iterator[None]:
        yield

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        return step


class CountingTapes(Tapes):
    """Counts captures and replays."""

    def __init__(self) -> None:
        self.captures, self.replays = 0, 0

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        again = super().capture(step)

        def replay() -> None:
            self.replays += 1
            again()

        return replay


SETTINGS: dict[str, dict[str, Any]] = {
    "hare-tortoise": {"reset_every": 5, "decay": 0.9, "optimizer_state": "clear"},
    "ema": {"decay": 0.9},
    "self-distillation": {"decay": 0.9},
    "l2": {"strength": 1e-2},
    "l2-init": {"strength": 1e-2},
}


def trained(task: Task, method: Method, graphs: Any) -> SupervisedRun:
    run = SupervisedRun(task, load(task.data.name), method, (100, 101), graphs=graphs)
    run.train()
    return run


def method_of(name: str) -> Method:
    recipe = get_recipe(name)
    return resolve(name, "", SETTINGS.get(name) or (recipe.active if recipe else {})).build()


def assert_equal_runs(first: SupervisedRun, second: SupervisedRun) -> None:
    weights = second.module.state_dict()
    for name, tensor in first.module.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert repr(first.history.state_dict()) == repr(second.history.state_dict())


@pytest.mark.parametrize("name", recipe_names())
def test_every_method_trains_alike_captured_and_step_by_step(
    name: str, make_task: MakeTask
) -> None:
    task, graphs = make_task(), CountingTapes()
    captured = trained(task, method_of(name), graphs)
    assert_equal_runs(captured, trained(task, method_of(name), Uncaptured()))
    assert graphs.replays > (10 if captured.method.captures else 0), "nothing was replayed"
    if name == "trac":  # its scale multiplies rounding until the end has little in common
        return
    plain = trained(task, method_of(name), None)  # rates of twice the digits: rounding grows
    for mine, theirs in zip(plain.history.points, captured.history.points, strict=True):
        assert mine["test/loss"] == pytest.approx(theirs["test/loss"], abs=0.06)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("state", ["keep", "clear"])
def test_resets_fall_between_captured_steps(
    optimizer: str, state: str, make_task: MakeTask
) -> None:
    task = make_task(optimizer={"lr": 1e-2, "name": optimizer, "clip": 0.5})
    make = lambda: HareTortoise(0.9, reset_every=4, first_reset=2, optimizer_state=state)  # type: ignore[arg-type]  # noqa: E731
    assert_equal_runs(trained(task, make(), CountingTapes()), trained(task, make(), Uncaptured()))


def test_captures_last_from_phase_to_phase(make_task: MakeTask) -> None:
    """Batches of 16, and of what is left of 30, 45 and 60: 14, 13 and 12; and two evaluations."""
    graphs = CountingTapes()
    trained(make_task(), method_of("full-reset"), graphs)
    assert graphs.captures == 4 + 1


def test_permuted_inputs_and_augmentation_are_read_where_they_lie(make_task: MakeTask) -> None:
    phases = [
        {"new": 0.5, "updates": 6, "augment": True},
        {"new": 0.25, "updates": 6, "inputs": "permuted"},
        {"new": 0.25, "updates": 9},
    ]
    task = make_task(family="permuted", phases=phases)
    assert_equal_runs(
        trained(task, method_of("none"), CountingTapes()),
        trained(task, method_of("none"), Uncaptured()),
    )


@pytest.mark.parametrize("stop", [3, 9, 14, 20])
def test_a_captured_run_is_resumed_at_any_step(
    stop: int, make_task: MakeTask, tmp_path: Any
) -> None:
    from ht_bench.training.checkpoint import CheckpointPlan

    def make() -> SupervisedRun:
        method = method_of("hare-tortoise")
        return SupervisedRun(task, load("digits"), method, (100, 101), graphs=Tapes())

    task, plan = make_task(), CheckpointPlan(tmp_path / "stack.pt", "mine")
    whole = make()
    whole.train()
    seen = [0]

    def progress(steps: int) -> None:
        seen[0] += steps

    first = make()
    with pytest.raises(Interrupted):
        first.train(plan, Observer(progress=progress, stop=lambda: seen[0] >= stop))
    second = make()
    second.train(plan)
    assert_equal_runs(whole, second)


# ---- what cannot be captured ----


@dataclass(eq=False)
class CountsOnTheHost(Method):
    """Does something every third step, told by a count of its own."""

    name = "counts"

    def setup(self) -> None:
        self._count = 0

    def after_step(self) -> None:
        self._count += 1
        if self._count % 3 == 0:
            for parameter in self.module.parameters():
                parameter.mul_(0.9)


@dataclass(eq=False)
class CountsOnTheHostToo(HareTortoise):
    """Inherits the word of a class whose hook it replaces."""

    def after_step(self) -> None:
        super().after_step()


@dataclass(eq=False)
class Reads(Method):
    """Says that it can be captured, and reads a tensor back."""

    name = "reads"
    capturable = True

    def after_step(self) -> None:
        for parameter in self.module.parameters():
            if float(parameter.abs().max()) > 0.1:
                parameter.mul_(0.99)


def test_a_method_that_does_not_say_so_runs_step_by_step(make_task: MakeTask) -> None:
    assert not CountsOnTheHost().captures
    assert not CountsOnTheHostToo().captures
    graphs = CountingTapes()
    run = trained(make_task(), CountsOnTheHost(), graphs)
    assert graphs.captures == 1  # the evaluation
    assert run.method._count == run.steps_taken  # type: ignore[attr-defined]
    assert_equal_runs(run, trained(make_task(), CountsOnTheHost(), Uncaptured()))


def test_all_that_are_registered_can_be_captured_but_those_that_say_why_not() -> None:
    """The noise of `upgd` comes from CPU generators, `churn` draws a batch on the host."""
    eager = {name for name in recipe_names() if not method_of(name).captures}
    assert eager <= {"upgd", "churn"}


def test_a_step_that_reads_back_is_said_and_runs_step_by_step(make_task: MakeTask) -> None:
    with pytest.warns(UserWarning, match="'reads' cannot be captured"):
        run = trained(make_task(), Reads(), Tapes())
    assert_equal_runs(run, trained(make_task(), Reads(), Uncaptured()))


# ---- the parts ----


def test_a_tape_repeats_what_was_done_on_the_memory_of_then() -> None:
    total, place = torch.zeros(3), torch.zeros(1, dtype=torch.long)
    table = torch.tensor([1.0, 10.0, 100.0])

    def step() -> None:
        total.add_(table[place])
        place.add_(1)

    replay = Tapes().capture(step)
    replay()
    assert total.tolist() == [11.0] * 3
    place.zero_()
    replay()
    assert total.tolist() == [12.0] * 3


def test_captures_are_dropped_when_their_tensors_have_moved() -> None:
    layer, calls = nn.Linear(2, 2), []

    def function(size: int) -> None:
        calls.append(size)

    captured = Captured(CountingTapes(), function, "A test", (layer,))
    for _ in range(4):
        captured(8, 8)
    assert len(calls) == 2  # once before, once while it was captured
    captured.check()
    captured(8, 8)
    assert len(calls) == 2
    layer.weight.data = layer.weight.data.clone()
    captured.check()
    captured(8, 8)
    assert len(calls) == 3


def test_the_storage_of_a_method_is_all_that_it_keeps() -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    method = HareTortoise(decay=0.9).attach(layer, optimizer)
    before = storage(layer, optimizer, method)
    slow: list[Tensor] = method.tortoise._values
    assert set(before) == {t.data_ptr() for t in (*layer.parameters(), *slow)}
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert len(storage(layer, optimizer, method)) == 4 + 6
    held, slow[0] = slow[0], slow[0].clone()
    assert held.data_ptr() not in storage(layer, optimizer, method)
