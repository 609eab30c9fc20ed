"""The two kinds of task: what planning and running ask of each.

A task of data trains a stack of seeds in the supervised loop, a task of environments one seed's
agent. The loop of agents is imported only when it is needed: stable-baselines3 takes a second.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
from typing import TYPE_CHECKING, Any

import torch

from ht_bench.errors import UsageError
from ht_bench.methods.resolve import MethodSpec
from ht_bench.streams.data import load
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.stream import Split, Stream, planned_steps
from ht_bench.streams.task import AnyTask
from ht_bench.training import build
from ht_bench.training.device import Compute
from ht_bench.training.offer import offered
from ht_bench.training.supervised import SupervisedRun

if TYPE_CHECKING:
    from ht_bench.training.reinforcement import ReinforcementRun

_LIBRARIES = ("gymnasium", "stable-baselines3", "sb3-contrib", "ale-py", "mujoco", "minatar")


@functools.lru_cache(maxsize=2)
def dataset(name: str) -> Dataset:
    """Return a dataset, loaded and checked once per process."""
    return load(name)


def data_sha256(task: AnyTask) -> str:
    """Return the hash of a task's data; environments have none and give ""."""
    return "" if isinstance(task, ReinforcementTask) else dataset(task.data.name).sha256


def steps_of(task: AnyTask, seed: int, split: Split) -> int:
    """Return the optimizer steps, or environment steps, that a run takes."""
    if isinstance(task, ReinforcementTask):
        return task.steps
    return sum(planned_steps(Stream(task, dataset(task.data.name), seed, split)))


def check(task: AnyTask, method: MethodSpec) -> None:
    """Build the network with the method, or the agent, once: refusals come before training.

    Raises UsageError, Unsuitable where both are fine by themselves, with the sentence that a run
    would end in.
    """
    if isinstance(task, ReinforcementTask):
        from ht_bench.training.reinforcement import ReinforcementRun

        ReinforcementRun(task, method, 0)
        return
    built = method.build()
    try:
        module = build.check(task, dataset(task.data.name), built.network_changes())
    except UsageError as error:
        raise type(error)(f"Task {task.name}: {error}") from error
    if not method.built_in:  # whatever a user's does at attach is its own stack's failure
        return
    generators = [torch.Generator()]
    optimizer = build.optimizer(task.optimizer, module)
    try:
        built.attach(module, optimizer, generator=generators, loop=offered(module))
    except UsageError as error:
        raise type(error)(f"Task {task.name}, method '{method.name}': {error}") from error


def make_run(
    task: AnyTask, method: MethodSpec, seeds: tuple[int, ...], split: Split, compute: Compute
) -> SupervisedRun | ReinforcementRun:
    """Return the run of a stack of seeds, padded to the task's width; the first are `seeds`."""
    if isinstance(task, ReinforcementTask):
        from ht_bench.training.reinforcement import ReinforcementRun

        return ReinforcementRun(task, method, seeds[0], split, compute)
    padding = (seeds[0],) * (max(task.stack, len(seeds)) - len(seeds))
    data = dataset(task.data.name)
    return SupervisedRun(task, data, method.build(), seeds + padding, split, compute)


def libraries(task: AnyTask) -> dict[str, Any]:
    """Return the versions of the libraries that decide an agent's numbers, none for data."""
    if not isinstance(task, ReinforcementTask):
        return {}
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
