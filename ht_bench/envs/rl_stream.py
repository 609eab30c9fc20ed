"""A stream of environments as one Gymnasium environment that owns the schedule of phases."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ht_bench.envs import autoreset
from ht_bench.envs.autoreset import DISABLED, NEXT_STEP, SAME_STEP, whole_seed
from ht_bench.envs.making import Environment
from ht_bench.envs.phase_environment import make_phase, task_ids
from ht_bench.errors import UsageError, did_you_mean
from ht_bench.streams.catalog import get_task
from ht_bench.streams.reinforcement import ReinforcementTask


class EnvironmentStream(gymnasium.Env[Any, Any]):
    """The phases of a task of environments in turn: one environment that changes.

    task: a task's name, the path of its TOML file, or a ReinforcementTask. copies: how many
    copies of the environment share the task's budgets. stream: the stream's number, which draws
    its permutations; None takes it from the seed of `reset`. evaluation: without what serves
    training only. render_mode: "rgb_array".

    `reset(seed=s)` begins stream s at phase 0. A phase lasts ceil(steps / copies) of a copy's
    own steps. The last of them has `truncated`; a boundary is never `terminated`, which stays what
    the inner episode says. Then a plain `reset()` begins the next phase, in a new inner
    environment; before, it begins another episode of the same phase, and the budget runs on.
    `reset(options={"phase": k})` goes to the start of phase k. After the last phase no boundary
    follows: the stream stays in it. Without any seed, one is drawn. Copies in a vector
    environment get consecutive seeds, so where phases are permuted they need one `stream`:
    a number here, or `options={"stream": s}` with the seed; the vector form gives it by itself.

    Every info holds `phase`; `task_id` (equal in phases with equal environments); `phase_step`,
    this copy's steps in the phase; `phase_changed`, true in the one reset info with which
    another phase begins than the one before in the stream.

    Raises UsageError for an unknown task, option or phase, for a task of data, for whatever a
    phase's environment refuses, and for a step after the end of a phase.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    _OPTIONS: ClassVar = ("phase", "stream")

    def __init__(
        self,
        task: str | Path | ReinforcementTask | None = None,
        copies: int = 1,
        stream: int | None = None,
        evaluation: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.task = _of_environments(task)
        if not _is_whole(copies) or copies < 1:
            raise UsageError(f"copies = {copies!r}; a stream has 1 copy or more, a whole number.")
        self._copies, self._given_stream, self._evaluation = copies, _number(stream), evaluation
        self._task_ids = task_ids(self.task)
        self.tasks = max(self._task_ids) + 1
        self.render_mode = render_mode
        self.counts_resets = False
        self._phase: int | None = None
        self._phase_step, self._limit, self._over = 0, math.inf, True
        self._inner = self._make(0, stream or 0)
        self.observation_space = self._inner.observation_space
        self.action_space = self._inner.action_space

    @property
    def phase_lengths(self) -> list[int]:
        """Steps of one copy that each phase lasts."""
        return [-(-phase.steps // self._copies) for phase in self.task.phases]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode (see the class) and return its first observation."""
        seed = whole_seed(seed)
        super().reset(seed=seed)
        asked = self._asked_phase(options or {})
        stream = _number((options or {}).get("stream"))
        if stream is not None and seed is None:
            raise UsageError(f"options: stream = {stream} begins another stream; give a seed too.")
        before = self._phase if seed is None else None
        if seed is None and self._phase is None:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self._begin(seed, stream)
        if seed is not None or asked is not None:
            observation, info = self._enter(asked or 0)
        else:
            observation, info = self._go_on()
        changed = before is not None and self._phase != before
        return observation, self._told(info, changed)

    def _go_on(self) -> tuple[Any, dict[str, Any]]:
        """Begin another episode, of the next phase where this one is over.

        In a vector whose resets take steps, this one counts, so that all copies stay in step;
        where it is the phase's last step, the next phase begins with it.
        """
        at_boundary = self._over
        if not at_boundary and self.counts_resets:
            self._phase_step += 1
        if not at_boundary and self._phase_step < self._limit:
            return self._inner.reset()
        begun = self._enter((self._phase or 0) + 1)
        self._phase_step = int(at_boundary and self.counts_resets)
        return begun

    def _begin(self, seed: int, stream: int | None) -> None:
        self._seed = seed
        if stream is None:
            stream = self._given_stream
        phases = self.task.phases
        permuted = any("permuted" in (phase.observations, phase.actions) for phase in phases)
        if stream is None and self._copies > 1 and permuted:
            raise UsageError(
                f"{self._copies} copies of {self.task.name} must see the same permutations; give "
                "them all the same stream=…, or use `gymnasium.make_vec`, which does."
            )
        self._stream = seed if stream is None else stream

    def _asked_phase(self, options: Mapping[str, Any]) -> int | None:
        for name in options:
            if name not in self._OPTIONS:
                raise UsageError(
                    f"Unknown reset option '{name}'.{did_you_mean(name, self._OPTIONS)} "
                    f"Known: {', '.join(self._OPTIONS)}."
                )
        asked, last = options.get("phase"), len(self.task.phases) - 1
        if asked is None:
            return None
        if not _is_whole(asked) or not 0 <= asked <= last:
            raise UsageError(
                f"options: phase = {asked!r}, but {self.task.name} has phases 0 to {last}."
            )
        return operator.index(asked)

    def _enter(self, phase: int) -> tuple[Any, dict[str, Any]]:
        """Begin a phase in a new environment: a game's mode does not survive a seeded reset."""
        self._inner.close()
        self._inner = self._make(phase, self._stream)
        self._phase, self._phase_step, self._over = phase, 0, False
        is_last = phase == len(self.task.phases) - 1
        self._limit = math.inf if is_last else self.phase_lengths[phase]
        key = np.random.SeedSequence([self._stream, self._seed, phase])
        return self._inner.reset(seed=int(key.generate_state(1)[0]) % 2**31)

    def _make(self, phase: int, stream: int) -> Environment:
        return make_phase(
            self.task, stream, phase, evaluation=self._evaluation, render_mode=self.render_mode
        )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the phase's environment; `truncated` ends its episode or the phase."""
        if self._over:
            raise UsageError("No phase is open; call reset() to begin the stream's next one.")
        observation, reward, terminated, truncated, info = self._inner.step(action)
        self._phase_step += 1
        self._over = self._phase_step >= self._limit
        ended = bool(truncated) or self._over
        return observation, float(reward), bool(terminated), ended, self._told(info, False)

    def _told(self, info: Mapping[str, Any], changed: bool) -> dict[str, Any]:
        phase = self._phase or 0
        return {
            **info,
            "phase": phase,
            "task_id": self._task_ids[phase],
            "phase_step": self._phase_step,
            "phase_changed": changed,
        }

    def render(self) -> Any:
        """Return what the phase's environment renders, or None without a render mode."""
        return None if self.render_mode is None else self._inner.render()

    def close(self) -> None:
        """Close the phase's environment."""
        self._inner.close()


class EnvironmentStreams(SyncVectorEnv):
    """Copies of one stream that change phase in lockstep, each with episodes of its own.

    `reset(seed=s)` begins stream s in all copies. autoreset_mode, one of Gymnasium's: "SameStep",
    where a reset costs no step of a budget; "NextStep", which Gymnasium's wrappers that normalise
    observations ask for, where it costs one of the copy that it resets; or "Disabled", where
    `reset(options={"reset_mask": …})` is the caller's. Raises UsageError for a seed that is a list,
    since there is one stream, and for a step after an episode's end where autoreset is disabled.
    """

    def __init__(
        self, num_envs: int, autoreset_mode: AutoresetMode | str = SAME_STEP, **kwargs: Any
    ) -> None:
        if "copies" in kwargs:
            raise UsageError("The vector form sets copies = num_envs; leave 'copies' out.")
        if num_envs < 1:
            raise UsageError(f"num_envs = {num_envs}; a stream has 1 copy or more.")
        make = functools.partial(EnvironmentStream, copies=num_envs, **kwargs)
        mode = autoreset.autoreset_mode(autoreset_mode)
        super().__init__([make] * num_envs, autoreset_mode=mode)
        self._begun, self._stream = False, kwargs.get("stream")

    @property
    def task(self) -> ReinforcementTask:
        """The task whose phases are streamed."""
        return self._first.task

    @property
    def tasks(self) -> int:
        """How many task ids there are."""
        return self._first.tasks

    @property
    def phase_lengths(self) -> list[int]:
        """Steps of the vector that each phase lasts."""
        return self._first.phase_lengths

    @property
    def _first(self) -> EnvironmentStream:
        stream: Any = self.envs[0].unwrapped
        return stream  # type: ignore[no-any-return]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes in all copies; see `EnvironmentStream`."""
        if isinstance(seed, list | tuple):
            raise UsageError(f"All copies share one stream, so seed = {seed} must be one number.")
        seed = whole_seed(seed)
        others, mask = autoreset.split_mask(options, self.num_envs)
        if seed is None and not self._begun:
            seed = int(self._first.np_random.integers(2**31))
        if seed is not None and self._stream is None:
            others = {"stream": seed, **others}
        self._begun = True
        masked = {} if mask is None else {"reset_mask": mask}
        return super().reset(seed=seed, options={**others, **masked})

    def step(self, actions: Any) -> Any:
        """Step all copies, or reset those whose episode is over, as `autoreset_mode` says."""
        if self.autoreset_mode is DISABLED and self._autoreset_envs.any():
            raise autoreset.must_be_reset()
        streams: list[Any] = [single.unwrapped for single in self.envs]
        for stream in streams:
            stream.counts_resets = self.autoreset_mode is NEXT_STEP
        try:
            return super().step(actions)
        finally:
            for stream in streams:
                stream.counts_resets = False


def make_vector(num_envs: int = 1, **kwargs: Any) -> EnvironmentStreams:
    """Return `num_envs` copies of one stream; `kwargs` are `EnvironmentStream`'s."""
    return EnvironmentStreams(num_envs, **kwargs)


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _number(stream: Any) -> int | None:
    if stream is not None and not (_is_whole(stream) and stream >= 0):
        raise UsageError(f"stream = {stream!r}; give a whole number, 0 or more.")
    return None if stream is None else operator.index(stream)


def _of_environments(task: str | Path | ReinforcementTask | None) -> ReinforcementTask:
    if task is None:
        raise UsageError(
            "A stream of environments needs a task: "
            'gymnasium.make("ht_bench/EnvironmentStream-v1", task="swap-cartpole-dqn-v1"); '
            "`ht-bench list tasks` shows all of them."
        )
    spec = get_task(task)
    if not isinstance(spec, ReinforcementTask):
        raise UsageError(
            f"{spec.name} streams data, not environments; "
            f'use `gymnasium.make("ht_bench/DataStream-v1", task="{spec.name}")`.'
        )
    return spec
