"""The stable-baselines3 agent of a task of environments, built from its JSON settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

import ht_bench.sb3
from ht_bench.errors import UsageError, did_you_mean, reason
from ht_bench.methods.resolve import MethodSpec
from ht_bench.sb3.random_shift import RandomShiftNStepReplayBuffer, RandomShiftReplayBuffer
from ht_bench.streams.reinforcement import AgentSpec, ReinforcementTask

POLICIES = {
    "mlp": "PlasticMlpPolicy",
    "cnn": "PlasticCnnPolicy",
    "multi-input": "PlasticMultiInputPolicy",
    "data-efficient": "PlasticDataEfficientPolicy",
}
# What constructors raise on settings that they cannot use: they check few themselves.
REFUSALS = (
    *(TypeError, AssertionError, ValueError, AttributeError, KeyError, IndexError),
    *(ZeroDivisionError, OverflowError, RuntimeError, MemoryError),
)
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
BUFFERS: dict[str, type] = {
    "random-shift": RandomShiftReplayBuffer,
    "random-shift-n-step": RandomShiftNStepReplayBuffer,
}


def build_agent(
    task: ReinforcementTask, method: MethodSpec, env: VecEnv, seed: int, device: str
) -> Any:
    """Return the task's agent (a BaseAlgorithm) with `method` attached, weights drawn from `seed`.

    Raises UsageError for a setting that the algorithm refuses, or a method that an agent's loop
    cannot serve.
    """
    algorithm = ht_bench.sb3.find_algorithm(task.agent.algorithm)
    plasticity = {
        "plasticity": method.reference,
        "plasticity_kwargs": dict(method.hyperparameters),
    }
    settings = _settings(task.agent, task.environment.copies)
    arguments = {**settings, "policy_kwargs": {**_network(task.agent), **plasticity}}
    try:
        return algorithm(
            POLICIES[task.agent.policy], env, seed=seed, device=device, verbose=0, **arguments
        )
    except UsageError:  # a ValueError too, and a sentence already
        raise
    except REFUSALS as error:
        words = reason(error)
        raise UsageError(
            f"Task {task.name}: {algorithm.__name__} refuses its settings ({words}); fix [agent]."
        ) from error


def experience_steps(agent: AgentSpec, copies: int) -> int:
    """Return the environment steps between two rounds of updates: a budget is a multiple of it."""
    defaults = {"ppo": 2048, "a2c": 5}
    if agent.algorithm in defaults:
        return int(agent.settings.get("n_steps", defaults[agent.algorithm])) * copies
    frequency = agent.settings.get("train_freq", 1 if agent.algorithm in ("sac", "td3") else 4)
    return int(frequency) * copies if isinstance(frequency, int) else copies


def updates_between(agent: AgentSpec, ratio: float, copies: int) -> int:
    """Return the updates after each `experience_steps` that a replay ratio asks for.

    Raises UsageError where that is no whole number, or where no replay ratio can be kept.
    """
    steps = experience_steps(agent, copies)
    if agent.algorithm in ("ppo", "a2c") or "gradient_steps" in agent.settings:
        raise UsageError(
            f"[agent]: replay_ratio = {ratio} is for off-policy agents and replaces "
            "gradient_steps; leave one of them out."
        )
    if not isinstance(agent.settings.get("train_freq", 1), int):
        raise UsageError(f"[agent]: with replay_ratio = {ratio} train_freq must be a whole number.")
    updates = ratio * steps
    if updates < 1 or updates != round(updates):
        raise UsageError(
            f"[agent]: replay_ratio = {ratio} makes {updates:g} updates after every {steps} "
            "steps; change it, or train_freq, so that they are a whole number."
        )
    return round(updates)


def check_budgets(task: ReinforcementTask) -> None:
    """Raise UsageError where a phase would not end between two rounds of updates."""
    steps = experience_steps(task.agent, task.environment.copies)
    for index, phase in enumerate(task.phases):
        if phase.steps % steps:
            raise UsageError(
                f"Task {task.name}, phase {index}: {phase.steps} steps are no multiple of the "
                f"{steps} that {task.agent.algorithm} gathers between updates; change one of them."
            )


def _settings(agent: AgentSpec, copies: int) -> dict[str, Any]:
    """Return constructor arguments: names of classes and schedules become what they name."""
    settings = dict(agent.settings)
    if agent.replay_ratio is not None:
        settings["gradient_steps"] = updates_between(agent, agent.replay_ratio, copies)
    if "replay_buffer_class" in settings:
        name = settings["replay_buffer_class"]
        settings["replay_buffer_class"] = _named(name, BUFFERS, "replay buffer")
    for key in ("learning_rate", "clip_range"):
        if isinstance(settings.get(key), Mapping):
            settings[key] = _linear(key, settings[key])
    if "action_noise" in settings:
        import numpy as np

        size = settings["action_noise"]["size"]
        scale = settings["action_noise"]["normal"]
        settings["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, scale))
    return settings


def _linear(key: str, schedule: Mapping[str, Any]) -> LinearSchedule:
    ends = schedule.get("linear", ())
    if len(schedule) != 1 or not isinstance(ends, list | tuple) or len(ends) != 2:
        raise UsageError(
            f"[agent.settings]: {key} = {dict(schedule)}; write {{ linear = [start, end] }}."
        )
    return LinearSchedule(ends[0], ends[1], 1.0)


def _network(agent: AgentSpec) -> dict[str, Any]:
    network = {k: dict(v) if isinstance(v, Mapping) else v for k, v in agent.network.items()}
    if "activation_fn" in network:
        network["activation_fn"] = _named(network["activation_fn"], ACTIVATIONS, "activation")
    return network


def _named(name: Any, choices: Mapping[str, Any], kind: str) -> Any:
    if not isinstance(name, str) or name not in choices:
        raise UsageError(
            f"[agent]: there is no {kind} '{name}'.{did_you_mean(str(name), choices)} "
            f"Known: {', '.join(choices)}."
        )
    return choices[name]
