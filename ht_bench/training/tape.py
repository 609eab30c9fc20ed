"""A stand-in for CUDA graphs on a CPU: records a step's tensor operations and repeats them.

As a CUDA graph, a tape repeats the same operations on the same memory, whatever the host would
decide by then, and refuses a step that reads a tensor back. It is for tests of what is captured;
it makes nothing faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_ATEN = torch.ops.aten
_READ_BACK = (
    _ATEN._local_scalar_dense.default,
    _ATEN.nonzero.default,
    _ATEN.masked_select.default,
    _ATEN.equal.default,
)
"""Operations whose result the host waits for."""


class Tapes:
    """Captures by recording (`capture.Graphs`)."""

    runs_while_capturing = True

    @contextmanager
    def active(self) -> Iterator[None]:
        """Do nothing: a CPU has no streams."""
        yield

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Carry out `step` and return what repeats it.

        Raises RuntimeError for a step that reads a value back, with all as it was before.
        """
        tape = _Tape()
        try:
            with tape:
                step()
        except RuntimeError:
            tape.undo()
            raise
        tape.written.clear()
        return tape.replay


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self.written: list[tuple[Tensor, Tensor]] = []
        """Tensors that operations wrote to, and what they held before."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation in _READ_BACK:
            raise RuntimeError(f"{operation} reads a value back to the host")
        kwargs = kwargs or {}
        # Aliases: a tensor may be given other storage later, and the tape works on today's.
        given = tree_map(_alias, (args, kwargs))
        if operation._schema.is_mutable:
            tensors = [t for t in tree_leaves(given) if isinstance(t, Tensor)]
            self.written += [(tensor, tensor.clone()) for tensor in tensors]
        result = operation(*args, **kwargs)
        self._calls.append((operation, *given, tree_map(_alias, result)))
        return result

    @torch.no_grad()
    def undo(self) -> None:
        """Give every tensor back what it held before."""
        for tensor, before in reversed(self.written):
            tensor.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        """Repeat every operation on the memory that it worked on."""
        for operation, args, kwargs, results in self._calls:
            again = operation(*args, **kwargs)
            for mine, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(mine, Tensor) and mine.data_ptr() != new.data_ptr():
                    mine.copy_(new)


def _alias(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
