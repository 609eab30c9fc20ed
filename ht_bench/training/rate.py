"""The learning rate of a phase: a linear rise over its first share, then constant."""

from __future__ import annotations

import torch

from ht_bench.streams.task import OptimizerSpec


def rate_at(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Return the learning rate of step `step` (from 0) of a phase of `steps`."""
    rising = _rising(spec, steps)
    return spec.lr * (min(1.0, (step + 1) / rising) if rising else 1.0)


def _rising(spec: OptimizerSpec, steps: int) -> int:
    return int(spec.warmup * steps)


class LearningRate:
    """Sets the rate of an optimizer before each step of a phase.

    planned: each phase's steps. With a `device` the rates and the place among them lie there, and
    the optimizer's rate is a tensor, so that a captured step sets it without the host.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        spec: OptimizerSpec,
        planned: list[int],
        device: str | None = None,
    ) -> None:
        self._optimizer, self._spec, self._planned = optimizer, spec, planned
        self._step, self._steps = 0, 1
        self._on_device = device is not None
        if device is not None:
            longest = max(_rising(spec, steps) for steps in planned)
            self._rates = torch.zeros(longest + 1, device=device)
            self._last, self._place = (
                torch.zeros(1, dtype=torch.long, device=device) for _ in "ab"
            )
            self._rate = torch.full((), spec.lr, device=device)
            self.bind()

    def bind(self) -> None:
        """Give the optimizer the tensor that holds the rate; a loaded state has one of its own."""
        if self._on_device:
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate

    def open(self, phase: int) -> None:
        """Turn to a phase."""
        self._steps = self._planned[phase]
        if self._on_device:
            last = _rising(self._spec, self._steps)
            rates = [rate_at(self._spec, step, self._steps) for step in range(last + 1)]
            self._rates[: last + 1] = torch.tensor(rates, device=self._rates.device)
            self._last.fill_(last)

    def seek(self, step: int) -> None:
        """Turn to a step of the phase."""
        if self._on_device and step != self._step:
            self._place.fill_(step)
        self._step = step

    def passed(self) -> None:
        """Note on the host that a step was taken."""
        self._step += 1

    def set(self) -> None:
        """Set the rate of the step that comes; on a device its place goes on by one."""
        if self._on_device:
            self._rate.copy_(self._rates[torch.minimum(self._place, self._last)][0])
            self._place += 1
            return
        rate = rate_at(self._spec, self._step, self._steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
