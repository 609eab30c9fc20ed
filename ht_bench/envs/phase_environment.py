"""The environment of one phase of a stream, from the task's spec alone."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ht_bench.envs.making import Environment, make
from ht_bench.envs.permutations import phase_order
from ht_bench.envs.physics import apply_physics
from ht_bench.envs.wrappers import TASK_ID, TaskIdObservation, wrap
from ht_bench.errors import UsageError
from ht_bench.streams.reinforcement import ReinforcementTask

_LARGEST = float(np.finfo(np.float32).max)
_checked: set[str] = set()


def make_phase(
    task: ReinforcementTask,
    seed: int,
    index: int,
    *,
    evaluation: bool = False,
    render_mode: str | None = None,
) -> Environment:
    """Return a new environment as phase `index` of stream `seed` has it.

    From the inside out: `gymnasium.make` with the phase's id and kwargs; its physics; the task's
    wrappers in order; the phase's permutations, drawn for (task, seed, phase) and never those of
    the phase before; "task-id", wherever it stands among the wrappers.

    All phases have the same spaces. Actions of a Box are rescaled to [-1, 1]. Observations without
    bounds have infinite ones, also where the environment writes the largest float for them; where
    a phase of the task permutes observations every entry has the loosest of all entries' bounds in
    all phases, so that any order fits.

    evaluation: without what serves training only (life-loss episodes, clipped rewards).
    Raises UsageError for a phase that is not there, whatever the environment refuses, a
    permutation it does not allow, and phases whose spaces differ.
    """
    if not 0 <= index < len(task.phases):
        last = len(task.phases) - 1
        raise UsageError(f"Task {task.name} has phases 0 to {last}, not {index}; choose one.")
    if task.sha256 not in _checked:
        _check_phases(task)
        _checked.add(task.sha256)
    return _build(task, seed, index, evaluation, render_mode)


def task_ids(task: ReinforcementTask) -> list[int]:
    """Return each phase's task id: phases with one environment share it, permuted ones never.

    Ids count from 0 in the order in which they first appear.
    """
    numbers: dict[str, int] = {}
    return [
        numbers.setdefault(_identity(task, index), len(numbers))
        for index in range(len(task.phases))
    ]


def _identity(task: ReinforcementTask, index: int) -> str:
    phase = task.phases[index]
    permuted = "permuted" in (phase.observations, phase.actions)
    facts = [task.environment_of(index), dict(phase.physics), index if permuted else None]
    return json.dumps(facts, sort_keys=True)


def _build(
    task: ReinforcementTask, seed: int, index: int, evaluation: bool, render_mode: str | None
) -> Environment:
    where = f"Task {task.name}, phase {index}"
    identifier, kwargs = task.environment_of(index)
    register = task.environment.register
    environment = make(identifier, kwargs, where, render_mode, register)
    apply_physics(environment.unwrapped, task.phases[index].physics, where)
    for wrapper in task.environment.wrappers:
        environment = wrap(environment, wrapper, where, evaluation)
    environment = _arrange(environment, task, seed, index)
    if any(wrapper["name"] == TASK_ID for wrapper in task.environment.wrappers):
        ids = task_ids(task)
        environment = TaskIdObservation(environment, ids[index], max(ids) + 1)
    return environment


def _check_phases(task: ReinforcementTask) -> None:
    """Make every phase once, so that what is wrong shows before hours of training; compare spaces.

    Phases that differ in their permutations alone are made from the same parts.
    """
    parts = [(task.environment_of(i), phase.physics) for i, phase in enumerate(task.phases)]
    different = [index for index, part in enumerate(parts) if part not in parts[:index]]
    if len(different) == 1:
        return
    made = [_build(task, 0, index, False, None) for index in different]
    for environment in made:
        environment.close()
    for index, environment in zip(different, made, strict=True):
        for name in ("observation_space", "action_space"):
            there, here = getattr(made[0], name), getattr(environment, name)
            if here != there:
                raise UsageError(
                    f"Task {task.name}: {name} is {there} in phase 0 and {here} in phase {index}; "
                    "all phases need the same one (full_action_space = true for several games)."
                )


def _arrange(
    environment: Environment, task: ReinforcementTask, seed: int, index: int
) -> Environment:
    """Permute, and set bounds, in one wrapper at most."""
    space = _observation_space(environment, task)
    observations = actions = None
    if task.phases[index].observations == "permuted":
        observations = phase_order(task, seed, index, "observations", space.shape[0])
    if any(phase.actions == "permuted" for phase in task.phases):
        order = phase_order(task, seed, index, "actions", _count(environment.action_space, task))
        actions = order if task.phases[index].actions == "permuted" else None
    box = environment.action_space
    rescaled = isinstance(box, spaces.Box) and not _is_unit(box)
    bounded = space != environment.observation_space
    if observations is None and actions is None and not rescaled and not bounded:
        return environment
    return _Arranged(environment, space, observations, actions, rescaled)


def _observation_space(environment: Environment, task: ReinforcementTask) -> Any:
    """Return the space with its true bounds, the loosest where a phase permutes observations."""
    space: Any = environment.observation_space
    permutes = any(phase.observations == "permuted" for phase in task.phases)
    box = isinstance(space, spaces.Box)
    if permutes and not (box and (len(space.shape) == 1 or _has_channels(environment))):
        raise UsageError(
            f"Task {task.name} permutes observations, which must be a flat Box and not {space}, or "
            'boards of the wrapper "minatar"; set observations = "true".'
        )
    space = _without_largest(space)
    if not permutes:
        return space
    low, high = np.full_like(space.low, space.low.min()), np.full_like(space.high, space.high.max())
    return spaces.Box(low, high, dtype=space.dtype.type)


def _has_channels(environment: Environment) -> bool:
    """Whether a wrapper, or the environment, says that its observations have channels first."""
    name = "channels_first"
    return environment.has_wrapper_attr(name) and environment.get_wrapper_attr(name) is True


def _without_largest(space: Any) -> Any:
    """Return the space with infinite bounds where they are the largest float there is."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _without_largest(inner) for key, inner in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([_without_largest(inner) for inner in space.spaces])
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        return space
    largest = min(_LARGEST, float(np.finfo(space.dtype).max))
    low = np.where(space.low <= -largest, -np.inf, space.low)
    high = np.where(space.high >= largest, np.inf, space.high)
    return spaces.Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype.type)


def _count(actions: spaces.Space[Any], task: ReinforcementTask) -> int:
    if not isinstance(actions, spaces.Discrete):
        raise UsageError(
            f"Task {task.name} permutes actions, which must be Discrete and not {actions}; "
            'set actions = "true".'
        )
    return int(actions.n)


def _is_unit(space: spaces.Box) -> bool:
    """Whether the actions are in [-1, 1] already, or cannot be put there."""
    bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
    return not bounded or bool((space.low == -1).all() and (space.high == 1).all())


class _Arranged(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment with permuted observations or actions, and bounds set anew."""

    def __init__(
        self,
        environment: Environment,
        space: spaces.Space[Any],
        observations: npt.NDArray[np.int64] | None = None,
        actions: npt.NDArray[np.int64] | None = None,
        rescaled: bool = False,
    ) -> None:
        super().__init__(environment)
        self.observation_space = space
        self._order = observations
        start = getattr(environment.action_space, "start", 0)
        self._start = start
        self._actions = None if actions is None else [int(a + start) for a in actions]
        self._rescaled = rescaled
        if rescaled:
            box: Any = environment.action_space
            self._low, self._width = box.low, box.high - box.low
            self.action_space = spaces.Box(-1.0, 1.0, box.shape, box.dtype.type)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return (observation if self._order is None else observation[self._order]), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._actions is not None:
            if not self.action_space.contains(action):
                raise UsageError(f"The action {action!r} is none of {self.action_space}.")
            action = self._actions[action - self._start]
        elif self._rescaled:
            action = self._low + (np.clip(action, -1.0, 1.0) + 1.0) * 0.5 * self._width
        if self._order is None:
            return self.env.step(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation[self._order], reward, terminated, truncated, info
