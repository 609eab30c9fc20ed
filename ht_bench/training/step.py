"""One optimizer step of a stack of seeds, as tensor arithmetic that can be captured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ht_bench.methods.base import Method
from ht_bench.networks.stacking import clip_gradients, is_stacked
from ht_bench.streams.task import OptimizerSpec
from ht_bench.training.accuracy import Forward, logits, losses
from ht_bench.training.batches import Batches
from ht_bench.training.capture import Captured, Graphs
from ht_bench.training.device import Compute
from ht_bench.training.rate import LearningRate
from ht_bench.training.recording import Recorder


class TrainingStep:
    """Batch, learning rate, forward, loss, backward, clip, optimizer and method, sums.

    `take(step)` carries out one step of the open phase, replayed from its capture where there are
    `graphs` and the method can be captured: one capture for each size of batch. The method's
    scheduled work then runs between two steps, from here.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: Method,
        spec: OptimizerSpec,
        compute: Compute,
        batches: Batches,
        rate: LearningRate,
        recorder: Recorder,
        graphs: Graphs | None,
    ) -> None:
        self.module, self.optimizer, self.method = module, optimizer, method
        self.batches, self.rate, self.recorder = batches, rate, recorder
        self.full_forward: Forward = module
        self._spec, self._compute, self._stacked = spec, compute, is_stacked(module)
        self._passes_twice = "second pass" in method.needed()
        self._is_captured = graphs is not None and method.captures
        self._run = Captured(
            graphs if self._is_captured else None,
            self._step,
            f"A step with '{method.name}'",
            (module, optimizer, method),
        )
        method.is_advanced_by_loop = method.clears_in_place = self._is_captured

    def open(self, phase: int) -> None:
        """Turn to a phase."""
        self.batches.open(phase)
        self.rate.open(phase)

    def check(self) -> None:
        """Drop captures whose tensors lie elsewhere now: the host has worked on them."""
        self._run.check()

    def take(self, step: int) -> None:
        """Carry out step `step` of the open phase."""
        size = self.batches.seek(step)
        self.rate.seek(step)
        self._run((size, *self.batches.kind), size)
        self.rate.passed()
        self.recorder.count(size)
        if self._is_captured and self.method.advance(1):
            self._run.check()

    def _step(self, size: int) -> None:
        inputs, labels = self.batches.take(size)
        self.rate.set()
        each, outputs = self._gradients(size, inputs, labels)
        if self._passes_twice:
            with torch.no_grad():
                self.method.ascend()
            self._gradients(size, inputs, labels)
            with torch.no_grad():
                self.method.descend()
        if self._spec.clip is not None:
            clip_gradients(self.module, self._spec.clip)
        # The method's before_step and after_step run inside, as hooks of the optimizer.
        self.optimizer.step()
        self.recorder.add(each.detach(), outputs.detach(), labels)

    def _gradients(self, size: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients of one pass; returns its losses [S] and outputs."""
        # Seeds share no weight: the gradient of the sum of their losses is each seed's own.
        self.optimizer.zero_grad()
        with self._compute.autocast():
            outputs = logits(self._forward(size), inputs)
            each = losses(outputs, labels).mean(1)
            loss = each.sum()
            extra = self.method.auxiliary_loss(*self._as_module_takes(inputs, outputs))
        (loss if extra is None else loss + extra).backward()
        return each, outputs

    def _forward(self, size: int) -> Forward:
        """Return what a batch goes through: compiled code is made for full batches alone."""
        return self.full_forward if size == self.batches.full else self.module

    def _as_module_takes(self, *tensors: Tensor) -> Sequence[Tensor]:
        return tensors if self._stacked else [tensor[0] for tensor in tensors]
