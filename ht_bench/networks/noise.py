"""Random numbers inside a network, in a stack each seed's own.

A lone network draws from torch's default generator, as `torch.nn.Dropout` does. In a stack that
would give a seed other numbers in another slot, so there a loop gives the network a `SeedNoise`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class SeedNoise:
    """One generator for each seed of a stack: a seed's draws depend on no mate and on no slot.

    generators: on the network's device; a CUDA graph must know them before it captures.
    """

    def __init__(self, stack: int, device: str = "cpu") -> None:
        self.generators = [torch.Generator(device) for _ in range(stack)]
        self._slot: int | None = None

    def key(self, seeds: Sequence[int]) -> None:
        """Start every seed's draws anew, each from its own number."""
        for generator, seed in zip(self.generators, seeds, strict=True):
            generator.manual_seed(seed)

    @contextmanager
    def of(self, slot: int) -> Iterator[None]:
        """Draw for one slot alone, whose tensors have no dimension of seeds."""
        self._slot = slot
        try:
            yield
        finally:
            self._slot = None

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Return numbers in [0, 1) of shape [S, ...], or [...] within `of`."""
        device = self.generators[0].device
        if self._slot is not None:
            return torch.rand(*shape, generator=self.generators[self._slot], device=device)
        drawn = torch.empty(*shape, device=device)
        for row, generator in zip(drawn.unbind(), self.generators, strict=True):
            row.uniform_(generator=generator)
        return drawn

    def state_dict(self) -> list[Tensor]:
        """Return the generators' states, for a checkpoint."""
        return [generator.get_state() for generator in self.generators]

    def load_state_dict(self, states: Sequence[Tensor]) -> None:
        """Take over what `state_dict` returned."""
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state.cpu())

    def __deepcopy__(self, memo: dict[int, Any]) -> SeedNoise:
        """Give a network's copy generators of its own, so that it takes no draw from the first."""
        twin = SeedNoise(len(self.generators), str(self.generators[0].device))
        twin.load_state_dict(self.state_dict())
        return twin


class Noisy(nn.Module):
    """A layer that draws random numbers, by `uniform`; subclass it for one of your own."""

    noise: SeedNoise | None = None

    def uniform(self, inputs: Tensor) -> Tensor:
        """Return float32 numbers in [0, 1), on the device and in the layout of `inputs`."""
        # Not rand_like, which fills memory in the order in which it lies: channels last differ.
        if self.noise is None:
            drawn = torch.rand(inputs.shape, device=inputs.device)
        else:
            drawn = self.noise.uniform(inputs.shape)
        if drawn.stride() == inputs.stride():
            return drawn
        return torch.empty_like(inputs, dtype=drawn.dtype).copy_(drawn)


def give_noise(module: nn.Module, noise: SeedNoise | None) -> bool:
    """Have all layers that draw do so from `noise`; returns whether there are any.

    A module that sends each seed through a lone network names that in `lone`, a tuple, and has an
    attribute `noise` of its own.
    """
    draws = False
    for child in module.modules():
        within = vars(child).get("lone", ())
        if isinstance(child, Noisy) or within:
            child.noise = noise  # type: ignore[assignment]
        inner = [give_noise(lone, noise) for lone in within]
        draws = draws or isinstance(child, Noisy) or any(inner)
    return draws


@contextmanager
def turn(noise: SeedNoise | None, slot: int) -> Iterator[None]:
    """Draw for one slot alone, where there is noise of a stack."""
    if noise is None:
        yield
        return
    with noise.of(slot):
        yield
