"""A task of environments: a stream of phases for a reinforcement-learning agent. No torch here.

PROTOCOL, "Streams": a phase is an environment id with JSON keyword arguments, wrappers by name,
and a budget in environment steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ht_bench.errors import UsageError
from ht_bench.streams.spec import Spec, read_spec

ALGORITHMS = ("ppo", "a2c", "dqn", "qrdqn", "sac", "td3")


@dataclass(frozen=True)
class EnvironmentSpec:
    """What every phase's environment is made from.

    id: a Gymnasium id. kwargs: its keyword arguments, JSON. wrappers: names with options, applied
    in order (`ht_bench.envs.wrappers`). copies: environments that the agent steps side by side.
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[Mapping[str, Any], ...] = ()
    copies: int = 1


@dataclass(frozen=True)
class AgentSpec:
    """The stable-baselines3 agent every method trains.

    settings: arguments of its constructor. network: arguments of its policy (`policy_kwargs`)
    without the plasticity. Both are JSON. replay_ratio: of an off-policy agent, the updates per
    environment step; it takes the place of the setting `gradient_steps`.
    """

    algorithm: Literal["ppo", "a2c", "dqn", "qrdqn", "sac", "td3"]
    policy: Literal["mlp", "cnn", "multi-input", "data-efficient"] = "mlp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    replay_ratio: float | None = None


@dataclass(frozen=True)
class EvaluationSpec:
    """Episodes at each point of the curve, and points in each phase beside the one at its start.

    The policy acts deterministically on fixed evaluation seeds, the same for every method.
    """

    episodes: int = 10
    points: int = 10


@dataclass(frozen=True)
class ReferenceSpec:
    """Returns to read others by: a uniform policy's in the last phase, and a human's."""

    random: float
    human: float | None = None


@dataclass(frozen=True)
class EnvironmentPhase:
    """One stretch of a stream in which the environment stays the same.

    steps: its budget in environment steps, over all copies. id, kwargs: replace and extend those
    of [environment]. physics: attributes of the unwrapped environment. observations, actions:
    permuted anew in the phase, never as in the phase before it.
    """

    steps: int
    id: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    physics: Mapping[str, float] = field(default_factory=dict)
    observations: Literal["true", "permuted"] = "true"
    actions: Literal["true", "permuted"] = "true"


@dataclass(frozen=True, kw_only=True)
class ReinforcementTask(Spec):
    """A stream of environments with its agent and budget: everything that fixes a number."""

    environment: EnvironmentSpec
    agent: AgentSpec
    reference: ReferenceSpec
    phases: tuple[EnvironmentPhase, ...]
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)

    @property
    def learner(self) -> str:
        """The agent, in a word."""
        return self.agent.algorithm

    @property
    def steps(self) -> int:
        """Environment steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def environment_of(self, index: int) -> tuple[str, dict[str, Any]]:
        """Return the Gymnasium id and keyword arguments of phase `index`."""
        phase = self.phases[index]
        return phase.id or self.environment.id, {**self.environment.kwargs, **phase.kwargs}


def parse_reinforcement(table: Mapping[str, Any], where: str) -> ReinforcementTask:
    """Build a task of environments from a parsed TOML table; `where` names its file in errors."""
    task = read_spec(ReinforcementTask, table, where)
    counts = {
        "environment.copies": task.environment.copies,
        "evaluation.episodes": task.evaluation.episodes,
        "evaluation.points": task.evaluation.points,
        **{f"phases[{i}].steps": phase.steps for i, phase in enumerate(task.phases)},
    }
    for key, count in counts.items():
        if count < 1:
            raise UsageError(f"{where}: '{key}' is {count}; it must be 1 or more.")
    for index, phase in enumerate(task.phases):
        if phase.steps % (task.environment.copies * task.evaluation.points):
            raise UsageError(
                f"{where} [[phases]] (phase {index}): 'steps' is {phase.steps}; it must be a "
                f"multiple of copies × points = {task.environment.copies} × "
                f"{task.evaluation.points}, so that every point lies on a step."
            )
    for wrapper in task.environment.wrappers:
        if not isinstance(wrapper.get("name"), str):
            raise UsageError(f"{where} [[environment.wrappers]]: each needs a 'name'.")
    try:
        json.dumps(task.canonical())
    except TypeError as error:
        raise UsageError(f"{where}: {error}; only JSON values can be kept.") from error
    return task
