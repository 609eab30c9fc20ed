"""Steps captured once and replayed: a CUDA graph costs the host one launch, whatever is in it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Step = Callable[[], None]


class Graphs(Protocol):
    """What captures: CUDA, or the tape that stands in for it on a CPU (`tape.Tapes`)."""

    runs_while_capturing: bool
    """Whether the step that is captured is carried out as well."""

    def active(self) -> AbstractContextManager[None]:
        """Return the context in which steps are run, captured and replayed."""

    def capture(self, step: Step) -> Step:
        """Return what repeats `step` on the same memory; raises RuntimeError where it cannot."""


class CudaGraphs:
    """CUDA graphs of one run, on a stream and in a memory pool of its own.

    Everything of the run is queued on that stream, also what is not captured: gradients that
    autograd accumulates on another stream could not be captured. Graphs share the pool, since they
    run one after the other and leave nothing behind in it but gradients.
    generators: beside torch's own, what steps draw random numbers from; a graph must know them.
    """

    runs_while_capturing = False
    generators: Sequence[torch.Generator] = ()
    AHEAD = 256
    """Replays after which the host waits for those before: Ctrl-C must find a short queue."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()
        self._replays = 0
        self._passed: torch.cuda.Event | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Queue everything on the run's stream; it begins after, and ends before, the others'."""
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def capture(self, step: Step) -> Step:
        """Return what replays `step`; raises RuntimeError for one that CUDA cannot capture."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        torch.cuda.synchronize()
        graph.capture_begin(pool=self._pool)
        try:
            step()
        except BaseException:
            with suppress(RuntimeError):  # an invalid capture cannot be ended well
                graph.capture_end()
            raise
        graph.capture_end()

        def replay() -> None:
            graph.replay()
            self._pace()

        return replay

    def _pace(self) -> None:
        self._replays += 1
        if self._replays % self.AHEAD:
            return
        if self._passed is not None:
            self._passed.synchronize()
        self._passed = torch.cuda.Event()
        self._passed.record()


class Captured:
    """Runs a function of a size by replaying its capture; what it cannot capture it just calls.

    function: works on tensors whose storage stays, and returns nothing. what: said in the warning
    when it cannot be captured. watched: modules, optimizers and methods whose tensors it works on.
    A key is run once before it is captured: libraries make their choices and allocate what they
    keep.
    """

    def __init__(
        self,
        graphs: Graphs | None,
        function: Callable[..., None],
        what: str,
        watched: Sequence[Any] = (),
    ) -> None:
        self._graphs, self._function, self._what, self._watched = graphs, function, what, watched
        self._forget()

    def _forget(self) -> None:
        self._seen: set[Hashable] = set()
        self._replays: dict[Hashable, Step] = {}
        self._storage: tuple[int, ...] = ()

    def check(self) -> None:
        """Drop the captures if a tensor that they work on lies elsewhere now."""
        if self._replays and storage(*self._watched) != self._storage:
            self._forget()

    def __call__(self, key: Hashable, *arguments: Any) -> None:
        """Carry out `function(*arguments)`; equal keys must mean equal arguments and tensors."""
        replay = self._replays.get(key)
        if replay is not None:
            replay()
        elif self._graphs is None or key not in self._seen:
            self._function(*arguments)
            self._seen.add(key)
        else:
            self._capture(self._graphs, key, arguments)

    def _capture(self, graphs: Graphs, key: Hashable, arguments: tuple[Any, ...]) -> None:
        try:
            replay = graphs.capture(lambda: self._function(*arguments))
        except RuntimeError as error:
            self._graphs = None
            warnings.warn(
                f"{self._what} cannot be captured and runs step by step, slower "
                f"({str(error).splitlines()[0]}).",
                stacklevel=3,
            )
            self._function(*arguments)
            return
        if not self._replays:
            self._storage = storage(*self._watched)
        self._replays[key] = replay
        if not graphs.runs_while_capturing:
            replay()


def storage(*held: Any) -> tuple[int, ...]:
    """Return the addresses of all tensors in modules, optimizers, methods and containers.

    While they are the same, what was captured on them still holds.
    """
    addresses: list[int] = []
    _visit(held, addresses, 0)
    return tuple(dict.fromkeys(addresses))


def _visit(value: Any, addresses: list[int], depth: int) -> None:
    if isinstance(value, Tensor):
        addresses.append(value.data_ptr())
    elif isinstance(value, nn.Module):
        # read_by_hooks: what a method's hooks on the module compute with.
        hooks: Sequence[Tensor] = getattr(value, "read_by_hooks", ())
        for tensor in (*value.parameters(), *value.buffers(), *hooks):
            addresses.append(tensor.data_ptr())
    elif isinstance(value, torch.optim.Optimizer):
        for state in value.state.values():
            _visit(state, addresses, depth)
    elif isinstance(value, Mapping):
        for item in value.values():
            _visit(item, addresses, depth)
    elif isinstance(value, list | tuple):
        for item in value:
            _visit(item, addresses, depth)
    elif depth < DEEPEST and (dataclasses.is_dataclass(value) or _keeps_tensors(value)):
        own = {k: v for k, v in vars(value).items() if not isinstance(v, _OF_OTHERS)}
        _visit(own, addresses, depth + 1)


DEEPEST = 3
"""How far a method's own objects are followed."""
_OF_OTHERS = (nn.Module, torch.optim.Optimizer, str, int, float)


def _keeps_tensors(value: Any) -> bool:
    return type(value).__module__.startswith("ht_bench.methods")


def context(graphs: Graphs | None) -> AbstractContextManager[None]:
    """Return the context of a run with or without graphs."""
    return nullcontext() if graphs is None else graphs.active()
