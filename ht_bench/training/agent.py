"""The stable-baselines3 agent of a task of environments, built from its JSON settings."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.vec_env import VecEnv

import ht_bench.sb3
from ht_bench.errors import UsageError, reason
from ht_bench.methods.resolve import MethodSpec
from ht_bench.streams.reinforcement import AgentSpec, ReinforcementTask
from ht_bench.training.agent_settings import read_settings

_REFUSALS = (
    TypeError,
    AssertionError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
)
"""What stable-baselines3, torch and NumPy raise at settings that do not fit."""
POLICIES = {
    "mlp": "PlasticMlpPolicy",
    "cnn": "PlasticCnnPolicy",
    "multi-input": "PlasticMultiInputPolicy",
    "data-efficient": "PlasticDataEfficientPolicy",
    "minatar": "PlasticMinAtarPolicy",
}


def build_agent(
    task: ReinforcementTask, method: MethodSpec, env: VecEnv, seed: int, device: str
) -> Any:
    """Return the task's agent (a BaseAlgorithm) with `method` attached, weights drawn from `seed`.

    Raises UsageError for a setting that the algorithm refuses, or a method that an agent's loop
    cannot serve.
    """
    algorithm = ht_bench.sb3.find_algorithm(task.agent.algorithm)
    plasticity: dict[str, Any] = {
        "plasticity": method.reference,
        "plasticity_kwargs": dict(method.hyperparameters),
        **({"fast": True} if task.agent.fast else {}),
    }
    settings = read_settings(task.agent, algorithm)
    if task.agent.replay_ratio is not None:
        copies = task.environment.copies
        settings["gradient_steps"] = updates_between(task.agent, task.agent.replay_ratio, copies)
    arguments = {**settings, "policy_kwargs": {**settings["policy_kwargs"], **plasticity}}
    try:
        return algorithm(
            POLICIES[task.agent.policy], env, seed=seed, device=device, verbose=0, **arguments
        )
    except UsageError:  # a ValueError too, and a sentence already
        raise
    except _REFUSALS as error:
        raise UsageError(
            f"Task {task.name}: {algorithm.__name__} refuses its settings ({reason(error)}); fix "
            "[agent]."
        ) from error


def experience_steps(agent: AgentSpec, copies: int) -> int:
    """Return the environment steps between two rounds of updates: a budget is a multiple of it."""
    rollouts = {"ppo": 2048, "a2c": 5}
    if agent.algorithm in rollouts:
        steps: int = agent.settings.get("n_steps", rollouts[agent.algorithm])
        return steps * copies
    frequency = agent.settings.get("train_freq", 1 if agent.algorithm in ("sac", "td3") else 4)
    if not isinstance(frequency, int):  # [1, "episode"], and an episode may have any length
        raise UsageError(
            f"[agent.settings]: 'train_freq' is {frequency!r}; write the number of steps alone, "
            "of which a phase's budget is a multiple."
        )
    return frequency * copies


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
