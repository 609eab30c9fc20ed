"""The loop: a stack of seeds trains on a stream of data with a method, resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.networks.diagnostics import diagnose
from ht_bench.networks.stacking import clip_gradients, finite, is_stacked
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.points import points_of_phase
from ht_bench.streams.randomness import torch_seed
from ht_bench.streams.stream import Split, Stream, phase_steps, planned_steps
from ht_bench.streams.task import Task
from ht_bench.training import build, checkpoint
from ht_bench.training.accuracy import logits, losses, measure
from ht_bench.training.batches import Examples, Images, PhaseBatches
from ht_bench.training.device import Compute, random_state, set_random_state
from ht_bench.training.history import History, point, repeated
from ht_bench.training.observer import CheckpointPlan, Interrupted, Observer

DIAGNOSED = 256
"""Training examples that diagnostics look at."""


class SupervisedRun:
    """One stack of seeds of one task and method.

    `train()` runs to the end (or goes on from its checkpoint) and returns the History. `alive`
    tells, per seed, whether all losses and weights stayed finite.
    """

    def __init__(
        self,
        task: Task,
        data: Dataset,
        method: Method,
        seeds: Sequence[int],
        split: Split = "test",
        compute: Compute | None = None,
    ) -> None:
        self.task, self.data, self.method, self.seeds = task, data, method, tuple(seeds)
        self.compute = compute or Compute()
        self.streams = [Stream(task, data, seed, split) for seed in self.seeds]
        self.images = Images(data, self.compute.device)
        self.module = build.network(task, data, self.seeds, method.network)
        self.module.to(self.compute.device)
        if not is_stacked(self.module):
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build.optimizer(task.optimizer, self.module)
        self.initial = {n: p.detach().clone() for n, p in self.module.named_parameters()}
        self.history = History()
        self.alive = torch.ones(len(self.seeds), dtype=torch.bool)
        self.phase, self.step, self.steps_taken, self.seconds = 0, 0, 0, 0.0
        self._recorded, self._draws, self._allowed = 0, 0, 0
        self._planned = planned_steps(self.streams[0])
        self._clear_sums()
        method.attach(
            self.module, self.optimizer, generator=self._generators(), initialize=self._fresh
        )

    @property
    def methods(self) -> Sequence[Method]:
        """The attached methods: one."""
        return [self.method]

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the data."""
        return {"data_sha256": self.data.sha256, "classes": self.data.classes}

    def _generators(self) -> list[torch.Generator]:
        seeds = [torch_seed(self.task.name, seed, "method") for seed in self.seeds]
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def _fresh(self) -> dict[str, Tensor]:
        """Fresh weights keyed by phase: what other phases drew shifts nothing here."""
        drawn = build.network(
            self.task,
            self.data,
            self.seeds,
            self.method.network,
            "fresh weights",
            self.phase,
            self._draws,
        )
        self._draws += 1
        return build.named_tensors(drawn.to(self.compute.device))

    # ---- the stream ----

    def train(
        self, plan: CheckpointPlan | None = None, observer: Observer | None = None
    ) -> History:
        """Train all phases; raises Interrupted when `observer.stop()` says so."""
        self._plan, self._observer = plan or CheckpointPlan(), observer or Observer()
        self._resumed = self._saved = time.monotonic()
        restored = self._restore()
        if not restored:
            self._record_start()
        for index in range(self.phase, len(self.task.phases)):
            self._train_phase(index, fresh=not restored or self.step == 0)
            restored = False
        self.seconds += time.monotonic() - self._resumed
        return self.history

    def _train_phase(self, index: int, fresh: bool) -> None:
        self.phase = index
        self._open(index)
        if fresh:
            self._begin(index)
        for target in self.grid(index)[self._recorded :]:
            self._train_until(target)
            self._record(sum(self._planned[:index]) + target)
            self._recorded += 1
        self._end(index)

    def _open(self, index: int) -> None:
        self.batches = PhaseBatches(self.streams, index, self.images)
        spec = self.task.phases[index]
        batch = self.task.training.batch
        self._steps, self._epoch_steps = phase_steps(spec, self.batches.examples, batch)
        views = [stream.test(index) for stream in self.streams]
        self.tests = Examples(views, self.images)

    def _begin(self, index: int) -> None:
        """A phase boundary: optimizer state cleared, the method told, its budget asked."""
        self.step, self._recorded, self._draws = 0, 0, 0
        self.optimizer.state.clear()
        self._allowed = self.method.enter_phase(
            index, self._steps, self._epoch_steps, len(self.task.phases)
        )

    def _end(self, index: int) -> None:
        self._diagnose()
        self.phase, self.step = index + 1, 0
        self._save()

    def grid(self, index: int) -> list[int]:
        """Return the steps of phase `index` after which the curve has a point."""
        return points_of_phase(self._steps, self.task.training.points)

    # ---- steps ----

    def _train_until(self, target: int) -> None:
        """Train to step `target` of the phase, or to where the method stops it."""
        self.module.train()
        while self.step < target:
            if self.step < self._allowed and bool(self.alive.any()):
                self._train_step()
            self.step += 1
            self._observer.progress(1)
            self._pause_if_due()

    def _train_step(self) -> None:
        epoch, position = divmod(self.step, self._epoch_steps)
        if position == 0:
            seed = torch_seed(self.task.name, self.seeds[0], "dropout", self.phase, epoch)
            torch.manual_seed(seed)
        inputs, labels = self.batches.batch(epoch, position)
        build.warm_up(self.optimizer, self.task.optimizer, self.step, self._steps)
        self.optimizer.zero_grad()
        with self.compute.autocast():
            outputs = logits(self.module, inputs)
            each = losses(outputs, labels).mean(1)
            loss = each.sum()
            extra = self._auxiliary_loss(inputs, outputs)
        (loss if extra is None else loss + extra).backward()
        if self.task.optimizer.clip is not None:
            clip_gradients(self.module, self.task.optimizer.clip)
        self.optimizer.step()
        self.steps_taken += 1
        self._add_sums(each.detach(), outputs.detach(), labels)

    def _auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        if is_stacked(self.module):
            return self.method.auxiliary_loss(inputs, outputs)
        return self.method.auxiliary_loss(inputs[0], outputs[0])

    def _clear_sums(self) -> None:
        zeros = torch.zeros(len(self.seeds), dtype=torch.float64, device=self.compute.device)
        self._loss_sum, self._correct_sum = zeros.clone(), zeros.clone()
        self._batches_summed, self._examples_summed = 0, 0

    def _add_sums(self, each: Tensor, outputs: Tensor, labels: Tensor) -> None:
        self._loss_sum += each
        self._correct_sum += (outputs.argmax(-1) == labels).sum(1)
        self._batches_summed += 1
        self._examples_summed += labels.shape[1]

    # ---- records ----

    def _record_start(self) -> None:
        self._open(0)
        self._record(0)

    def _record(self, step: int) -> None:
        """Add a point: the judged weights on test data, and training since the last point."""
        values = self._test_values()
        values.update(self._training_values())
        self.alive &= finite(self.module).cpu() & torch.isfinite(self._loss_sum).cpu()
        for key, value in values.items():
            chance = 1 / self.data.classes if key.endswith("accuracy") else float("nan")
            values[key] = torch.where(self.alive, value.double().cpu(), chance)
        entry = point(self.phase, step, values)
        self.history.points.append(entry)
        self._observer.point(entry)
        self._clear_sums()

    def _test_values(self) -> dict[str, Tensor]:
        with self.method.evaluating() as judged:
            accuracy, loss = measure(judged, self.tests, self.compute)
        values = {"test/accuracy": accuracy, "test/loss": loss}
        if self.method.has_tortoise:
            with Method.evaluating(self.method) as trained:
                values["hare/accuracy"] = measure(trained, self.tests, self.compute)[0]
            values["tortoise/accuracy"] = accuracy
        return values

    def _training_values(self) -> dict[str, Tensor]:
        if self.task.family == "shuffled":
            with self.method.evaluating() as judged:
                accuracy, loss = measure(judged, self.batches, self.compute)
            return {"train/accuracy": accuracy, "train/loss": loss}
        if not self._batches_summed:
            unknown = torch.full((len(self.seeds),), float("nan"))
            last = self.history.points[-1] if self.history.points else None
            keys = ("train/accuracy", "train/loss")
            return {key: repeated(last, key, unknown) for key in keys}
        return {
            "train/accuracy": self._correct_sum / self._examples_summed,
            "train/loss": self._loss_sum / self._batches_summed,
        }

    def _diagnose(self) -> None:
        inputs, labels = self.batches.slice(0, DIAGNOSED)
        stacked = is_stacked(self.module)
        found = diagnose(
            self.module,
            inputs if stacked else inputs[0],
            lambda outputs: losses(outputs if stacked else outputs[None], labels).mean(1).sum(),
            self.initial,
        )
        step = sum(self._planned[: self.phase + 1])
        self.history.diagnostics.append(point(self.phase, step, found))

    def retention(self) -> list[list[float]] | None:
        """Return, per seed, the final accuracy on each phase's own test view; None if all agree."""
        views = [[stream.test(i) for stream in self.streams] for i in range(len(self.task.phases))]
        permuted = views[0][0].permutation is not None or self.task.phases[0].labels == "permuted"
        if not permuted and self.task.family != "class-incremental":
            return None
        rows = []
        with self.method.evaluating() as judged:
            for view in views:
                rows.append(measure(judged, Examples(view, self.images), self.compute)[0])
        found: list[list[float]] = torch.stack(rows, dim=1).cpu().tolist()
        return found

    # ---- checkpoints ----

    def _pause_if_due(self) -> None:
        stop = self._observer.stop()
        if stop or time.monotonic() - self._saved > self._plan.seconds:
            self._save()
        if stop:
            raise Interrupted

    def _save(self) -> None:
        if self._plan.path is None:
            return
        now = time.monotonic()
        state: dict[str, Any] = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.checkpoint(),
            "history": self.history.state_dict(),
            "rng": random_state(self.compute),
            "sums": [self._loss_sum, self._correct_sum],
            "summed": [self._batches_summed, self._examples_summed],
            "alive": self.alive,
            "seconds": self.seconds + now - self._resumed,
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        checkpoint.save(self._plan.path, self._plan.fingerprint, state)
        self._saved = now

    def _restore(self) -> bool:
        """Take over a checkpoint of this very run; returns whether there was one."""
        if self._plan.path is None:
            return False
        saved = checkpoint.load(self._plan.path, self._plan.fingerprint, self.compute.device)
        if saved is None:
            return False
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history.load_state_dict(saved["history"])
        self._loss_sum, self._correct_sum = saved["sums"]
        self._batches_summed, self._examples_summed = saved["summed"]
        self.alive, self.seconds = saved["alive"].cpu(), saved["seconds"]
        for name in _COUNTERS:
            setattr(self, name, saved[name])
        self._restore_method(saved)
        set_random_state(saved["rng"])
        for entry in self.history.points:
            self._observer.point(entry)
        return True

    def _restore_method(self, saved: dict[str, Any]) -> None:
        index = min(self.phase, len(self.task.phases) - 1)
        self._open(index)
        self.method.restore(saved["method"], self._epoch_steps, len(self.task.phases))
        self._observer.progress(sum(self._planned[: self.phase]) + self.step)


_COUNTERS = ("phase", "step", "steps_taken", "_recorded", "_draws", "_allowed")
