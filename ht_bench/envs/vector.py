"""The vector form of a stream of data: one step serves a batch of the training loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ht_bench.envs import autoreset
from ht_bench.envs.autoreset import DISABLED, NEXT_STEP, SAME_STEP
from ht_bench.envs.data_stream import Cursor, Shape, draw_seed, not_a_class
from ht_bench.envs.examples import Examples, Floats
from ht_bench.errors import UsageError
from ht_bench.streams.stream import Split
from ht_bench.streams.task import Task

NO_LABEL = -1
"""The label of a row that held no example."""


class DataStreamVectorEnv(gymnasium.vector.VectorEnv[Floats, npt.NDArray[Any], npt.NDArray[Any]]):
    """One stream of data whose every step serves `num_envs` examples, in the stream's order.

    num_envs: examples of a step; None takes the task's batch, and then the steps are exactly the
    training loop's. The other arguments, phases, resets and infos are `DataStreamEnv`'s, with
    every value of an info an array [num_envs]; `phase_step` counts examples, all rows together.

    An epoch's last batch may be partial: its last rows then hold no example. Every info has
    `valid`, bool [num_envs], which rows of the observation it came with hold one; the others are
    zeros, may be answered with anything, earn 0.0, and have the label -1.

    At the end of an epoch `truncations` is true in all rows. autoreset_mode, one of Gymnasium's:
    "SameStep": the observation is already the next epoch's or phase's first batch, the step's
    infos tell of the new episode, `final_obs` (zeros) and `final_info` of the old one.
    "NextStep", which Gymnasium's wrappers that normalise observations ask for: the observation is
    zeros, and the next step, whatever its actions, serves the first batch; it earns nothing and
    has the label -1. Both go through the whole stream in `sum(env.unwrapped.phase_lengths)` steps.
    "Disabled": `reset()` begins the next epoch. `label` and `true_label` always belong to the
    batch that was answered.

    Raises UsageError as `DataStreamEnv` does, for a seed that is a list or a reset of some rows,
    since there is one stream, and for a step after an epoch's end where autoreset is disabled.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "autoreset_mode": SAME_STEP,
    }

    def __init__(
        self,
        task: str | Path | Task | None = None,
        split: Split = "test",
        examples: Examples = "train",
        shape: Shape = "flat",
        num_envs: int | None = None,
        autoreset_mode: AutoresetMode | str = SAME_STEP,
    ) -> None:
        self._mode, self._ended = autoreset.autoreset_mode(autoreset_mode), False
        self.metadata = {**self.metadata, "autoreset_mode": self._mode}
        self._cursor = Cursor(task, split, examples, shape)
        self.task, self.tasks = self._cursor.task, max(self._cursor.task_ids) + 1
        count = self._cursor.task.training.batch if num_envs is None else num_envs
        if count < 1:
            raise UsageError(f"num_envs = {count}; a step serves 1 example or more.")
        self.num_envs = count
        self.single_observation_space = self._cursor.box()
        self.single_action_space = spaces.Discrete(self._cursor.data.classes)
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin an epoch and return its first batch [num_envs, …]."""
        if isinstance(seed, list | tuple):
            raise UsageError(f"All rows share one stream, so seed = {seed} must be one number.")
        options, mask = autoreset.split_mask(options, self.num_envs)
        if mask is not None and not mask.all():
            raise UsageError("All rows share one stream, so reset_mask must be True in all rows.")
        seed = autoreset.whole_seed(seed)
        super().reset(seed=seed)
        if seed is None and not self._cursor.started:
            seed = draw_seed(self.np_random)
        self._cursor.reset(seed, options)
        self._ended = False
        return self._cursor.observe(self.num_envs), self._info()

    def step(
        self, actions: npt.NDArray[Any]
    ) -> tuple[Floats, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """Answer the present batch with `actions`, int [num_envs]; return the next batch."""
        if self._ended:
            return self._begin_epoch()
        answers = self._answers(actions)
        labels, true_labels = self._cursor.answer(self.num_envs)
        rewards = np.zeros(self.num_envs)
        rewards[: len(labels)] = answers == labels
        answered = {"label": self._padded(labels), "true_label": self._padded(true_labels)}
        done = self._cursor.done
        infos: dict[str, Any] = {}
        if done and self._mode is SAME_STEP:
            infos = self._next_episode(answered)
        self._ended = done and self._mode is not SAME_STEP
        infos |= {**self._info(), **answered}
        ended = np.full(self.num_envs, done)
        return self._cursor.observe(self.num_envs), rewards, np.zeros_like(ended), ended, infos

    def _begin_epoch(self) -> Any:
        """Spend a step on the reset that the end of an epoch asks for."""
        if self._mode is DISABLED:
            raise autoreset.must_be_reset()
        observation, infos = self.reset()
        none = np.zeros(self.num_envs, np.bool_)
        unanswered = self._padded(np.empty(0, np.int64))
        infos |= {"label": unanswered, "true_label": unanswered.copy()}
        return observation, np.zeros(self.num_envs), none, none.copy(), infos

    def _answers(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the actions of the rows that hold an example."""
        given = np.asarray(actions)
        if given.shape != (self.num_envs,) or not np.issubdtype(given.dtype, np.integer):
            raise UsageError(
                f"The actions are {given.dtype} {list(given.shape)}; "
                f"give whole numbers, [{self.num_envs}]."
            )
        answers = given[: len(self._cursor.upcoming(self.num_envs))]
        outside = (answers < 0) | (answers >= self._cursor.data.classes)
        if outside.any():
            raise not_a_class(int(answers[outside][0]), self._cursor)
        return answers

    def _next_episode(self, answered: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Go on in the stream; return the infos of the episode that ended."""
        ended = {key: value.copy() for key, value in answered.items()}
        final = {
            "final_obs": self._cursor.observe(self.num_envs),
            "final_info": {**self._info(), **ended},
        }
        self._cursor.reset(None, None)
        return {**final, **{f"_{key}": np.ones(self.num_envs, np.bool_) for key in final}}

    def _info(self) -> dict[str, Any]:
        present = len(self._cursor.upcoming(self.num_envs))
        values = {key: np.full(self.num_envs, v) for key, v in self._cursor.info().items()}
        return {**values, "valid": np.arange(self.num_envs) < present}

    def _padded(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        padding = (0, self.num_envs - len(labels))
        return np.pad(labels, padding, constant_values=NO_LABEL)

    @property
    def phase_lengths(self) -> list[int]:
        """Steps that each phase lasts, with those that "NextStep" spends on resets.

        Raises UsageError before a first reset.
        """
        return self._cursor.steps(self.num_envs, int(self._mode is NEXT_STEP))
