"""A gradient step as a CUDA graph: recorded once, replayed on inputs that are copied in.

The recorded step reads and writes the storage that weights, gradients, moments and replayed
experience had when it was recorded; what tells whether they still have it is the caller's key.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

WARM_UP = 3
"""Steps run as they are before one is recorded: libraries choose and allocate in them."""

Step = Callable[[Tensor], Tensor]
"""Drawn numbers → a loss [], tensors alone."""


class Graph:
    """Runs a step eagerly WARM_UP times, on a stream of its own, then records and replays it."""

    def __init__(self) -> None:
        self._key: Any = None
        self._eager = 0
        self._graph: Any = None
        self._drawn: Tensor | None = None
        self._loss: Tensor | None = None
        self._stream: Any = None
        self.replayed, self.fails = False, False
        """Whether the last step was replayed; whether none can be recorded."""

    def __deepcopy__(self, memo: Any) -> Self:
        """A copied algorithm records its own."""
        return type(self)()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def run(
        self, step: Step, drawn: Tensor, key: Any, recording: AbstractContextManager[Any]
    ) -> Tensor:
        """Take one step on `drawn` (int64, on the CPU) and return its loss, valid until the next.

        key: equal as long as a recorded step may be replayed. recording: entered while the step is
        recorded, when nothing is computed.
        """
        if self._key != key or self._drawn is None or self._drawn.shape != drawn.shape:
            self._forget(key, drawn)
        assert self._drawn is not None
        self._drawn.copy_(drawn, non_blocking=True)  # pageable: the host may use it again at once
        if self._graph is None and self._eager >= WARM_UP and not self.fails:
            with recording:
                self._try_to_record(step)
            if self._graph is not None and self.runs_while_recording:
                self.replayed = True
                assert self._loss is not None
                return self._loss
        self.replayed = self._graph is not None
        if not self.replayed:
            self._eager += 1
            return self._beside(step)
        self._graph.replay()
        assert self._loss is not None
        return self._loss

    def _try_to_record(self, step: Step) -> None:
        try:
            self._record(step)
        except RuntimeError as error:
            self.fails = True
            warnings.warn(
                "fast=True: the gradient step cannot be captured and runs kernel by kernel, slower "
                f"({str(error).splitlines()[0]}).",
                stacklevel=5,
            )

    def _forget(self, key: Any, drawn: Tensor) -> None:
        self._key, self._eager, self._graph, self._loss = key, 0, None, None
        self._drawn = torch.empty_like(drawn, device=self.device)

    # ---- what CUDA does; a stand-in for tests replaces these ----

    device: ClassVar[str] = "cuda"
    runs_while_recording: ClassVar[bool] = False

    def _beside(self, step: Step) -> Tensor:
        """Run `step` on the stream that it is recorded on: autograd remembers streams."""
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        assert self._drawn is not None
        with torch.cuda.stream(self._stream):
            loss = step(self._drawn)
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss

    def _record(self, step: Step) -> None:
        graph = torch.cuda.CUDAGraph()
        assert self._drawn is not None
        with torch.cuda.graph(graph, stream=self._stream):
            self._loss = step(self._drawn)
        self._graph = graph
