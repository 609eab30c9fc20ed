"""A task of environments: a stream of phases for a reinforcement-learning agent. No torch here.

PROTOCOL, "Streams": a phase is an environment id with JSON keyword arguments, wrappers by name,
and a budget in environment steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ht_bench.errors import UsageError, shown
from ht_bench.streams.spec import Spec, check_finite, read_spec

ALGORITHMS = ("ppo", "a2c", "dqn", "qrdqn", "sac", "td3")


@dataclass(frozen=True)
class EnvironmentSpec:
    """What every phase's environment is made from.

    id: a Gymnasium id, a registered name, or "file.py:Class". register: a module or Python file to
    import first, which registers the id. kwargs: its keyword arguments, JSON. wrappers: names, or
    "file.py:Class", with options, applied in order (`ht_bench.envs.wrappers`). copies: environments
    that the agent steps side by side.
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[Mapping[str, Any], ...] = ()
    copies: int = 1
    register: str = ""


@dataclass(frozen=True)
class AgentSpec:
    """The stable-baselines3 agent every method trains.

    settings: arguments of its constructor. network: arguments of its policy (`policy_kwargs`)
    without the plasticity. Both are JSON. replay_ratio: of an off-policy agent, the updates per
    environment step; it takes the place of the setting `gradient_steps`. fast: train with less to
    do, equal within rounding and so to other numbers (`ht_bench.sb3.fast`).
    """

    algorithm: Literal["ppo", "a2c", "dqn", "qrdqn", "sac", "td3"]
    policy: Literal["mlp", "cnn", "multi-input", "data-efficient", "minatar"] = "mlp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    replay_ratio: float | None = None
    fast: bool = False


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
    permuted anew in the phase, never as in the phase before it; of a board its channels.
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


LARGEST = {
    "environment.copies": 1_000,
    "evaluation.episodes": 100_000,
    "evaluation.points": 10_000,
}
LARGEST_SETTING = 10**8
"""Whole numbers among an agent's settings at most: buffers are made of them."""
WIDEST, LARGEST_NETWORK = 2**16, 2**28
"""Units of a layer, and weights between the layers of `net_arch`, at most."""
COUNTS = (
    *("n_steps", "batch_size", "buffer_size", "n_epochs", "target_update_interval"),
    *("train_freq", "policy_delay", "n_quantiles"),
)
"""Settings that are counts of one or more."""


def is_number(value: Any) -> bool:
    """Whether a value is a number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_agent(agent: AgentSpec, where: str) -> None:
    """Refuse what stable-baselines3 would compute with, or allocate, before it looks."""
    if agent.replay_ratio is not None and not 0 < agent.replay_ratio <= LARGEST_SETTING:
        raise UsageError(f"{where} [agent]: 'replay_ratio' is {agent.replay_ratio}; above 0.")
    for key, value in agent.settings.items():
        place = f"{where} [agent.settings]: '{key}' is {shown(value)}"
        if isinstance(value, int) and abs(value) > LARGEST_SETTING:
            raise UsageError(f"{place}; at most {LARGEST_SETTING:,} is read.")
        by_unit = key == "train_freq" and isinstance(value, list)  # [1, "episode"]
        count = value[0] if by_unit and value else value
        if key in COUNTS and (not isinstance(count, int) or count is True or count < 1):
            raise UsageError(f"{place}; it must be a whole number of 1 or more.")
    noise = agent.settings.get("action_noise", {"size": 1, "normal": 0.1})
    if not (
        isinstance(noise, Mapping)
        and set(noise) == {"size", "normal"}
        and type(noise["size"]) is int
        and 1 <= noise["size"] <= WIDEST
        and is_number(noise["normal"])
        and noise["normal"] >= 0
    ):
        raise UsageError(
            f"{where} [agent.settings]: 'action_noise' is {shown(noise)}; write "
            "{ size = 1, normal = 0.1 }, the numbers in an action and their standard deviation."
        )
    _check_widths(agent.network, f"{where} [agent.network]")
    _check_widths(agent.settings.get("policy_kwargs"), f"{where} [agent.settings]: 'policy_kwargs'")


def _check_widths(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_widths(item, f"{where}: '{key}'")
    elif isinstance(value, int) and abs(value) > WIDEST:
        raise UsageError(f"{where} is {value}; at most {WIDEST:,} is read.")
    elif isinstance(value, list | tuple):
        widths = [width for width in value if isinstance(width, int)]
        if min(widths, default=1) < 1:
            raise UsageError(f"{where} is {list(value)[:6]}; a layer has 1 unit or more.")
        weights = sum(a * b for a, b in itertools.pairwise(widths))
        if max(widths, default=0) > WIDEST or weights > LARGEST_NETWORK:
            raise UsageError(
                f"{where} is {list(value)[:6]}; a layer may have {WIDEST:,} units, and two layers "
                f"{LARGEST_NETWORK:,} weights between them."
            )


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
    for key, most in LARGEST.items():
        if counts[key] > most:
            raise UsageError(f"{where}: '{key}' is {counts[key]:,}; at most {most:,} is read.")
    _check_agent(task.agent, where)
    for index, phase in enumerate(task.phases):
        if phase.steps % (task.environment.copies * task.evaluation.points):
            raise UsageError(
                f"{where} [[phases]] (phase {index}): 'steps' is {phase.steps}; it must be a "
                f"multiple of copies × points = {task.environment.copies} × "
                f"{task.evaluation.points}, so that every point lies on a step."
            )
        for name, value in phase.physics.items():
            if not is_number(value):
                raise UsageError(
                    f"{where} [[phases]] (phase {index}): 'physics.{name}' is {shown(value)}; it "
                    "must be a number."
                )
    for wrapper in task.environment.wrappers:
        if not isinstance(wrapper.get("name"), str):
            raise UsageError(f"{where} [[environment.wrappers]]: each needs a 'name'.")
    check_finite(task, where)
    return task
