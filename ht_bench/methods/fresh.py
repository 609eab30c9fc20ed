"""Freshly drawn weights for any module, by each layer's own `reset_parameters`."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

from ht_bench.errors import UsageError
from ht_bench.methods.derived import Derived, old_hooks
from ht_bench.networks.stacking import is_stacked

_REFUSED = (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError)


def redraw(
    module: nn.Module,
    generator: torch.Generator | list[torch.Generator] | None = None,
    within: tuple[str, ...] = ("",),
) -> dict[str, Tensor]:
    """Return new weights and buffers for `module` by name; the module itself is left alone.

    Layers are redrawn from the inside out, so that the outermost `reset_parameters` (or
    `_reset_parameters`, as torch's attention has it) has the last word; then a model's
    `_init_weights(module)` is applied where it has one. Weights under a parametrization are drawn
    without it and put through its inverse; masks of pruning stay. The draws come from `generator`
    (of a list each seed of a stack draws from its own, a lone network from the first) and leave
    torch's own state untouched; without one they come from torch's default generator. Raises
    UsageError for a layer below one of the prefixes `within`
    that cannot be redrawn, before anything is drawn.
    """
    _check(module, within)
    twin = _copied(module)
    bare = _without_derived_weights(twin)
    if generator is None:
        _reset(bare)
    elif isinstance(generator, list) and len(generator) > 1 and is_stacked(module):
        _reset_stack(bare, generator)
    else:
        _reset_from(bare, generator[0] if isinstance(generator, list) else generator)
    if bare is not twin:
        _put_into(twin, bare)
    named: dict[str, Tensor] = dict(twin.named_parameters())
    named.update(twin.named_buffers())
    return {name: tensor.detach() for name, tensor in named.items()}


def _reset_from(module: nn.Module, source: torch.Generator) -> None:
    """Redraw by a seed that `source` gives."""
    seed = int(torch.randint(2**62, (1,), generator=source, device=source.device).item())
    with torch.random.fork_rng(devices=_cuda_devices(module)):
        torch.manual_seed(seed)
        _reset(module)


@torch.no_grad()
def _reset_stack(module: nn.Module, sources: list[torch.Generator]) -> None:
    """Redraw each seed of a stack by its own generator, whatever its mates and its slot."""
    tensors = [*module.parameters(), *module.buffers()]
    drawn = []
    for source in sources:
        _reset_from(module, source)
        drawn.append([tensor[0].clone() for tensor in tensors])
    for tensor, values in zip(tensors, zip(*drawn, strict=True), strict=True):
        tensor.copy_(torch.stack(values))


def _check(module: nn.Module, within: tuple[str, ...]) -> None:
    """Raise UsageError for parameters that nothing redraws: their owner has no reset of its own."""
    for old in old_hooks(module):
        if isinstance(old.hook, WeightNorm):
            raise UsageError(
                f"The layer {type(old.module).__name__} is under torch.nn.utils.weight_norm, whose "
                "weights cannot be redrawn; use torch.nn.utils.parametrizations.weight_norm, or "
                "pass initialize= to attach."
            )
    inside = [
        n for n, c in module.named_modules() if isinstance(c, parametrize.ParametrizationList)
    ]
    for name, child in module.named_modules():
        needed = any(f"{name}.".startswith(prefix) for prefix in within)
        bare = next(child.parameters(recurse=False), None) is not None
        parametrized = any(name == i or name.startswith(f"{i}.") for i in inside)
        if needed and bare and not parametrized and _reset_of(child) is None:
            raise UsageError(
                f"The layer '{name or type(child).__name__}' holds parameters but has no "
                "reset_parameters(); give it one, or pass initialize= to attach."
            )


def _copied(module: nn.Module) -> nn.Module:
    """Return a deep copy, activations that modules keep included; raises UsageError if it fails."""
    memo: dict[int, Any] = {}
    for child in module.modules():
        for value in vars(child).values():
            if isinstance(value, Tensor) and value.requires_grad and not value.is_leaf:
                memo[id(value)] = value.detach().clone()  # deepcopy takes leaves alone
    try:
        return copy.deepcopy(module, memo)
    except (*_REFUSED, pickle.PicklingError) as error:
        raise UsageError(
            f"{type(module).__name__} cannot be copied, which redrawing its weights needs "
            f"({error}); pass initialize= to attach."
        ) from error


def _without_derived_weights(twin: nn.Module) -> nn.Module:
    """Return `twin`, or, where weights are derived from others, a copy with plain weights."""
    parametrized = any(parametrize.is_parametrized(child) for child in twin.modules())
    if not (parametrized or old_hooks(twin)):
        return twin
    bare = _copied(twin)
    for old in old_hooks(bare):
        vars(old.module).pop(old.name, None)
        old.module.register_parameter(old.name, old.module._parameters.pop(old.source))
    for child in bare.modules():
        if parametrize.is_parametrized(child):
            names = [*child.parametrizations]  # type: ignore[arg-type, misc]
            weights = {name: getattr(child, name).detach().clone() for name in names}
            # Not `remove_parametrizations`: copies share the class that it would change.
            child.__class__ = type(child).__bases__[0]
            del child.parametrizations
            for name, weight in weights.items():
                child.register_parameter(name, nn.Parameter(weight))
    for child in bare.modules():
        child._forward_pre_hooks.clear()
    return bare


@torch.no_grad()
def _put_into(twin: nn.Module, bare: nn.Module) -> None:
    """Give `twin`, weight by weight, what was drawn for its copy without derived weights."""
    olds = {(id(old.module), old.name): old.source for old in old_hooks(twin)}
    theirs = dict(bare.named_modules())
    for prefix, child in twin.named_modules():
        source = theirs.get(prefix)
        if source is None:  # a parametrization
            continue
        tensors: dict[str, Any] = {**source._parameters, **source._buffers}
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            if parametrize.is_parametrized(child, name):
                _invert(prefix, child, name, tensor.detach())
            else:
                own = child._parameters if name in source._parameters else child._buffers
                own[olds.get((id(child), name), name)].copy_(tensor)
    Derived(twin).follow()


def _invert(prefix: str, child: nn.Module, name: str, weight: Tensor) -> None:
    try:
        setattr(child, name, weight)
    except _REFUSED as error:
        raise UsageError(
            f"'{prefix}.{name}' is under a parametrization that cannot take a fresh weight "
            f"({error}); give it a right_inverse, or pass initialize= to attach."
        ) from error


def _reset(module: nn.Module) -> None:
    for child in _inside_out(module):
        reset = _reset_of(child)
        if reset is not None:
            reset()
    for child in _inside_out(module):
        initialize = getattr(child, "_init_weights", None)
        if callable(initialize) and _takes(initialize, 1):
            child.apply(initialize)


def _inside_out(module: nn.Module) -> list[nn.Module]:
    """Return the modules so that each comes behind those it holds; siblings in their order."""
    found: dict[int, nn.Module] = {}

    def visit(child: nn.Module) -> None:
        for inner in child.children():
            visit(inner)
        found.setdefault(id(child), child)

    visit(module)
    return list(found.values())


def _reset_of(module: nn.Module) -> Callable[[], Any] | None:
    for name in ("reset_parameters", "_reset_parameters"):
        reset = getattr(module, name, None)
        if callable(reset) and _takes(reset, 0):
            return reset  # type: ignore[no-any-return]
    return None


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _cuda_devices(module: nn.Module) -> list[torch.device]:
    return sorted({p.device for p in module.parameters() if p.device.type == "cuda"}, key=str)
