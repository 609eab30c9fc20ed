"""The loop: a stack of seeds trains on a stream of data with a method, resumable at any step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.networks.stacking import clip_gradients, is_stacked
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.families import get_family
from ht_bench.streams.points import points_of_phase
from ht_bench.streams.randomness import torch_seed
from ht_bench.streams.stream import Split, Stream, planned_steps
from ht_bench.streams.task import Task
from ht_bench.training import build
from ht_bench.training.accuracy import logits, losses, measure
from ht_bench.training.batches import Examples, Images, PhaseBatches
from ht_bench.training.device import Compute, random_state, set_random_state
from ht_bench.training.recording import Recorder
from ht_bench.training.run import Run, held_bytes


class SupervisedRun(Run):
    """One stack of seeds of one task of data and method: see `Run`."""

    sparing = 10.0  # phases may take less than a second, and any step can be gone on from

    def __init__(
        self,
        task: Task,
        data: Dataset,
        method: Method,
        seeds: Sequence[int],
        split: Split = "test",
        compute: Compute | None = None,
    ) -> None:
        self.task, self.data, self.method = task, data, method
        self.streams = [Stream(task, data, seed, split) for seed in seeds]
        super().__init__(seeds, planned_steps(self.streams[0]), compute)
        self.images = Images(data, self.compute.device)
        self.module = build.network(task, data, self.seeds, method.network)
        self.module.to(self.compute.device)
        self.stacked = is_stacked(self.module)
        if not self.stacked:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build.optimizer(task.optimizer, self.module)
        trainability = get_family(task.family).metric == "train/accuracy"
        self.recorder = Recorder(
            self.module, method, self.history, self.compute, data.classes, trainability
        )
        draws = [torch_seed(task.name, seed, "method") for seed in self.seeds]
        generators = [torch.Generator().manual_seed(draw) for draw in draws]
        method.attach(self.module, self.optimizer, generator=generators, initialize=self._fresh)

    @property
    def methods(self) -> Sequence[Method]:
        """The attached methods: one."""
        return [self.method]

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the data."""
        return {"data_sha256": self.data.sha256, "classes": self.data.classes}

    def _fresh(self) -> dict[str, Tensor]:
        """Fresh weights keyed by phase: what other phases drew shifts nothing here."""
        phase, draw = self.position.phase, self.position.draws
        self.position.draws += 1
        changes = self.method.network
        drawn = build.network(
            self.task, self.data, self.seeds, changes, "fresh weights", phase, draw
        )
        return build.named_tensors(drawn.to(self.compute.device))

    # ---- the loop ----

    def train_phase(self, index: int) -> None:
        """Train what is left of phase `index`, from its start where `position.step` is 0."""
        self._open(index)
        if self.position.step == 0:
            # A boundary: optimizer state cleared, the method told, its budget asked.
            self.position.draws = 0
            self.optimizer.state.clear()
            self.position.allowed = self.method.enter_phase(
                index, self.planned[index], self.batches.epoch_steps, len(self.planned)
            )
            self.disturb(self.module, index)
            self._record(0)
        grid = points_of_phase(self.planned[index], self.task.training.points)
        for target in grid[self.position.recorded :]:
            self._train_until(target)
            self._record(target)
            self.position.recorded += 1
        with self.evaluating():
            self.recorder.diagnose(index, self.steps_before(index + 1), self.batches)

    def _open(self, index: int) -> None:
        self.batches = PhaseBatches(self.streams, index, self.images)
        self.tests = Examples([stream.test(index) for stream in self.streams], self.images)

    def _train_until(self, target: int) -> None:
        """Go to step `target` of the phase; beyond the method's budget steps train nothing."""
        self.module.train()
        while self.position.step < target:
            if self.position.step < self.position.allowed and bool(self.alive.any()):
                self._train_step()
            self.position.step += 1
            self.observer.progress(1)
            self.pause_if_due()

    def _train_step(self) -> None:
        phase, step, spec = self.position.phase, self.position.step, self.task.optimizer
        # Every epoch's dropout is keyed, so that methods that draw differently share its masks.
        epoch, place = divmod(step, self.batches.epoch_steps)
        if place == 0:
            torch.manual_seed(torch_seed(self.task.name, self.seeds[0], "dropout", phase, epoch))
        inputs, labels = self.batches.batch(epoch, place)
        build.warm_up(self.optimizer, spec, step, self.planned[phase])
        # Seeds share no weight: the gradient of the sum of their losses is each seed's own.
        self.optimizer.zero_grad()
        with self.compute.autocast():
            outputs = logits(self.module, inputs)
            each = losses(outputs, labels).mean(1)
            loss = each.sum()
            extra = self.method.auxiliary_loss(*self._as_module_takes(inputs, outputs))
        (loss if extra is None else loss + extra).backward()
        if spec.clip is not None:
            clip_gradients(self.module, spec.clip)
        # The method's before_step and after_step run inside, as hooks of the optimizer.
        self.optimizer.step()
        self.steps_taken += 1
        self.recorder.add(each.detach(), outputs.detach(), labels)

    def _as_module_takes(self, *tensors: Tensor) -> Sequence[Tensor]:
        return tensors if self.stacked else [tensor[0] for tensor in tensors]

    # ---- records and checkpoints ----

    def _record(self, step: int) -> None:
        phase = self.position.phase
        step += self.steps_before(phase)
        with self.evaluating():
            self.observer.point(self.recorder.record(phase, step, self.tests, self.batches))

    def retention(self) -> list[list[float]] | None:
        """Return, per seed, the final accuracy on each phase's own test view; None if all agree."""
        phases = range(len(self.planned))
        views = [[stream.test(index) for stream in self.streams] for index in phases]
        if not self.task.retains:
            return None
        with self.method.evaluating() as evaluated:
            tests = (Examples(view, self.images) for view in views)
            rows = [measure(evaluated, examples, self.compute)[0] for examples in tests]
        retained: list[list[float]] = torch.stack(rows, dim=1).cpu().tolist()
        return retained

    def tensor_bytes(self) -> int:
        """Return the bytes of module, optimizer state and what the method keeps."""
        return held_bytes(
            dict(self.module.named_parameters()),
            dict(self.module.named_buffers()),
            self.optimizer.state_dict(),
            self.method.state_dict(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside position, history and cost."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.checkpoint(),
            "recorder": self.recorder.state_dict(),
            "rng": random_state(self.compute),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; the position is already the saved one."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.recorder.load_state_dict(state["recorder"])
        self._open(min(self.position.phase, len(self.planned) - 1))
        self.method.restore(state["method"], self.batches.epoch_steps, len(self.planned))
        set_random_state(state["rng"])
