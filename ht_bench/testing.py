"""Contract tests that a contributor can run: `check_method`, `check_task`.

Each raises AssertionError with one sentence that names the contract that is broken.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.resolve import resolve
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import AnyTask, Task
from ht_bench.training import contract_checks
from ht_bench.training.contract_checks import require

CHECKED_STEPS = 20
"""Steps that `check_task` takes in each phase of a stream of environments."""


def check_method(
    method: Method | type[Method] | str, make_module: Callable[[], nn.Module] | None = None
) -> None:
    """Check a method against the Method contract on small networks, in about a second.

    method: an unattached instance, a class that can be built without arguments, or what `--method`
    takes: a name, "file.py:Class" or a recipe's TOML file, with its hyperparameters. make_module:
    builds the network to check on, called under a fixed seed; by default a convolutional net with
    BatchNorm and a stack of three perceptrons. Raises AssertionError naming the broken contract:
    hyperparameters are JSON; attaching twice is refused; a fresh copy behaves alike; no storage is
    shared with the network; every parameter stays in the optimizer and moves after a boundary;
    `evaluating` restores weights, buffers and modes; state saved at any step and restored goes on
    alike; torch's own random state is left alone; weights stay finite; a seed of a stack does not
    depend on its mates and trains as a lone network of `nn.Linear` does; steps that it says can be
    captured train alike when they are; its hooks take what loops give them, and none is misspelled.
    Whatever the method's code raises comes as a sentence with its line.
    """
    from ht_bench.running.failure import in_words

    if not isinstance(method, Method):
        method = resolve(method).build()
    try:
        contract_checks.check(method, make_module)
    except (AssertionError, UsageError):
        raise
    except Exception as error:  # whatever a user's code does
        raise AssertionError(f"{type(method).__name__} fails: {in_words(error)}.") from error


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


def _check_environments(task: ReinforcementTask) -> None:
    from gymnasium.utils.env_checker import check_env

    from ht_bench.envs.rl_stream import EnvironmentStream
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
            require(inside, f"An observation of {place} lies outside the space")
            require(info["phase"] == index, f"{place} says that it is {info['phase']}")
            observation, _, terminated, truncated, info = stream.step(stream.action_space.sample())
            if terminated or truncated:
                observation, info = stream.reset(options={"phase": index})
    stream.close()


def _check_data(task: Task) -> None:
    from ht_bench.streams.data import load
    from ht_bench.streams.stream import Stream
    from ht_bench.training.supervised import SupervisedRun

    data = load(task.data.name)
    stream = Stream(task, data, 0)
    for index in range(len(task.phases)):
        phase, test = stream.phase(index), stream.test(index)
        require(len(phase.indices) > 0, f"phase {index} of {task.name} has no examples")
        require(len(test.indices) > 0, f"phase {index} of {task.name} has no test examples")
        inside = phase.labels.min() >= 0 and phase.labels.max() < data.classes
        require(inside, f"phase {index} of {task.name} has labels outside its classes")
    short = tuple(dataclasses.replace(p, epochs=None, updates=2) for p in task.phases[:2])
    spec = dataclasses.replace(task, phases=short)
    run = SupervisedRun(spec, data, resolve("none").build(), (0,) * task.training.stack)
    run.train()
    require(bool(run.alive.all()), f"{task.name} diverges within its first steps")
