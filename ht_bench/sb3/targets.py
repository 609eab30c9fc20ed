"""The tortoise as the network that TD targets bootstrap from.

stable-baselines3 moves its target network by itself: every `target_update_interval` environment
steps, by `tau`. Here the target network's weights are the tortoise's own tensors, so that values
come from the tortoise whatever `tau` and the interval are; what the algorithm's update writes is
absorbed by tensors that nothing reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.sb3.callers import calling_algorithm
from ht_bench.sb3.joined import Joined
from ht_bench.sb3.places import Place, places_of, slow_tensors


class TortoiseTarget(Joined):
    """Mixin of a target network whose weights are the tortoise's: what writes to one writes both.

    Without a tie, as in a copy of the target alone, it is the algorithm's own network.
    """

    ties = ("_method", "_weights", "_statistics", "_tied", "_absorbing", "_moved", "_shared")
    _method: Method | None = None

    def tie(self, method: Method) -> None:
        """Share the tensors of `method.tortoise` from now on."""
        self._method = method
        self._weights: list[Place] = places_of(self, "_parameters")  # type: ignore[arg-type]
        self._statistics: list[Place] = places_of(self, "_buffers")  # type: ignore[arg-type]
        self._absorbing: list[Tensor] = []
        self._moved = False
        with torch.no_grad():
            for table, key, name in self._weights:
                _share(table[key], self._slow()[name])
        self._note()
        self.train(False)

    def _slow(self) -> dict[str, Tensor]:
        return slow_tensors(self._method.tortoise)  # type: ignore[union-attr]

    def _pointers(self) -> list[int]:
        return [table[key].data_ptr() for table, key, _ in self._weights]

    def _note(self) -> None:
        """Note where the weights lie, and which of the tortoise's tensors they share."""
        self._tied, self._moved = self._pointers(), False
        slow = self._slow()
        theirs = [slow[place.name].data_ptr() for place in self._weights]
        copies = getattr(self._method.tortoise, "values", None)  # type: ignore[union-attr]
        # With statistics, or other precisions, values are copied at each use.
        whole = theirs == self._tied and not any(p.name in slow for p in self._statistics)
        self._shared = copies if whole else None

    def keep_up(self) -> None:
        """Share again what came apart: by a move, by new tensors on either side."""
        method: Any = self._method
        if method is None:
            return
        shared = self._shared is not None and not self._moved
        if not (
            shared and method.tortoise.values is self._shared and self._pointers() == self._tied
        ):
            self._share_again()

    @torch.no_grad()
    def _share_again(self) -> None:
        if self._moved:
            self._method.tortoise.follow()  # type: ignore[union-attr]
        slow = self._slow()
        for place, pointer in zip(self._weights, self._tied, strict=True):
            mine, theirs = place.table[place.key], slow[place.name]
            if mine.data_ptr() == theirs.data_ptr():
                continue
            if mine.data_ptr() != pointer and not self._moved:  # `parameter.data = …` of a user
                theirs.copy_(mine)
            _share(mine, theirs)
        for table, key, name in self._statistics:
            if name in slow:  # by value: algorithms keep these tensors and write there
                table[key].copy_(slow[name])
        self._note()

    @torch.no_grad()
    def take_loaded(self) -> None:
        """Let the tortoise have what was loaded into this network."""
        slow = self._slow() if self._method is not None else {}
        for table, key, name in self._statistics if slow else ():
            if name in slow:
                slow[name].copy_(table[key])
        self.keep_up()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute as the target network does, with the tortoise's weights."""
        self.keep_up()
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """Return the weights; an algorithm's own update gets tensors that absorb it."""
        own: Iterator[Any] = super().parameters(recurse)  # type: ignore[misc]
        if self._method is None or calling_algorithm("train", "_on_step") is None:
            return own
        weights = list(own)
        if [(t.shape, t.dtype, t.device) for t in self._absorbing] != [
            (t.shape, t.dtype, t.device) for t in weights
        ]:
            self._absorbing = [torch.zeros_like(tensor) for tensor in weights]
        return iter(self._absorbing)

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation mode."""
        return super().train(False)  # type: ignore[misc]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        self._moved = True  # another device or dtype: the tortoise moves at the next use
        return super()._apply(fn, recurse)  # type: ignore[misc]


def _share(mine: Any, theirs: Tensor) -> None:
    """Let a parameter be the tortoise's tensor, or hold its value in another precision."""
    if mine.dtype == theirs.dtype and mine.device == theirs.device:
        mine.data = theirs
    else:
        mine.data.copy_(theirs)
