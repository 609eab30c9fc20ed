"""Networks by name: `build` turns a task's `[net]` table into a module, `check` only reads it.

Importing this package loads no torch; each network's file is imported when it is asked for.
A network is a class or function `build(options, shape, classes) -> nn.Module`, [B, C, H, W] →
[B, classes], or one that takes `shape`, `classes` and its options as keywords. `options`, an
attribute, lists the keys of its table; keywords list themselves. One that takes `stack` too trains
so many seeds as one module, [S, B, C, H, W] → [S, B, classes], with a dimension of seeds in front
of all its tensors and the attribute `stacked = True`.

The package's own keep to more. `layers() -> list[str]` names the weight-carrying layers, input to
output, the output last (`parts.layers_of` finds those of others). Each non-linearity is a module
of its own, so that a forward hook sees what it puts out, and every parameter belongs to a module
with `reset_parameters()`: called on all of them in the order of `modules()`, it draws the network
anew as the constructor did.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ht_bench import registry
from ht_bench.errors import UsageError, did_you_mean, shown
from ht_bench.loading import is_reference

if TYPE_CHECKING:
    from torch import nn

_COMMON = ("activation", "linear_norm")
_OPTIONS = {
    "mlp": ("hidden", *_COMMON),
    "cnn": ("channels", "hidden", *_COMMON),
    "resnet18": _COMMON,
    "vgg16": _COMMON,
    "vit": _COMMON,
}
_FILES = {"resnet18": "resnet", "vgg16": "vgg"}
"""The file of a network that is not called as its file is."""

NAMES = tuple(_OPTIONS)
"""The package's own networks."""
_STACKING = ("mlp", "cnn")

registry.networks.provide(
    lambda: {name: f"{__name__}.{_FILES.get(name, name)}:build_{name}" for name in NAMES}
)
registry.activations.provide(
    lambda: {
        "relu": "torch.nn:ReLU",
        "crelu": f"{__name__}.parts:CReLU",
        "gelu": "torch.nn:GELU",
        "silu": "torch.nn:SiLU",
        "tanh": "torch.nn:Tanh",
        "leaky-relu": "torch.nn:LeakyReLU",
        "elu": "torch.nn:ELU",
        "selu": "torch.nn:SELU",
        "mish": "torch.nn:Mish",
        "softplus": "torch.nn:Softplus",
        "sigmoid": "torch.nn:Sigmoid",
        "fourier": f"{__name__}.activations:Fourier",
        "interval-dropout": f"{__name__}.activations:IntervalDropout",
    }
)
registry.norms.provide(
    lambda: {
        "none": f"{__name__}.norms:no_norm",
        "layer": f"{__name__}.norms:layer",
        "batch": f"{__name__}.norms:batch",
    }
)


def build(
    table: Mapping[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    stack: int | None = None,
) -> nn.Module:
    """Build the network of a `[net]` table, its weights drawn from torch's global generator.

    Args:
        table: the network's name, or a reference "file.py:Name", and its options.
        shape: (channels, height, width) of its images.
        classes: how many it tells apart.
        stack: None for a lone network, [B, C, H, W] → [B, classes]; the MLP then is a stack of
            one. A number for a network that trains so many seeds, [stack, B, C, H, W] →
            [stack, B, classes], with a dimension for the seeds in front of all its tensors.

    Raises:
        UsageError: for an unknown name, key or value, for images a network cannot take, for a
            stack of a network that has none, and for a user's network that is no such network.

    """
    name = check(table)
    options = {key: value for key, value in table.items() if key != "name"}
    builder: Callable[..., nn.Module] = registry.networks.find(name)
    if name == "mlp":
        return builder(options, shape, classes, 1 if stack is None else stack)
    if stack is not None and not stacks(name):
        raise UsageError(
            f"The network '{name}' does not stack seeds; set stack = 1 under [training]. Those "
            f"that do: {', '.join(filter(stacks, registry.networks.names()))}."
        )
    form = {} if stack is None else {"stack": stack}
    if registry.networks.is_from_outside(name):
        outside = importlib.import_module(f"{__name__}.outside")
        built: nn.Module = outside.build(name, builder, options, shape, classes, stack)
        return built
    return builder(options, shape, classes, **form)


def check(table: Mapping[str, Any]) -> str:
    """Return the network's name; raises UsageError if it, or a key of `table`, is unknown."""
    known = registry.networks.names()
    if "name" not in table:
        raise UsageError(f"[net]: the key 'name' is missing; name one of {', '.join(known)}.")
    name: str = table["name"]
    if not isinstance(name, str) or not (is_reference(name) or name in known):
        raise UsageError(
            f"[net]: unknown network {shown(name)}.{did_you_mean(str(name), known)} "
            f"Known networks: {', '.join(known)}."
        )
    keys = ("name", *_options(name))
    for key in table:
        if key not in keys:
            raise UsageError(
                f"[net]: unknown key {shown(key)} for the network '{name}'."
                f"{did_you_mean(str(key), keys)} "
                f"Known keys: {', '.join(keys)}."
            )
    return name


def stacks(name: str) -> bool:
    """Whether the network trains a stack of seeds as one module."""
    if name in NAMES:
        return name in _STACKING
    return "stack" in inspect.signature(registry.networks.find(name)).parameters


def _options(name: str) -> tuple[str, ...]:
    """Return the keys of a network's table, beside its name."""
    if name in NAMES:
        return _OPTIONS[name]
    builder = registry.networks.find(name)
    if not callable(builder):
        raise UsageError(f"[net] name = {shown(name)} is no class or function; name one.")
    taken = inspect.signature(builder).parameters
    own = getattr(builder, "options", None)
    if isinstance(own, list | tuple):
        return tuple(own)
    return tuple(key for key in taken if key not in ("options", "shape", "classes", "stack"))


def refuse_references(table: Mapping[str, Any]) -> None:
    """Raise UsageError for an untrusted `[net]` table that names code, which would be run."""
    for key, value in table.items():
        named = value.get("name") if isinstance(value, Mapping) else value
        if isinstance(named, str) and is_reference(named):
            raise UsageError(f"[net] {key} = {shown(named)} names code; only names are taken here.")


def filled(table: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes to a `[net]` table with each "$name" replaced by that hyperparameter.

    Raises UsageError for a name that is none.
    """

    def value_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: value_of(inner) for key, inner in value.items()}
        if not (isinstance(value, str) and value.startswith("$")):
            return value
        if value[1:] not in hyperparameters:
            raise UsageError(f"[net]: {shown(value)} names no hyperparameter of the method.")
        return hyperparameters[value[1:]]

    return {key: value_of(value) for key, value in table.items()}
