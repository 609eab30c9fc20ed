"""Any layer as a layer of a stack: each seed goes through it by itself, with tensors of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ht_bench.networks.noise import SeedNoise, turn


class SeedBySeed(nn.Module):
    """S layers as `make` returns them, as one: [S, B, ...] → [S, B, ...].

    Parameters and buffers have the lone layer's names and a dimension S in front; a buffer must be
    changed in place. Weights are drawn seed after seed.
    """

    noise: SeedNoise | None = None

    def __init__(self, make: Callable[[], nn.Module], stack: int) -> None:
        super().__init__()
        self._make, self.stack = make, stack
        layers = [make() for _ in range(stack)]
        self.lone = (layers[0],)  # in a tuple, so that it is no submodule
        _widen(self, layers)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every seed's tensors as the constructor did."""
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for slot in range(self.stack):
            drawn = self._make()
            for name, tensor in (*drawn.named_parameters(), *drawn.named_buffers()):
                own[name][slot].copy_(tensor)

    def forward(self, inputs: Tensor) -> Tensor:
        """Send each seed's inputs through the lone layer with the seed's tensors in it."""
        [layer] = self.lone
        layer.train(self.training)
        return call_each(layer, self, inputs.unbind(), self.noise)


def call_each(
    lone: nn.Module, stack: nn.Module, inputs: Sequence[Tensor], noise: SeedNoise | None
) -> Tensor:
    """Return what `lone` makes of each seed's inputs with that seed's tensors of `stack`, stacked.

    Buffers that it changes in place change in the stack.
    """
    parameters, buffers = dict(stack.named_parameters()), dict(stack.named_buffers())
    tensors = {**parameters, **buffers}
    rows = zip(*(tensor.unbind() for tensor in tensors.values()), strict=True)
    outputs = []
    for slot, (own, row) in enumerate(zip(inputs, rows, strict=True)):
        named = dict(zip(tensors, row, strict=True))
        if lone.training:
            # Rows share one version: what a later seed changes would count as changed in this one.
            named.update({name: named[name].clone() for name in buffers})
        with turn(noise, slot):
            outputs.append(torch.func.functional_call(lone, named, (own,)))
        if lone.training:
            for name, buffer in buffers.items():
                buffer[slot].copy_(named[name])
    return torch.stack(outputs)


class _Held(nn.Module):
    """Tensors of a layer within."""

    def reset_parameters(self) -> None:
        """Leave it to the `SeedBySeed` around it."""


def _widen(target: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Give `target` the tensors of all layers, stacked, under the names that they have there."""
    first = layers[0]
    for name, parameter in first.named_parameters(recurse=False):
        rows = torch.stack([layer.get_parameter(name).detach() for layer in layers])
        target.register_parameter(name, nn.Parameter(rows, parameter.requires_grad))
    for name, _ in first.named_buffers(recurse=False):
        persistent = name not in first._non_persistent_buffers_set
        rows = torch.stack([layer.get_buffer(name) for layer in layers])
        target.register_buffer(name, rows, persistent)
    for name, _ in first.named_children():
        target.add_module(name, _Held())
        _widen(target.get_submodule(name), [layer.get_submodule(name) for layer in layers])
