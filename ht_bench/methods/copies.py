"""Copies of a module's weights, found again by name: what slow copies and θ0 have in common."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ht_bench.errors import UsageError
from ht_bench.methods.statistics import statistics_of

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


class Copies:
    """The values that a module's weights had at one time, in storage of their own.

    Weights are the floating (or complex) parameters and, with `statistics`, the running statistics
    (`statistics_of`). The copies follow a module, or a part of it, to another device or dtype at
    the next use. Parameters of less than 32 bits are kept in fp32 with `wide`. Where the module
    holds other parameters than when the copy was taken (a head replaced or grown), use raises
    UsageError until `restart`.
    """

    def __init__(self, module: nn.Module, *, statistics: bool = False, wide: bool = False) -> None:
        self.module, self._statistics, self._wide = module, statistics, wide
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Take the module's weights as they are now, into the same storage where it fits.

        Others may share it: the target networks of agents do.
        """
        before = self.named() if hasattr(self, "_values") else {}
        self._places: dict[str, tuple[dict[str, Any], str]] = {}
        tables: list[dict[str, Any]] = []
        seen: set[int] = set()
        for prefix, child in self.module.named_modules():
            children: dict[str, Any] = child._modules
            parameters: dict[str, Any] = child._parameters
            tables += [children, parameters]
            statistics = statistics_of(child) if self._statistics else []
            for table, keys in ((parameters, [*parameters]), (child._buffers, statistics)):
                for key in keys:
                    tensor: Any = table[key]
                    if tensor is not None and id(tensor) not in seen and _is_weight(tensor):
                        seen.add(id(tensor))
                        self._places[f"{prefix}.{key}" if prefix else key] = (table, key)
        self._views = [table.values() for table in tables]  # they show what the tables hold now
        self._objects = [*itertools.chain.from_iterable(self._views)]
        self._ids = [*map(id, self._objects)]  # which the objects keep from being given anew
        # As before statistics were told apart from weights: parameters first, then buffers.
        order = sorted(self._places.items(), key=lambda item: not _is_parameter(item[1]))
        self._places = dict(order)
        self._where = list(self._places.values())
        tensors = [table[key].detach() for table, key in self._where]
        self._values = [
            self._copy_of(tensor, before.get(name))
            for name, tensor in zip(self._places, tensors, strict=True)
        ]
        self._note(tensors)

    def _copy_of(self, tensor: Tensor, storage: Tensor | None) -> Tensor:
        dtype = self._dtype_for(tensor)
        wanted = (tensor.shape, dtype, tensor.device)
        if storage is not None and (storage.shape, storage.dtype, storage.device) == wanted:
            return storage.copy_(tensor)
        return tensor.to(dtype, copy=True)

    def _dtype_for(self, tensor: Tensor) -> torch.dtype:
        if self._wide and tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4:
            return torch.float32
        if self._wide and tensor.dtype == torch.complex32:
            return torch.complex64
        return tensor.dtype

    def _note(self, tensors: list[Tensor]) -> None:
        self._kinds = [(t.dtype, t.numel(), t.get_device()) for t in tensors]
        self._narrow = any(
            tensor.dtype != value.dtype for tensor, value in zip(tensors, self._values, strict=True)
        )

    def now(self) -> list[Tensor]:
        """Return the module's own tensors of which there are copies, the copies moved beside them.

        Raises UsageError where they are others than at `restart`.
        """
        if [*map(id, itertools.chain.from_iterable(self._views))] != self._ids:
            raise UsageError(self._changed())
        tensors = [table[key] for table, key in self._where]
        if [(t.dtype, t.numel(), t.get_device()) for t in tensors] != self._kinds:
            self._follow(tensors)
        return tensors

    def _follow(self, tensors: list[Tensor]) -> None:
        for name, tensor, value in zip(self._places, tensors, self._values, strict=True):
            if tensor.shape != value.shape:
                raise UsageError(self._changed(f"'{name}' is now {list(tensor.shape)}"))
        self._values = [
            value.to(tensor.device, self._dtype_for(tensor))
            for value, tensor in zip(self._values, tensors, strict=True)
        ]
        self._note(tensors)

    def _changed(self, what: str = "") -> str:
        if not what:
            names, known = {n for n, _ in self.module.named_parameters()}, set(self._places)
            added = sorted(names - known) or ["the parameters under the same names"]
            what = f"{type(self.module).__name__} holds others: {', '.join(added[:3])}"
        return (
            f"The module's weights are not those the method was attached to ({what}); "
            "call method.resync() after replacing, adding or resizing a part."
        )

    @property
    def values(self) -> list[Tensor]:
        """The copies in order; another list once they have other storage."""
        return self._values

    def named(self) -> dict[str, Tensor]:
        """Return the copies by name."""
        return dict(zip(self._places, self._values, strict=True))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over tensors by name, by value; all names and shapes are compared before.

        Prefixes of wrappers ("module.", "_orig_mod.") do not count, and buffers that are no
        running statistics are left out. Raises UsageError for another network's tensors.
        """
        tensors = self.now()
        self._note(tensors)
        others = {plain_name(name) for name, _ in self.module.named_buffers()}
        for value, tensor in matched(self.named(), state, others):
            value.copy_(tensor)


def matched(
    mine: Mapping[str, Tensor], saved: object, optional: set[str] | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Pair tensors with saved ones by name; raises UsageError unless names and shapes agree."""
    if not isinstance(saved, Mapping):
        raise UsageError("The checkpoint holds no tensors by name; was it saved by this method?")
    theirs = {plain_name(name): tensor for name, tensor in saved.items()}
    ours = {plain_name(name): tensor for name, tensor in mine.items()}
    missing = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours and name not in (optional or ())]
    if missing or extra:
        which = f"has no '{missing[0]}'" if missing else f"has '{extra[0]}' too"
        raise UsageError(
            f"The checkpoint is another network's: it {which}; "
            "build the network it was saved with, or start without it."
        )
    for name, tensor in ours.items():
        if theirs[name].shape != tensor.shape:
            raise UsageError(
                f"The checkpoint is another network's: '{name}' is {list(theirs[name].shape)} "
                f"there and {list(tensor.shape)} here; build the network it was saved with."
            )
    return [(tensor, theirs[name]) for name, tensor in ours.items()]


def plain_name(name: str) -> str:
    """Return a tensor's name without what DataParallel, DDP, FSDP and torch.compile put in it."""
    words = [word for word in name.split(".") if word not in _WRAPPERS]
    return ".".join(words[1:] if words[0] == "module" and len(words) > 1 else words)


def check_materialized(module: nn.Module) -> None:
    """Raise UsageError for a module with lazy layers that have not seen a batch."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise UsageError(
                f"'{name}' has no shape yet; run one batch through the module before attach."
            )


def _is_weight(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    return tensor.is_floating_point() or tensor.is_complex()


def _is_parameter(place: tuple[dict[str, Any], str]) -> bool:
    return isinstance(place[0][place[1]], nn.Parameter)
