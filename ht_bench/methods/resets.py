"""Methods that redraw weights when the data change: full reset, head reset, shrink and perturb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.copies import Copies, matched
from ht_bench.methods.derived import Derived


@dataclass(eq=False)
class FullReset(Method):
    """θ ← θ' at each phase start, buffers and optimizer state too: the from-scratch anchor."""

    name = "full-reset"

    def on_phase(self, index: int) -> None:
        """Start over: every parameter and buffer drawn anew, parameters in place."""
        fresh = self.fresh()
        renew(self.module, self.tensors(), fresh)
        self.clear_optimizer_state()


@dataclass(eq=False)
class HeadReset(Method):
    """The last `layers` layers ← θ' at each phase start (Nikishin et al. 2022, 2205.07802).

    Everything from the first of those layers to the output is redrawn: weights, the buffers of
    normalisations among them, and the optimizer's moments. `layers` = 0 does nothing.
    """

    name = "head-reset"

    layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.layers, int) or isinstance(self.layers, bool):
            raise UsageError(f"layers = {self.layers!r}: give a whole number of them.")

    def setup(self) -> None:
        """Find the tensors of the head; a weight it shares with another layer is refused."""
        names = output_layers(self.module, self.layers)
        self._prefixes = tuple(f"{name}." for name in names)
        _check_untied(self.module, self._prefixes)

    def on_phase(self, index: int) -> None:
        """Redraw the head, as the module has it now, and forget its moments."""
        self.setup()
        if not self._prefixes:
            return
        head = {n: t for n, t in self.tensors().items() if n.startswith(self._prefixes)}
        renew(self.module, head, self.fresh(self._prefixes))
        named = self.module.named_parameters()
        self.clear_optimizer_state([p for name, p in named if name.startswith(self._prefixes)])


@dataclass(eq=False)
class ShrinkPerturb(Method):
    """θ ← (1−c) θ + p θ' at each phase start (Ash & Adams 2020, 1910.08475).

    `amount` is c. `perturb` is p; None means p = c, the interpolation of Lee et al. 2024.
    `toward`: "fresh" draws θ' anew, "initial" uses θ0, taken at attach. c = 0.6 and p = 0.1 is
    the rule of Ash & Adams (0.4 θ + 0.1 θ'). Running statistics interpolate with c, so that
    BatchNorm's follow; other buffers are left. c = 0 does nothing.
    """

    name = "shrink-perturb"

    amount: float = 0.8
    perturb: float | None = None
    toward: Literal["fresh", "initial"] = "initial"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.amount <= 1:
            raise UsageError(f"amount = {self.amount}: the share lies between 0 and 1.")
        if self.toward not in ("fresh", "initial"):
            raise UsageError(f"toward = {self.toward!r}: it must be 'fresh' or 'initial'.")

    def setup(self) -> None:
        """Keep θ0 if it is what the weights shrink toward."""
        self._initial = Copies(self.module, statistics=True) if self.toward == "initial" else None

    def on_phase(self, index: int) -> None:
        """Shrink and perturb in place."""
        if self.amount == 0 and not self.perturb:
            return
        weights = self._initial or Copies(self.module, statistics=True)
        weights.now()  # refuses a module that has changed, moves θ0 beside it
        target = weights.named() if self._initial else self.fresh()
        own, parameters = self.tensors(), dict(self.module.named_parameters())
        moved = {name: own[name] for name in weights.named() if name in own}
        perturb = self.amount if self.perturb is None else self.perturb
        given = {name: target[name] for name in moved if name in target}
        for (tensor, toward), name in zip(matched(moved, given), moved, strict=True):
            if name in parameters:
                tensor.mul_(1 - self.amount).add_(toward, alpha=perturb)
            else:
                tensor.lerp_(toward, self.amount)
        Derived(self.module).follow()

    def resync(self) -> None:
        """θ0 ← the present weights, where it is kept."""
        if self._initial:
            self._initial.restart()
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return θ0 where it is kept."""
        return {"initial": self._initial.named()} if self._initial else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over θ0."""
        if self._initial:
            self._initial.load(state["initial"])


def renew(module: nn.Module, tensors: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> None:
    """Give the `tensors` of `module`, by name, their fresh values.

    Parameters keep their storage; a buffer that is of another shape, or whose elements share
    memory, is replaced. Raises UsageError, before anything is written, where `fresh` is another
    network's.
    """
    lacking = next((name for name in tensors if name not in fresh), None)
    if lacking is not None:
        raise UsageError(f"initialize() returned no '{lacking}'; return every weight and buffer.")
    parameters = {name for name, _ in module.named_parameters()}
    weights = {name: tensor for name, tensor in tensors.items() if name in parameters}
    for tensor, value in matched(weights, {name: fresh[name] for name in weights}):
        tensor.copy_(value)
    for name, buffer in tensors.items():
        value = fresh[name]
        if name in parameters:
            continue
        if buffer.shape == value.shape and 0 not in buffer.stride():
            buffer.copy_(value)
        else:
            prefix, _, key = name.rpartition(".")
            buffers = module.get_submodule(prefix)._buffers
            buffers[key] = value.to(buffer.device, buffer.dtype, copy=True)


def _check_untied(module: nn.Module, prefixes: tuple[str, ...]) -> None:
    outside: dict[int, str] = {}
    inside: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        (inside if name.startswith(prefixes) else outside)[id(parameter)] = name
    tied = next((name for key, name in inside.items() if prefixes and key in outside), None)
    if tied is not None:
        raise UsageError(
            f"The head's '{tied}' is also the weight of '{outside[id(module.get_parameter(tied))]}'"
            ", which a head reset would redraw too; untie them, or use full-reset."
        )


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
            raise Unsuitable(f"layers = {count}: this network has {shortest} weight layers.")
        return list(dict.fromkeys(name for chain in chains for name in chain[-count:]))
    owners = [n for n, child in _layers(module) if n and _owns_tensors(child)]
    layers = getattr(module, "layers", None)
    if callable(layers) and not isinstance(layers, nn.Module):  # many a net has a child `layers`
        weighted = list(layers())
    else:
        children = dict(_layers(module))
        weighted = [name for name in owners if _owns_matrix(children[name])]
    if not 0 < count <= len(weighted):
        raise Unsuitable(f"layers = {count}: this network has {len(weighted)} weight layers.")
    return owners[owners.index(weighted[-count]) :]


def _layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the named modules; parametrizations belong to the layer whose weight they make."""
    return [(n, c) for n, c in module.named_modules() if "parametrizations" not in n.split(".")]


def _owns_tensors(module: nn.Module) -> bool:
    return bool(_own(module)) or next(module.buffers(recurse=False), None) is not None


def _owns_matrix(module: nn.Module) -> bool:
    return any(tensor.dim() >= 2 for tensor in _own(module))


def _own(module: nn.Module) -> list[nn.Parameter]:
    own = list(module.parameters(recurse=False))
    if parametrize.is_parametrized(module):
        own += module.parametrizations.parameters()  # type: ignore[union-attr, operator]
    return own
