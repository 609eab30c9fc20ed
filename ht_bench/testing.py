"""Contract tests that a contributor can run: `check_method`, `check_task`.

Each raises AssertionError with one sentence that names the contract that is broken.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.networks.mlp import StackedMLP
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import AnyTask, Task

STEPS, BOUNDARY, EPOCH_STEPS = 12, 6, 3
"""Steps of the small program, the step at which its second phase begins, steps of an epoch."""
CHECKED_STEPS = 20
"""Steps that `check_task` takes in each phase of a stream of environments."""


def check_method(
    method: Method | type[Method], make_module: Callable[[], nn.Module] | None = None
) -> None:
    """Check a method against the Method contract on small networks, in about a second.

    method: an unattached instance, or a class that can be built without arguments. make_module:
    builds the network to check on, called under a fixed seed; by default a convolutional net with
    BatchNorm and a stack of three perceptrons. Raises AssertionError naming the broken contract:
    hyperparameters are JSON; attaching twice is refused; a fresh copy behaves alike; no storage is
    shared with the network; every parameter stays in the optimizer and moves after a boundary;
    `evaluating` restores weights, buffers and modes; state saved at any step and restored goes on
    alike; torch's own random state is left alone; a seed of a stack does not depend on its mates.
    """
    if isinstance(method, type):
        method = method()
    _check_hyperparameters(method)
    for make in [make_module] if make_module else [_convolutional_net, _stack]:
        _check_attach(method, make)
        _check_equal_runs(method, make)
        _check_boundary(method, make)
        _check_evaluating(method, make)
        _check_resume(method, make)
    if make_module is None and not method.network:
        _check_mates(method)


def check_task(task: AnyTask | str | Path) -> None:
    """Check that a task can be run: its data, network, phases and first steps.

    Of a task of environments every phase's environment is made, checked as Gymnasium checks one,
    and stepped. Raises AssertionError naming what is wrong, and UsageError for a malformed file.
    """
    from ht_bench.streams.catalog import get_task

    spec = get_task(task)
    if isinstance(spec, ReinforcementTask):
        _check_environments(spec)
    else:
        _check_data(spec)


# ---- tasks ----


def _check_environments(task: ReinforcementTask) -> None:
    from gymnasium.utils.env_checker import check_env

    from ht_bench.envs.rl_stream import EnvironmentStream
    from ht_bench.methods.resolve import resolve
    from ht_bench.running.kinds import check

    check(task, resolve("none", task.name, agent=True))
    stream = EnvironmentStream(task)
    try:
        with warnings.catch_warnings():
            # Of infinite bounds, which CartPole's own speeds have.
            warnings.filterwarnings("ignore", ".*A Box observation space m.* is -?infinity")
            check_env(stream, skip_render_check=True, skip_close_check=True)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{task.name}: {error}.") from error
    for index in range(len(task.phases)):
        observation, info = stream.reset(options={"phase": index})
        place = f"phase {index} of {task.name}"
        for _ in range(CHECKED_STEPS):
            inside = stream.observation_space.contains(observation)
            _require(inside, f"An observation of {place} lies outside the space")
            _require(info["phase"] == index, f"{place} says that it is {info['phase']}")
            observation, _, terminated, truncated, info = stream.step(stream.action_space.sample())
            if terminated or truncated:
                observation, info = stream.reset(options={"phase": index})
    stream.close()


def _check_data(task: Task) -> None:
    from ht_bench.methods.resolve import resolve
    from ht_bench.streams.data import load
    from ht_bench.streams.stream import Stream
    from ht_bench.training.supervised import SupervisedRun

    data = load(task.data.name)
    stream = Stream(task, data, 0)
    for index in range(len(task.phases)):
        phase, test = stream.phase(index), stream.test(index)
        _require(len(phase.indices) > 0, f"phase {index} of {task.name} has no examples")
        _require(len(test.indices) > 0, f"phase {index} of {task.name} has no test examples")
        inside = phase.labels.min() >= 0 and phase.labels.max() < data.classes
        _require(inside, f"phase {index} of {task.name} has labels outside its classes")
    short = tuple(dataclasses.replace(p, epochs=None, updates=2) for p in task.phases[:2])
    spec = dataclasses.replace(task, phases=short)
    run = SupervisedRun(spec, data, resolve("none").build(), (0,) * task.training.stack)
    run.train()
    _require(bool(run.alive.all()), f"{task.name} diverges within its first steps")


# ---- methods ----

Make = Callable[[], nn.Module]


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence + ".")


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)


def _name(method: Method) -> str:
    return type(method).__name__


def _check_hyperparameters(method: Method) -> None:
    values = {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.init}
    try:
        restored = json.loads(json.dumps(values))
    except TypeError as error:
        raise AssertionError(f"{_name(method)}'s hyperparameters are not JSON: {error}.") from error
    same = restored == json.loads(json.dumps(values)) and restored.keys() == values.keys()
    _require(same, f"{_name(method)}'s hyperparameters change when written as JSON")


def _check_attach(method: Method, make: Make) -> None:
    program = _Program(method, make)
    try:
        program.method.attach(program.module, program.optimizer)
    except UsageError:
        pass
    else:
        raise AssertionError(f"{_name(method)} lets itself be attached twice; call super().attach.")
    network = {t.untyped_storage().data_ptr() for t in program.module.state_dict().values()}
    held = {t.untyped_storage().data_ptr() for t in _tensors(program.method.state_dict())}
    _require(not network & held, f"{_name(method)} shares storage with the network; clone instead")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and value.numel():
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _check_equal_runs(method: Method, make: Make) -> None:
    first, second = _Program(method, make).train(STEPS), _Program(method, make)
    random_state = torch.get_rng_state()
    second.train(STEPS)
    _require(
        torch.equal(random_state, torch.get_rng_state()),
        f"{_name(method)} draws from torch's own generator; draw from self.generator or "
        "self.fresh()",
    )
    same = _equal(first.snapshot(), second.snapshot())
    _require(same, f"two runs of {_name(method)} with equal seeds differ")


def _check_boundary(method: Method, make: Make) -> None:
    program = _Program(method, make)
    identities = {id(parameter) for parameter in program.module.parameters()}
    program.train(BOUNDARY + 1)
    optimized = {id(p) for group in program.optimizer.param_groups for p in group["params"]}
    now = {id(parameter) for parameter in program.module.parameters()}
    _require(
        now == identities and now <= optimized,
        f"{_name(method)} replaces parameters at a boundary; change them in place",
    )
    before = program.snapshot()
    program.train(BOUNDARY + 2)
    for name, parameter in program.module.named_parameters():
        moved = not torch.equal(before[name], parameter)
        _require(moved, f"{_name(method)}: '{name}' does not train after a boundary")


def _check_evaluating(method: Method, make: Make) -> None:
    program = _Program(method, make).train(BOUNDARY + 2)
    weights, modes, state = program.snapshot(), program.modes(), copy.deepcopy(program.state())
    with program.method.evaluating() as evaluated, torch.no_grad():
        evaluated(program.batch()[0])
        quiet = not any(child.training for child in evaluated.modules())
    name = f"{_name(method)}.evaluating"
    _require(quiet, f"{name} does not put the network in evaluation mode")
    restored = _equal(weights, program.snapshot())
    _require(restored, f"{name} does not restore weights and buffers exactly")
    _require(modes == program.modes(), f"{name} does not restore training modes")
    unchanged = _equal(state, program.state())
    _require(unchanged, f"{name} changes the method's or the optimizer's state")


def _check_resume(method: Method, make: Make) -> None:
    whole = _Program(method, make).train(STEPS)
    for stop in (1, EPOCH_STEPS + 1, BOUNDARY + 1, STEPS - 1):
        first, second = _Program(method, make).train(stop), _Program(method, make)
        second.restore(first)
        second.train(STEPS)
        _require(
            _equal(whole.snapshot(), second.snapshot())
            and _equal(whole.method.state_dict(), second.method.state_dict()),
            f"{_name(method)} saved at step {stop} and restored does not go on alike; "
            "put what it keeps into state_dict",
        )


def _check_mates(method: Method) -> None:
    """A seed's weights are the same whatever its mates and its slot."""
    ends = []
    for seeds in ((1, 2, 3), (4, 1, 5)):
        program = _Program(method, _stack, seeds)
        program.train(BOUNDARY)  # no boundary: fresh weights come from the loop, keyed by seed
        ends.append({name: t[seeds.index(1)] for name, t in program.snapshot().items()})
    first, second = ends
    close = all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    _require(close, f"{_name(method)} mixes the seeds of a stack; reduce over trailing dimensions")


# ---- the small networks and the plain training program that methods are checked on ----


def _convolutional_net() -> nn.Module:
    """Return a net with a convolution, BatchNorm, a convolution-to-linear transition and a head."""
    convolution = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convolution, nn.Linear(4 * 4 * 4, 12), nn.ReLU(), nn.Linear(12, 3))


def _stack() -> nn.Module:
    """Return a stack of three perceptrons on the same images."""
    return StackedMLP((16, 12, 8, 3), 3, "relu", "none")


class _Program:
    """A plain training program with the method attached."""

    def __init__(self, method: Method, make: Make, seeds: tuple[int, ...] = ()) -> None:
        torch.manual_seed(7)
        self.module = make()
        self.seeds = seeds or tuple(range(getattr(self.module, "stack", 1)))
        if seeds:
            _set_seeds(self.module, seeds)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-2)
        self.method = dataclasses.replace(method)
        generator = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self.method.attach(self.module, self.optimizer, generator=generator)
        self.step = 0
        self.budget = self.method.enter_phase(0, BOUNDARY, EPOCH_STEPS, 2)

    def batch(self) -> tuple[Tensor, Tensor]:
        """The batch of this step: each seed's own, whatever its mates."""
        inputs, labels = [], []
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(1000 * seed + self.step)
            inputs.append(torch.randn(8, 1, 4, 4, generator=generator))
            labels.append(torch.randint(3, (8,), generator=generator))
        if getattr(self.module, "stacked", False):
            return torch.stack(inputs), torch.stack(labels)
        return inputs[0], labels[0]

    def train(self, until: int) -> _Program:
        """Take steps up to `until`, with a phase boundary at BOUNDARY; returns itself."""
        while self.step < until:
            if self.step == BOUNDARY:
                self.optimizer.state.clear()
                self.method.enter_phase(1, STEPS - BOUNDARY, EPOCH_STEPS, 2)
            if self.step >= BOUNDARY or self.step < self.budget:
                self.take_step()
            self.step += 1
        return self

    def take_step(self) -> None:
        """Take one optimizer step on this step's batch."""
        self.module.train()
        inputs, labels = self.batch()
        self.optimizer.zero_grad()
        outputs = self.module(inputs)
        losses = cross_entropy(outputs.flatten(0, -2), labels.flatten(), reduction="none")
        loss = losses.view(labels.shape).mean(-1).sum()
        extra = self.method.auxiliary_loss(inputs, outputs)
        (loss if extra is None else loss + extra).backward()
        self.optimizer.step()

    def snapshot(self) -> dict[str, Tensor]:
        """Return copies of all weights and buffers."""
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    def modes(self) -> list[bool]:
        """Return which modules are in training mode."""
        return [child.training for child in self.module.modules()]

    def state(self) -> list[Any]:
        """Return the method's and the optimizer's state."""
        return [self.method.state_dict(), self.optimizer.state_dict()]

    def restore(self, other: _Program) -> None:
        """Go on where `other` stands, as from a checkpoint."""
        self.module.load_state_dict(other.module.state_dict())
        self.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))
        self.method.restore(copy.deepcopy(other.method.checkpoint()), EPOCH_STEPS, 2)
        self.step, self.budget = other.step, other.budget


def _set_seeds(module: nn.Module, seeds: tuple[int, ...]) -> None:
    """Give slot i of a stack the weights of seed i, whatever its mates."""
    with torch.no_grad():
        for slot, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for parameter in module.parameters():
                shape = parameter[slot].shape
                parameter[slot] = 0.3 * torch.randn(shape, generator=generator)
