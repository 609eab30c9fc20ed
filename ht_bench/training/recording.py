"""What a supervised run records on its curve: training since the last point, test values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.methods.base import Method
from ht_bench.networks.stacking import finite
from ht_bench.training.accuracy import Evaluation
from ht_bench.training.batches import Examples
from ht_bench.training.capture import Graphs
from ht_bench.training.device import Compute
from ht_bench.training.history import History, Point, point


class Recorder:
    """Adds points to a history, and sums up training between two points.

    The sums stay on the device, so that a step reads nothing back to the host. measures_training:
    whether training accuracy is that of the evaluated weights at a point, not of the steps before.
    """

    def __init__(
        self,
        module: nn.Module,
        method: Method,
        history: History,
        compute: Compute,
        classes: int,
        measures_training: bool,
        graphs: Graphs | None = None,
    ) -> None:
        self.evaluation = Evaluation(compute, graphs)
        self.module, self.method, self.history, self.compute = module, method, history, compute
        self.chance, self.measures_training = 1 / classes, measures_training
        self.initial = {n: p.detach().clone() for n, p in module.named_parameters()}
        shape = (2, len(history.alive))
        sums = torch.zeros(shape, dtype=torch.float64, device=compute.device)
        self._loss, self._correct = sums.unbind()
        self._clear()

    def _clear(self) -> None:
        for summed in (self._loss, self._correct):  # in place: captured steps add to them
            summed.zero_()
        self._batches, self._examples = 0, 0

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Add one step's mean losses [S] and hits: outputs [S, B, classes], labels [S, B]."""
        self._loss += loss
        self._correct += (outputs.argmax(-1) == labels).sum(1)

    def count(self, examples: int) -> None:
        """Count one step of so many examples of each seed."""
        self._batches += 1
        self._examples += examples

    def record(self, phase: int, step: int, tests: Examples, training: Examples) -> Point:
        """Add a point: the evaluated weights on test data, and training since the last point."""
        begins = not self.history.points or self.history.points[-1]["phase"] != phase
        values = self._test(tests) | self._training(training, begins)
        self.history.alive &= finite(self.module).cpu() & torch.isfinite(self._loss).cpu()
        for key, value in values.items():
            diverged = self.chance if key.endswith("accuracy") else float("nan")
            values[key] = torch.where(self.history.alive, value.double().cpu(), diverged)
        self.history.points.append(point(phase, step, values))
        self._clear()
        return self.history.points[-1]

    def _test(self, tests: Examples) -> dict[str, Tensor]:
        with self.method.evaluating() as evaluated:
            accuracy, loss = self.evaluation.measure(evaluated, tests)
        values = {"test/accuracy": accuracy, "test/loss": loss}
        if self.method.has_tortoise:
            with Method.evaluating(self.method) as trained:
                values["hare/accuracy"] = self.evaluation.measure(trained, tests)[0]
            values["tortoise/accuracy"] = accuracy
        return values

    def _training(self, training: Examples, begins: bool) -> dict[str, Tensor]:
        if self.measures_training:
            with self.method.evaluating() as evaluated:
                accuracy, loss = self.evaluation.measure(evaluated, training)
        elif self._batches:
            accuracy, loss = self._correct / self._examples, self._loss / self._batches
        elif begins:
            accuracy = loss = torch.full_like(self._loss, torch.nan)
        else:
            accuracy, loss = self._last("train/accuracy"), self._last("train/loss")
        return {"train/accuracy": accuracy, "train/loss": loss}

    def _last(self, key: str) -> Tensor:
        """The last point's values again, for a stretch in which nothing was trained."""
        values = self.history.points[-1][key]
        numbers = [float("nan") if value is None else value for value in values]
        return torch.tensor(numbers, dtype=torch.float64)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last point; the history saves itself."""
        return {
            "sums": [self._loss.clone(), self._correct.clone()],
            "counts": [self._batches, self._examples],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for summed, saved in zip((self._loss, self._correct), state["sums"], strict=True):
            summed.copy_(saved)
        self._batches, self._examples = state["counts"]
