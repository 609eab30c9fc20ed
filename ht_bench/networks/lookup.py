"""Activations and normalisations by name, built in or a user's own.

An activation is a class or function `(dim) -> nn.Module`, `dim` being where the features lie,
counted from the last dimension, or `() -> nn.Module`; its attribute `features` says how many
features it makes of one unit, 1 without it. A normalisation is `(units) -> nn.Module` or None.
In a stack of seeds a part without tensors works on [S, ...]; one with tensors is given a dimension
of seeds by `SeedBySeed`, unless it takes the argument `stack` and brings it along.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ht_bench import registry
from ht_bench.errors import UsageError, did_you_mean, reason, shown
from ht_bench.loading import is_reference
from ht_bench.networks.noise import SeedNoise, give_noise
from ht_bench.networks.parts import features_per_unit, is_nonlinearity
from ht_bench.networks.seed_by_seed import SeedBySeed


@dataclass(frozen=True)
class Part:
    """An activation or normalisation as a table names it: a name, or a table of name and options.

    Raises UsageError for an unknown name or option.
    """

    key: str
    named: Any
    known: registry.Registry
    make: Callable[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        """Look the name up."""
        table = dict(self.named) if isinstance(self.named, Mapping) else {"name": self.named}
        name = table.pop("name", None)
        make = _find(self.known, self.key, name)
        taken = arguments(make)
        for option in table:
            if option not in taken or option in ("dim", "units", "stack", "inplace"):
                raise UsageError(
                    f"[net] {self.key}: '{name}' has no option {shown(option)}."
                    f"{did_you_mean(str(option), taken)}"
                )
        object.__setattr__(self, "make", functools.partial(make, **table) if table else make)

    @property
    def features(self) -> int:
        """Features that one unit gives."""
        return int(getattr(getattr(self.make, "func", self.make), "features", 1))

    @property
    def is_from_outside(self) -> bool:
        """Whether it is not the package's own."""
        name = self.named["name"] if isinstance(self.named, Mapping) else self.named
        return self.known.is_from_outside(name)

    def build(self, where: int, stack: int | None = None) -> nn.Module | None:
        """Return a new module for features along `where`, or of so many units; None for none.

        stack: None for a lone network. Raises UsageError for what cannot serve there.
        """
        if self.is_from_outside or isinstance(self.named, Mapping):
            try_out(self, where, stack)
        return self.built(where, stack)

    def built(self, where: int, stack: int | None) -> nn.Module | None:
        """Return what `build` does, whatever it does to features."""
        make = functools.partial(call_with, self.make, where)
        if stack is None:
            return self._marked(make())
        if "stack" in arguments(self.make):
            return self._marked(make(stack=stack))
        with torch.random.fork_rng(devices=[]):
            lone = make()
        holds = isinstance(lone, nn.Module) and bool([*lone.parameters(), *lone.buffers()])
        return self._marked(SeedBySeed(make, stack) if holds else make())

    def _marked(self, module: Any) -> nn.Module | None:
        if module is None:
            return None
        if not isinstance(module, nn.Module):
            raise self.error(f"it makes a {type(module).__name__}, no torch.nn.Module")
        if self.known is registry.activations:
            if not is_nonlinearity(module):
                module.is_nonlinearity = True  # type: ignore[assignment]
            if features_per_unit(module) != self.features:
                module.features = self.features  # type: ignore[assignment]
        return module

    def error(self, sentence: str) -> UsageError:
        """Return the error that says this of the table's key."""
        return UsageError(f"[net] {self.key} = {shown(self.named)}: {sentence}.")


def try_out(part: Part, where: int, stack: int | None) -> None:
    """Raise UsageError unless a part of a user's, or with options, does what it says to features.

    In a stack it must also draw its random numbers as a `Noisy` layer does, and keep seeds apart.
    """
    units = 6 if where < 0 else where
    sizes = (4, units, *(1,) * (-1 - where if where < 0 else 0))
    inputs = torch.linspace(-2, 2, math.prod(sizes), device="cpu").view(sizes)
    if stack is not None:
        inputs = torch.stack((inputs, inputs))
    outputs, drawn = _tried(part, where, inputs, stack)
    if outputs is None:
        return
    expected = list(inputs.shape)
    if where < 0:
        expected[where] *= part.features
    found = list(getattr(outputs, "shape", ()))
    if found != expected:
        raise part.error(
            f"of shape {tuple(inputs.shape)} it makes {tuple(found)}, not {tuple(expected)}; an "
            "attribute `features` says how many it makes of one unit"
        )
    if stack is None:
        return
    if drawn:
        raise part.error(
            "in a stack its random numbers would depend on the other seeds; draw them by "
            "`uniform` of ht_bench.networks.noise.Noisy"
        )
    others, _ = _tried(part, where, torch.stack((inputs[0], inputs[1].flip(0) + 1)), stack)
    if not torch.equal(outputs[0], others[0]):
        raise part.error(
            "in a stack what it makes of one seed depends on the others; reduce over the last "
            "dimensions only, or set stack = 1 under [training]"
        )


@torch.no_grad()
def _tried(part: Part, where: int, inputs: torch.Tensor, stack: int | None) -> tuple[Any, bool]:
    """Return what a new module makes of inputs, and whether it drew from torch's generator."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(0)
        try:
            module = part.built(where, None if stack is None else len(inputs))
            if module is None:
                return None, False
            if stack is not None:
                noise = SeedNoise(len(inputs))
                noise.key(range(len(inputs)))
                give_noise(module, noise)
            before = torch.get_rng_state()
            outputs = module(inputs)
        except UsageError:
            raise
        except Exception as error:  # whatever another's code raises
            raise part.error(f"it fails ({reason(error)})") from error
        return outputs, not torch.equal(before, torch.get_rng_state())


def call_with(make: Callable[..., Any], where: int, **more: Any) -> Any:
    """Call a part's class or function, with dimension or units where it takes them."""
    taken = arguments(make)
    for name in ("dim", "units"):
        if name in taken:
            return make(**{name: where}, **more)
    required = [p for p in taken.values() if p.default is p.empty and p.kind in _POSITIONAL]
    return make(where, **more) if required else make(**more)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def arguments(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return what a class or function takes, by name; nothing where Python cannot tell."""
    try:
        return inspect.signature(make).parameters
    except (TypeError, ValueError):
        return {}


def _find(known: registry.Registry, key: str, name: Any) -> Callable[..., Any]:
    if isinstance(name, str) and (is_reference(name) or name in known.names()):
        make = known.find(name)
        if callable(make):
            return make  # type: ignore[no-any-return]
        raise UsageError(f"[net] {key} = {shown(name)} is no class or function; name one.")
    raise UsageError(
        f"[net] {key} = {shown(name)}: it must be one of {', '.join(known.names())}."
        f"{did_you_mean(str(name), known.names())}"
    )
