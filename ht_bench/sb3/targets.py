"""The tortoise as the network that TD targets bootstrap from.

stable-baselines3 moves its target network by itself: every `target_update_interval` environment
steps, by `tau`. The stand-in lets it: those updates fall on decoy weights, while the values come
from the tortoise, whatever `tau` and the interval are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ht_bench.methods.average import SlowCopy


@dataclass(frozen=True)
class _Hidden:
    """Keeps modules out of nn.Module's sight: neither trained, nor saved, nor clipped."""

    online: nn.Module
    slow: SlowCopy


class TortoiseTarget(nn.Module):
    """Computes what the target network would with the tortoise's weights.

    decoy: the algorithm's own target network; it absorbs polyak updates and its parameters are
    those of this module. online: the trained network. slow: the tortoise of `online`. The
    tortoise's storage is used, not copied, so it costs no time to keep up with.
    """

    def __init__(self, decoy: nn.Module, online: nn.Module, slow: SlowCopy) -> None:
        super().__init__()
        self.decoy = decoy
        self.link(online, slow)

    def link(self, online: nn.Module, slow: SlowCopy) -> None:
        """Compute with `slow`, the tortoise of `online`, from now on: a copy needs its own."""
        self._hidden = _Hidden(online, slow)
        self._network = [self._linked()]
        self._moved = False

    def _linked(self) -> nn.Module:
        """Return a copy of the target network that reads the tortoise's own tensors."""
        online, slow = self._hidden.online, self._hidden.slow.tensors()
        # The decoy may refer to the online network (double Q-learning); that is not copied.
        network = copy.deepcopy(self.decoy, {id(online): online})
        network.requires_grad_(False).eval()
        for name, parameter in network.named_parameters():
            parameter.data = slow[name]
        for prefix, child in network.named_modules():
            for key, buffer in child._buffers.items():
                if buffer is not None:
                    child._buffers[key] = slow[f"{prefix}.{key}" if prefix else key]
        return network

    def forward(self, *inputs: Any) -> Any:
        """Return the target network's outputs for `inputs` under the tortoise's weights."""
        if self._moved:
            self._hidden.slow.follow()
            self._network = [self._linked()]
            self._moved = False
        return self._network[0](*inputs)

    def set_training_mode(self, mode: bool) -> None:
        """Accept what stable-baselines3 asks of a target; the tortoise stays in evaluation mode."""
        self.decoy.train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tortoise out; the policy that owns it links its copy to the copied target."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_hidden", "_network")}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TortoiseTarget:
        super()._apply(fn, recurse)
        self._moved = True  # another device or dtype: the tortoise moves at the next use
        return self
