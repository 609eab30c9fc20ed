"""Wrappers of environments with JSON options: the [[environment.wrappers]] of a task.

By name those of this package, by "file.py:Class" or "module:Class" any other: a class or function
that takes the environment and the options.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import FrameStackObservation, ReshapeObservation, TimeLimit

from ht_bench.envs.minatar import Boards
from ht_bench.errors import UsageError, did_you_mean, telling
from ht_bench.loading import is_reference, load_reference
from ht_bench.streams.tables import read_table

Environment = gymnasium.Env[Any, Any]
TASK_ID = "task-id"


@dataclass(frozen=True)
class AtariOptions:
    """Options of "atari": those of stable-baselines3's AtariWrapper, and `stack` frames.

    noop_max: at most as many no-ops after a reset. frame_skip: frames that an action lasts.
    screen_size: pixels of height and width. terminal_on_life_loss, clip_reward: in training only.
    """

    noop_max: int = 30
    frame_skip: int = 4
    screen_size: int = 84
    terminal_on_life_loss: bool = True
    clip_reward: bool = True
    stack: int = 4


@dataclass(frozen=True)
class MinAtarOptions:
    """Options of "minatar": `channels` of a board, at least the game's own; the others stay 0."""

    channels: int = 10


@dataclass(frozen=True)
class TimeLimitOptions:
    """Options of "time-limit": after `max_episode_steps` steps an episode is truncated."""

    max_episode_steps: int


@dataclass(frozen=True)
class TaskIdOptions:
    """Options of "task-id": none."""


OPTIONS: dict[str, type] = {
    "atari": AtariOptions,
    "minatar": MinAtarOptions,
    TASK_ID: TaskIdOptions,
    "time-limit": TimeLimitOptions,
}


def wrap(
    environment: Environment, wrapper: Mapping[str, Any], where: str, evaluation: bool = False
) -> Environment:
    """Return the environment in the wrapper `{"name": …, option: value, …}`.

    evaluation: without what serves training only, life-loss episodes and clipped rewards; a
    wrapper from outside is told if it has a parameter of this name. "task-id" is left to
    `ht_bench.envs.phase_environment`, which knows the task; here its options are checked and
    nothing is wrapped. `where` names the task in errors.
    Raises UsageError for an unknown name or option, or an environment the wrapper does not fit.
    """
    name = wrapper["name"]
    given = {key: value for key, value in wrapper.items() if key != "name"}
    if is_reference(name):
        return _from_outside(environment, name, given, where, evaluation)
    if name not in OPTIONS:
        raise UsageError(
            f"{where}: there is no wrapper '{name}'.{did_you_mean(name, OPTIONS)} "
            f"Known: {', '.join(OPTIONS)}, or file.py:Class."
        )
    options: Any = read_table(OPTIONS[name], given, f"{where}, wrapper '{name}'")
    if name == "atari":
        return _atari(environment, options, where, evaluation)
    if name == "minatar":
        return Boards(environment, options.channels, where)
    if name == "time-limit":
        return TimeLimit(environment, options.max_episode_steps)
    return environment


def _from_outside(
    environment: Environment, name: str, options: dict[str, Any], where: str, evaluation: bool
) -> Environment:
    make = load_reference(name)
    with telling(f"{where}: the wrapper '{name}' failed"):
        if "evaluation" in inspect.signature(make).parameters:
            options = {**options, "evaluation": evaluation}
        wrapped = make(environment, **options)
    if not isinstance(wrapped, gymnasium.Env):
        raise UsageError(
            f"{where}: the wrapper '{name}' returns {type(wrapped).__name__}, no environment."
        )
    return wrapped


def _atari(
    environment: Environment, options: AtariOptions, where: str, evaluation: bool
) -> Environment:
    """The preprocessing of stable-baselines3, then frames stacked to uint8 [stack, size, size]."""
    if importlib.util.find_spec("cv2") is None:
        raise UsageError(
            f"{where}: the wrapper 'atari' resizes frames with OpenCV, which is not installed; "
            "run `pip install 'ht-bench[atari]'`."
        )
    kwargs = environment.spec.kwargs if environment.spec else {}
    if not hasattr(environment.unwrapped, "ale"):
        raise UsageError(f"{where}: the wrapper 'atari' is for games of the ALE; take it out.")
    if options.frame_skip > 1 and kwargs.get("frameskip") != 1:
        raise UsageError(
            f"{where}: the game skips frames and so does the wrapper 'atari'; "
            "set frameskip = 1 in [environment.kwargs]."
        )
    from stable_baselines3.common.atari_wrappers import AtariWrapper

    settings = asdict(options)
    frames = settings.pop("stack")
    if evaluation:
        settings |= {"terminal_on_life_loss": False, "clip_reward": False}
    wrapped: Environment = AtariWrapper(environment, **settings)
    wrapped = ReshapeObservation(wrapped, (options.screen_size, options.screen_size))
    return FrameStackObservation(wrapped, frames)


class TaskIdObservation(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Puts a one-hot task id into the observation.

    A flat Box [n] becomes a Box [n + tasks] with the id at its end; a Dict gets the key
    "task_id", float32 [tasks]; anything else becomes a Dict of "observation" and "task_id".
    task_id: the id in every observation, among `tasks`; None for both reads it from `info`, as
    an `EnvironmentStream` gives it. Raises UsageError where it is found in neither.
    """

    def __init__(
        self, env: Environment, task_id: int | None = None, tasks: int | None = None
    ) -> None:
        RecordConstructorArgs.__init__(self, task_id=task_id, tasks=tasks)
        super().__init__(env)
        if tasks is None and not env.has_wrapper_attr("tasks"):
            raise UsageError(f"{env.unwrapped} does not say how many tasks it has; give tasks=….")
        self._task_id = task_id
        self._tasks = env.get_wrapper_attr("tasks") if tasks is None else tasks
        inner = env.observation_space
        self._appends = isinstance(inner, spaces.Box) and len(inner.shape) == 1
        one_hot = spaces.Box(0.0, 1.0, (self._tasks,), np.float32)
        if isinstance(inner, spaces.Box) and self._appends:
            low = np.append(inner.low, np.zeros(self._tasks, inner.dtype))
            high = np.append(inner.high, np.ones(self._tasks, inner.dtype))
            self.observation_space = spaces.Box(low, high, dtype=inner.dtype.type)
        elif isinstance(inner, spaces.Dict):
            self.observation_space = spaces.Dict({**inner.spaces, "task_id": one_hot})
        else:
            self.observation_space = spaces.Dict({"observation": inner, "task_id": one_hot})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset, and return the observation with its task id."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_id(observation, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and return the observation with its task id."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_id(observation, info), reward, terminated, truncated, info

    def _with_id(self, observation: Any, info: Mapping[str, Any]) -> Any:
        number = info.get("task_id") if self._task_id is None else self._task_id
        if number is None or not 0 <= number < self._tasks:
            raise UsageError(
                f"task_id = {number} in {self.env.unwrapped}; it must be one of 0 to "
                f"{self._tasks - 1}, given as task_id=… or by the environment's infos."
            )
        one_hot = np.zeros(self._tasks, np.float32)
        one_hot[number] = 1.0
        if self._appends:
            return np.append(observation, one_hot.astype(observation.dtype))
        if isinstance(observation, dict):
            return {**observation, "task_id": one_hot}
        return {"observation": observation, "task_id": one_hot}
