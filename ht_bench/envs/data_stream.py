"""A stream of data as a Gymnasium environment: an observation is an example, an action a class."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ht_bench.envs.autoreset import whole_seed
from ht_bench.envs.examples import Examples, Floats, PhaseExamples, Pixels, normalise, pixel_box
from ht_bench.errors import UsageError, did_you_mean
from ht_bench.streams.catalog import get_task
from ht_bench.streams.data import load
from ht_bench.streams.stream import Indices, Split, Stream
from ht_bench.streams.task import Task

Shape = Literal["flat", "image"]


class Cursor:
    """Where an environment stands in its stream, and what it serves there.

    Shared by both forms. `phase` and `epoch` count from 0; `position`: examples answered in this
    episode of `length` examples; `changed`: whether the reset just made entered another phase;
    `task_ids`: each phase's, counted from 0 in the order in which they first appear.
    """

    def __init__(
        self, task: str | Path | Task | None, split: Split, examples: Examples, shape: Shape
    ) -> None:
        check_choice("split", split, get_args(Split))
        check_choice("examples", examples, get_args(Examples))
        check_choice("shape", shape, get_args(Shape))
        self.task = _supervised(task)
        self.task_ids = _task_ids(self.task)
        self.data = load(self.task.data.name)
        self._split, self._examples, self._flat = split, examples, shape == "flat"
        self.image_shape = self.data.train_images.shape[1:]
        self.started = self.changed = False
        self._order, self.length, self.position = np.empty(0, np.int64), 0, 0

    def box(self) -> spaces.Box:
        """Return the space of one observation."""
        shape = (int(np.prod(self.image_shape)),) if self._flat else self.image_shape
        return pixel_box(self.data, shape)

    def reset(self, seed: int | None, options: Mapping[str, Any] | None) -> None:
        """Begin an episode: stream `seed` from its start, the phase asked for, or what follows.

        Raises UsageError for an unknown option or phase.
        """
        phase = self._asked_phase(options or {})
        before = self.phase if self.started and seed is None else phase or 0
        if seed is not None:
            self._stream = Stream(self.task, self.data, seed, self._split)
            self.started = True
        if seed is not None or phase is not None:
            self._enter(phase or 0)
        elif self.done:
            self._proceed()
        else:
            self.position = 0
        self.changed = self.phase != before

    def _asked_phase(self, options: Mapping[str, Any]) -> int | None:
        for key in options:
            check_choice("reset option", key, ("phase",))
        last = len(self.task.phases) - 1
        asked = options.get("phase")
        if asked is None:
            return None
        if not isinstance(asked, int | np.integer) or isinstance(asked, bool):
            raise UsageError(f"options: phase = {asked!r}; give a whole number from 0 to {last}.")
        if not 0 <= asked <= last:
            raise UsageError(
                f"options: phase = {asked}, but {self.task.name} has phases 0 to {last}."
            )
        return operator.index(asked)

    def _enter(self, phase: int) -> None:
        self.phase, self.epoch, self._earlier = phase, 0, 0
        self.examples = PhaseExamples(self._stream, phase, self._examples)
        self._open_epoch()

    def _proceed(self) -> None:
        self._earlier += self.length
        if self._earlier == self.examples.budget and self.phase + 1 < len(self.task.phases):
            self._enter(self.phase + 1)
        else:
            self.epoch += 1
            self._open_epoch()

    def _open_epoch(self) -> None:
        """The phase's budget may end its last epoch early; past the stream's end, none is."""
        left = self.examples.budget - self._earlier
        self._order = self.examples.start_epoch(self.epoch)[: left if left > 0 else None]
        self.length, self.position = len(self._order), 0

    @property
    def done(self) -> bool:
        """Whether the episode is over, or none has begun."""
        return self.position == self.length

    def upcoming(self, count: int) -> Indices:
        """Return the next `count` examples to be answered, or as many as are left."""
        return self._order[self.position : self.position + count]

    def pixels(self, count: int) -> Pixels:
        """Return the images of the upcoming examples, augmented where the phase says so."""
        return self.examples.pixels(self.position, min(self.position + count, self.length))

    def answer(self, count: int) -> tuple[Indices, Indices]:
        """Return (labels, true labels) of the upcoming examples, which are then behind.

        Raises UsageError where the episode has none left.
        """
        if self.done:
            raise UsageError("There is no example to classify; call reset() to begin an episode.")
        indices = self.upcoming(count)
        self.position += len(indices)
        self.changed = False
        return self.examples.labels[indices], self.examples.true_labels[indices]

    def observe(self, count: int) -> Floats:
        """Return `count` observations: the upcoming examples, and zeros where there are none."""
        batch = np.zeros((count, *self.image_shape), np.float32)
        pixels = normalise(self.data, self.pixels(count))
        batch[: len(pixels)] = self.examples.permute(pixels)
        return batch.reshape(count, -1) if self._flat else batch

    def steps(self, count: int, resets: int = 0) -> list[int]:
        """Return the steps of `count` examples that each phase lasts; partial ones count.

        resets: steps that the beginning of an epoch takes, but for the stream's first one.
        """
        if not self.started:
            raise UsageError("How long phases are depends on the seed; call reset(seed=…) first.")
        steps = []
        for index in range(len(self.task.phases)):
            examples = PhaseExamples(self._stream, index, self._examples)
            epochs, rest = divmod(examples.budget, examples.count)
            begun = resets * (epochs + bool(rest) - (index == 0))
            served = epochs * math.ceil(examples.count / count) + math.ceil(rest / count)
            steps.append(served + begun)
        return steps

    def info(self) -> dict[str, Any]:
        """Return the keys that every info has."""
        return {
            "phase": self.phase,
            "task_id": self.task_ids[self.phase],
            "phase_step": self._earlier + self.position,
            "phase_changed": self.changed,
        }


class DataStreamEnv(gymnasium.Env[Floats, np.int64]):
    """A stream of data: observe an example, answer with a class, earn 1.0 for its label, or 0.0.

    task: a task's name, the path of its TOML file, or a Task. split: "test" or "validation".
    examples: "train", a phase's training examples as the training loop serves them (same
    order, labels, normalisation and augmentation); or "test", the phase's test view in order.
    shape: "flat", float32 [features], or "image", float32 [C, H, W]. render_mode: "rgb_array".

    An episode is one epoch: the last step has `truncated`, and an observation of zeros since
    none follows. A phase lasts as many examples as the task's budget trains on ("test": one pass);
    where the budget ends within an epoch, so does the episode. `reset(seed=s)` begins stream s at
    phase 0; a plain `reset()` begins the next epoch, in the next phase once the budget is used up,
    and after the last phase further epochs of it. Before the episode's end it begins the same
    epoch again, and the budget counts nothing of what was broken off. `reset(options={"phase":
    k})` goes to the start of phase k. Without any seed, one is drawn.

    Every info holds `phase`; `task_id` (equal in phases where equal inputs have equal labels);
    `phase_step`, the examples answered in the phase; `phase_changed`, true in the one reset info
    with which another phase begins than the one before in the stream. A step's info also holds
    `label`, which was rewarded, and `true_label`, which differs where the stream's is wrong.

    Raises UsageError for an unknown task, option or phase, for a task of environments, for an
    action that is no class, and for a step where no episode is open.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        task: str | Path | Task | None = None,
        split: Split = "test",
        examples: Examples = "train",
        shape: Shape = "flat",
        render_mode: str | None = None,
    ) -> None:
        self._cursor = Cursor(task, split, examples, shape)
        self.task, self.tasks = self._cursor.task, max(self._cursor.task_ids) + 1
        self.observation_space = self._cursor.box()  # type: ignore[assignment]
        self.action_space = spaces.Discrete(self._cursor.data.classes)
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode (see the class) and return its first example."""
        seed = whole_seed(seed)
        super().reset(seed=seed)
        if seed is None and not self._cursor.started:
            seed = draw_seed(self.np_random)
        self._cursor.reset(seed, options)
        return self._cursor.observe(1)[0], self._cursor.info()

    def step(self, action: np.int64) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Answer the present example with the class `action`; return the next example."""
        if not self.action_space.contains(action):
            raise not_a_class(action, self._cursor)
        labels, true_labels = self._cursor.answer(1)
        answers = {"label": int(labels[0]), "true_label": int(true_labels[0])}
        reward = float(action == answers["label"])
        info = {**answers, **self._cursor.info()}
        return self._cursor.observe(1)[0], reward, False, self._cursor.done, info

    @property
    def phase_lengths(self) -> list[int]:
        """Steps that each phase lasts; raises UsageError before a first reset."""
        return self._cursor.steps(1)

    def render(self) -> npt.NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the present example, uint8 [H, W, 3] (black where there is none)."""
        cursor = self._cursor
        if self.render_mode is None:
            return None
        image = np.zeros((1, *cursor.image_shape), np.uint8)
        if not cursor.done:
            image = cursor.examples.permute(cursor.pixels(1))
        bright = (image[0] * (255 / cursor.data.max_value)).astype(np.uint8)
        return np.broadcast_to(bright, (3, *cursor.image_shape[1:])).transpose(1, 2, 0).copy()


def check_choice(what: str, given: object, choices: Collection[str]) -> None:
    """Raise UsageError unless `given` is one of `choices`."""
    if given not in choices:
        nearest = did_you_mean(str(given), choices)
        raise UsageError(f"Unknown {what} {given!r}.{nearest} Known: {', '.join(choices)}.")


def draw_seed(draw: np.random.Generator) -> int:
    """Return the seed of a stream that nobody chose."""
    return int(draw.integers(2**31))


def not_a_class(action: object, cursor: Cursor) -> UsageError:
    """Return the error of an action that names no class."""
    last = cursor.data.classes - 1
    return UsageError(f"The action {action!r} is no class of {cursor.data.name}; give 0 to {last}.")


def _task_ids(task: Task) -> list[int]:
    """Phases with the true inputs and labels share an id, changed ones never."""
    numbers: dict[int, int] = {}
    ids = []
    for index, phase in enumerate(task.phases):
        same = phase.inputs == "true" and phase.labels == "true"
        ids.append(numbers.setdefault(-1 if same else index, len(numbers)))
    return ids


def _supervised(task: str | Path | Task | None) -> Task:
    if task is None:
        raise UsageError(
            "A stream of data needs a task: "
            'gymnasium.make("ht_bench/DataStream-v1", task="warm-start-digits-v1"); '
            "`ht-bench list tasks` shows all of them."
        )
    spec = get_task(task)
    if not isinstance(spec, Task):
        raise UsageError(
            f"{spec.name} streams environments, not data; "
            f'use `gymnasium.make("ht_bench/EnvironmentStream-v1", task="{spec.name}")`.'
        )
    return spec
