"""A task's settings of its agent: JSON to arguments of stable-baselines3, checked before use.

Counts, sizes and noise were checked as the task was read (`streams.reinforcement`), without torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from ht_bench.errors import UsageError, did_you_mean, shown
from ht_bench.sb3.random_shift import RandomShiftNStepReplayBuffer, RandomShiftReplayBuffer
from ht_bench.streams.reinforcement import AgentSpec, is_number

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
BUFFERS: dict[str, type] = {
    "random-shift": RandomShiftReplayBuffer,
    "random-shift-n-step": RandomShiftNStepReplayBuffer,
}
_SCHEDULES = ("learning_rate", "clip_range")
_TYPES: dict[Any, Any] = {bool: bool, int: int, float: int | float}
"""What a value must be, by the annotation of the algorithm's parameter."""
_ELSEWHERE = {
    "policy": "[agent] policy",
    "env": "[environment]",
    "seed": "the command's --seeds",
    "device": "the command's --device",
}
"""Arguments that something else of a task or of a command gives."""
_OF_THE_METHOD = ("plasticity", "plasticity_kwargs", "tortoise_target")


def read_settings(agent: AgentSpec, algorithm: type) -> dict[str, Any]:
    """Return constructor arguments: names of classes and schedules become what they name.

    `policy_kwargs` is [agent.network] and what the settings say under this name.
    Raises UsageError for a value of another type than the algorithm names, and for what a task
    gives elsewhere or a file cannot name.
    """
    settings = dict(agent.settings)
    network = _network(agent, settings.pop("policy_kwargs", {}))
    for name, value in settings.items():
        if name in _ELSEWHERE:
            raise UsageError(f"[agent.settings]: '{name}' is given by {_ELSEWHERE[name]}.")
        settings[name] = _read(name, value, inspect.signature(algorithm).parameters.get(name))
    return {**settings, "policy_kwargs": network}


def _read(name: str, value: Any, parameter: inspect.Parameter | None) -> Any:
    if name == "replay_buffer_class":
        return _named(value, BUFFERS, "replay buffer")
    if name in _SCHEDULES and isinstance(value, Mapping):
        return _linear(name, value)
    if name == "action_noise":
        return NormalActionNoise(np.zeros(value["size"]), np.full(value["size"], value["normal"]))
    if name.endswith("_class"):
        raise UsageError(_unnameable("settings", name, value))
    kind: Any = parameter.annotation if parameter else None
    wanted = _TYPES.get(kind)
    if wanted and (
        not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)
    ):
        raise UsageError(
            f"[agent.settings]: {name} = {shown(value)}; it must be of type {kind.__name__}."
        )
    return value


def _linear(name: str, schedule: Mapping[str, Any]) -> LinearSchedule:
    ends: Any = schedule.get("linear")
    two = isinstance(ends, list | tuple) and len(ends) == 2 and all(map(is_number, ends))
    if len(schedule) != 1 or not two:
        raise UsageError(
            f"[agent.settings]: {name} = {dict(schedule)}; write {{ linear = [start, end] }}."
        )
    return LinearSchedule(ends[0], ends[1], 1.0)


def _network(agent: AgentSpec, more: Any) -> dict[str, Any]:
    """Return the policy's arguments: those of [agent.network] and of the settings, as one."""
    if not isinstance(more, Mapping):
        raise UsageError(
            f"[agent.settings]: policy_kwargs = {shown(more)}; give the policy's arguments by "
            "name, or write them under [agent.network]."
        )
    twice = [name for name in more if name in agent.network and more[name] != agent.network[name]]
    if twice:
        raise UsageError(
            f"[agent]: '{twice[0]}' is in network and in settings.policy_kwargs; leave one out."
        )
    network = {**agent.network, **more}
    for name, value in network.items():
        if name in _OF_THE_METHOD:
            raise UsageError(
                f"[agent.network]: '{name}' belongs to the method, which every task is trained "
                "with; choose it with --method and --set."
            )
        if name == "fast":
            raise UsageError("[agent.network]: 'fast' stands in [agent] itself: fast = true.")
        if name == "activation_fn":
            network[name] = _named(value, ACTIVATIONS, "activation")
        elif name.endswith("_class"):
            raise UsageError(_unnameable("network", name, value))
        elif isinstance(value, Mapping):
            network[name] = dict(value)
    return network


def _unnameable(table: str, name: str, value: Any) -> str:
    return (
        f"[agent.{table}]: {name} = {shown(value)} would be a Python class, which a task's file "
        "cannot name; leave it out."
    )


def _named(name: Any, choices: Mapping[str, Any], kind: str) -> Any:
    if not isinstance(name, str) or name not in choices:
        raise UsageError(
            f"[agent]: there is no {kind} {shown(name)}.{did_you_mean(shown(name), choices)} "
            f"Known: {', '.join(choices)}."
        )
    return choices[name]
