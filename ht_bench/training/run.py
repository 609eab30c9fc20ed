"""What both loops share: a position in the stream, a history, a checkpoint to go on from."""

from __future__ import annotations

import dataclasses
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.networks.disturbance import disturb
from ht_bench.streams.randomness import key
from ht_bench.training import checkpoint
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.device import Compute
from ht_bench.training.diagnosing import Schedule
from ht_bench.training.history import History, Interrupted, Observer

PAYS = 50.0
"""A checkpoint pays after so many times what saving the last one took: a fiftieth at most."""
FIRST = 0.1
"""Seconds that saving is taken to take, at phase boundaries, before any was measured."""


@dataclass
class Position:
    """Where a run stands: before step `step` of phase `phase`.

    recorded: points of the curve that the phase has. draws: fresh weights drawn in it. allowed:
    how many of its steps the method trains.
    """

    phase: int = 0
    step: int = 0
    recorded: int = 0
    draws: int = 0
    allowed: int = 0


class Run(ABC):
    """A stack of seeds of one task and method.

    `train()` runs to the end (or goes on from its checkpoint) and returns the History. planned:
    each phase's steps. steps_taken: optimizer steps. seconds: spent training, in all processes:
    data, steps and the method's acts; evaluation_seconds: spent on points of the curve and
    diagnostics instead. Checkpoints count nowhere. most_held: the most bytes of tensors that were
    held at a point of the curve or after a phase's first step: a method may let go of some between.
    twin: 0, or the number of a rounding twin: the same run from weights whose last bits differ.
    diagnostics: when and with what it is diagnosed, which decides no bit of training.
    """

    twin: int = 0
    diagnostics: Schedule = Schedule()

    def __init__(
        self, seeds: Sequence[int], planned: Sequence[int], compute: Compute | None
    ) -> None:
        self.seeds, self.planned = tuple(seeds), list(planned)
        self.compute = compute or Compute()
        self.position, self.history = Position(), History(len(self.seeds))
        self.steps_taken, self.seconds, self.evaluation_seconds = 0, 0.0, 0.0
        self.most_held = 0
        self._saving = 0.0  # seconds that the last checkpoint took
        self._is_told = False

    @property
    def alive(self) -> Tensor:
        """Whether each seed's losses and weights stayed finite, bool [seeds]."""
        return self.history.alive

    def train(
        self, plan: CheckpointPlan | None = None, observer: Observer | None = None
    ) -> History:
        """Train all phases; raises Interrupted when `observer.stop()` says so."""
        self.plan, self.observer = plan or CheckpointPlan(), observer or Observer()
        self._saved = time.monotonic()
        self._restore()
        self._resumed = time.monotonic()
        while self.position.phase < len(self.planned):
            self.train_phase(self.position.phase)
            self.position = Position(phase=self.position.phase + 1)
            self._save_if_it_pays()
        self._count_training()
        return self.history

    def _count_training(self) -> float:
        """Add the time since the clock last stood still to training's; returns the time."""
        if self.compute.device == "cuda":  # steps that are only queued
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds += now - self._resumed
        self._resumed = now
        return now

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time within as evaluation's, not training's: how often one looks is no cost.

        A tortoise that is young there is no mistake of a setting: a curve has early points.
        """
        began = self._count_training()
        self.note_held()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The tortoise is judged after")
                yield
        finally:
            self._resumed = time.monotonic()
            self.evaluation_seconds += self._resumed - began

    def note_held(self) -> None:
        """Keep the most of `tensor_bytes()` in `most_held`."""
        self.most_held = max(self.most_held, self.tensor_bytes())

    @abstractmethod
    def tensor_bytes(self) -> int:
        """Return the bytes of the tensors held for training now, over the whole stack.

        Parameters, buffers, optimizer state, and what the method keeps.
        """

    @abstractmethod
    def train_phase(self, index: int) -> None:
        """Train what is left of phase `index`, from its start where `position.step` is 0."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside position, history and cost."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; the position is already the saved one."""

    def disturb(self, module: nn.Module, phase: int) -> None:
        """Disturb the weights with which a rounding twin enters `phase`; no other run's.

        At every phase start, since a method may have put weights there that carry no rounding.
        """
        if self.twin:
            disturb(module, key("twin", self.twin, "initial weights", phase) % 2**63)

    def steps_before(self, phase: int) -> int:
        """Return the steps of all phases before `phase`."""
        return sum(self.planned[:phase])

    def progress(self) -> tuple[float, float]:
        """Return the share of all steps that is done, and the seconds that it took."""
        done = self.steps_before(self.position.phase) + self.position.step
        return done / sum(self.planned), self.seconds + self.evaluation_seconds

    def pause_if_due(self) -> None:
        """Save when the plan says so or the run is stopped; then raise Interrupted.

        Where saving takes long it is done less often than the plan says.
        """
        stop = self.observer.stop()
        due = max(self.plan.seconds, PAYS * self._saving)
        if stop or time.monotonic() - self._saved > due:
            self._save()
        if stop:
            raise Interrupted

    def _save_if_it_pays(self) -> None:
        """Save at a phase boundary, unless phases are so short that saving would slow them."""
        due = PAYS * self._saving or min(self.plan.seconds, PAYS * FIRST)
        if time.monotonic() - self._saved >= due:
            self._save()

    def _save(self) -> None:
        """Save; a full disk costs the checkpoint, which is told once, and not the run."""
        if self.plan.path is None:
            return
        began = self._count_training()
        state = {
            **self.state_dict(),
            "position": dataclasses.asdict(self.position),
            "history": self.history.state_dict(),
            "steps_taken": self.steps_taken,
            "seconds": self.seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "most_held": self.most_held,
        }
        try:
            checkpoint.save(self.plan.path, self.plan.fingerprint, state)
        except UsageError as error:
            self._tell_unsaved(self.plan.path, error)
        self._saved = self._resumed = time.monotonic()
        self._saving = self._saved - began

    def _tell_unsaved(self, path: Path, error: UsageError) -> None:
        if self._is_told:
            return
        self._is_told = True
        why = getattr(error.__cause__, "strerror", None) or error
        warnings.warn(
            f"No checkpoint could be written to {path} ({why}); training goes on, and would be "
            "taken up from the last one: free some space.",
            stacklevel=2,
        )

    def _restore(self) -> None:
        """Take over a checkpoint of this very run, if there is one, and tell of it."""
        if self.plan.path is None:
            return
        saved = checkpoint.load(self.plan.path, self.plan.fingerprint, self.compute.device)
        if saved is None:
            return
        self.position = Position(**saved["position"])
        self.history.load_state_dict(saved["history"])
        self.steps_taken, self.seconds = saved["steps_taken"], saved["seconds"]
        self.evaluation_seconds = saved.get("evaluation_seconds", 0.0)
        self.most_held = saved.get("most_held", 0)
        self.load_state_dict(saved)
        self.observer.progress(self.steps_before(self.position.phase) + self.position.step)
        for entry in self.history.points:
            self.observer.point(entry)


def held_bytes(*held: Any) -> int:
    """Return the bytes of all tensors in nested dicts, lists and tuples, each tensor once."""
    tensors: dict[int, int] = {}

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            tensors[value.data_ptr() or id(value)] = value.numel() * value.element_size()
        elif isinstance(value, Mapping):
            for item in value.values():
                add(item)
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)

    add(held)
    return sum(tensors.values())
