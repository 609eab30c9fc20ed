"""Methods that redraw weights when the data change: full reset, head reset, shrink and perturb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method


@dataclass(eq=False)
class FullReset(Method):
    """θ ← θ' at each phase start, buffers and optimizer state too: the from-scratch anchor."""

    name = "full-reset"

    def on_phase(self, index: int) -> None:
        """Start over: every parameter and buffer drawn anew, in place."""
        fresh = self.fresh()
        for name, tensor in self.tensors().items():
            tensor.copy_(fresh[name])
        self.clear_optimizer_state()


@dataclass(eq=False)
class HeadReset(Method):
    """The last `layers` layers ← θ' at each phase start (Nikishin et al. 2022, 2205.07802).

    Everything from the first of those layers to the output is redrawn: weights, the buffers of
    normalisations among them, and the optimizer's moments. `layers` = 0 does nothing.
    """

    name = "head-reset"

    layers: int = 1

    def setup(self) -> None:
        """Find the tensors of the head."""
        names = output_layers(self.module, self.layers)
        self._prefixes = tuple(f"{name}." for name in names)

    def on_phase(self, index: int) -> None:
        """Redraw the head and forget its moments."""
        if not self._prefixes:
            return
        fresh = self.fresh()
        for name, tensor in self.tensors().items():
            if name.startswith(self._prefixes):
                tensor.copy_(fresh[name])
        named = self.module.named_parameters()
        self.clear_optimizer_state([p for name, p in named if name.startswith(self._prefixes)])


@dataclass(eq=False)
class ShrinkPerturb(Method):
    """θ ← (1−c) θ + p θ' at each phase start (Ash & Adams 2020, 1910.08475).

    `amount` is c. `perturb` is p; None means p = c, the interpolation of Lee et al. 2024.
    `toward`: "fresh" draws θ' anew, "initial" uses θ0, taken at attach. c = 0.6 and p = 0.1 is
    the rule of Ash & Adams (0.4 θ + 0.1 θ'). Floating buffers interpolate with c, so that
    BatchNorm's statistics follow; other buffers are left. c = 0 does nothing.
    """

    name = "shrink-perturb"

    amount: float = 0.8
    perturb: float | None = None
    toward: Literal["fresh", "initial"] = "initial"

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= 1:
            raise UsageError(f"amount = {self.amount}: the share lies between 0 and 1.")
        if self.toward not in ("fresh", "initial"):
            raise UsageError(f"toward = {self.toward!r}: it must be 'fresh' or 'initial'.")

    def setup(self) -> None:
        """Keep θ0 if it is what the weights shrink toward."""
        self._initial: dict[str, Tensor] = {}
        if self.toward == "initial":
            self._initial = {name: tensor.clone() for name, tensor in self.tensors().items()}

    def on_phase(self, index: int) -> None:
        """Shrink and perturb in place."""
        if self.amount == 0 and not self.perturb:
            return
        target = self._initial if self.toward == "initial" else self.fresh()
        perturb = self.amount if self.perturb is None else self.perturb
        parameters = dict(self.module.named_parameters())
        for name, tensor in self.tensors().items():
            if name in parameters:
                tensor.mul_(1 - self.amount).add_(target[name], alpha=perturb)
            elif tensor.is_floating_point():
                tensor.lerp_(target[name], self.amount)

    def state_dict(self) -> dict[str, Any]:
        """Return θ0 where it is kept."""
        return {"initial": self._initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over θ0."""
        for name, tensor in self._initial.items():
            tensor.copy_(state["initial"][name])


def output_layers(module: nn.Module, count: int) -> list[str]:
    """Return the names of submodules from the `count`-th last weight layer to the output.

    A network's own `layers()` names its weight layers in order; elsewhere they are the modules
    that own a tensor of two dimensions or more, in registration order. A network with several
    outputs names one chain of layers for each in `chains`; the last ones of every chain count.
    Raises UsageError when there are fewer than `count`.
    """
    if count == 0:
        return []
    chains: list[list[str]] = getattr(module, "chains", [])
    if len(chains) > 1:
        shortest = min(len(chain) for chain in chains)
        if not 0 < count <= shortest:
            raise UsageError(f"layers = {count}: this network has {shortest} weight layers.")
        return list(dict.fromkeys(name for chain in chains for name in chain[-count:]))
    owners = [n for n, child in module.named_modules() if n and _owns_tensors(child)]
    layers = getattr(module, "layers", None)
    if callable(layers) and not isinstance(layers, nn.Module):  # many a net has a child `layers`
        weighted = list(layers())
    else:
        children = dict(module.named_modules())
        weighted = [name for name in owners if _owns_matrix(children[name])]
    if not 0 < count <= len(weighted):
        raise UsageError(f"layers = {count}: this network has {len(weighted)} weight layers.")
    return owners[owners.index(weighted[-count]) :]


def _owns_tensors(module: nn.Module) -> bool:
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return len(tensors) > 0


def _owns_matrix(module: nn.Module) -> bool:
    return any(tensor.dim() >= 2 for tensor in module.parameters(recurse=False))
