"""Networks by name: `build` turns a task's `[net]` table into a module, `check` only reads it.

Importing this package loads no torch; each network's file is imported when it is asked for.
Every network has `stacked: bool` (its tensors have a leading seed dimension) and
`layers() -> list[str]` (the weight-carrying layers by name, input to output, the output last).
Each non-linearity is a module of its own, so that a forward hook sees what it puts out, and every
parameter belongs to a module with `reset_parameters()`: called on all of them in the order of
`modules()`, it draws the network anew as the constructor did.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ht_bench.errors import UsageError, did_you_mean, shown

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
"""The networks `build` knows."""
STACKING = ("mlp", "cnn")
"""The networks that train a stack of seeds as one module."""


def build(
    table: Mapping[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    stack: int | None = None,
) -> nn.Module:
    """Build the network of a `[net]` table, its weights drawn from torch's global generator.

    Args:
        table: the network's name and options.
        shape: (channels, height, width) of its images.
        classes: how many it tells apart.
        stack: None for a lone network, [B, C, H, W] → [B, classes]; the MLP then is a stack of
            one. A number for a network that trains so many seeds, [stack, B, C, H, W] →
            [stack, B, classes], with a dimension for the seeds in front of all its tensors.

    Raises:
        UsageError: for an unknown name, key or value, for images a network cannot take, and for
            a stack of a network that has none.

    """
    name = check(table)
    options = {key: value for key, value in table.items() if key != "name"}
    builder: Callable[..., nn.Module] = _load(_FILES.get(name, name), f"build_{name}")
    if name == "mlp":
        # The perceptron reads its options without checking the common ones.
        _load("parts", "Style").read(options)
        return builder(options, shape, classes, 1 if stack is None else stack)
    if stack is None:
        return builder(options, shape, classes)
    if name not in STACKING:
        raise UsageError(
            f"The network '{name}' does not stack seeds; set stack = 1 under [training]. Those "
            f"that do: {', '.join(STACKING)}."
        )
    return builder(options, shape, classes, stack)


def check(table: Mapping[str, Any]) -> str:
    """Return the network's name; raises UsageError if it, or a key of `table`, is unknown."""
    if "name" not in table:
        raise UsageError(f"[net]: the key 'name' is missing; name one of {', '.join(NAMES)}.")
    name: str = table["name"]
    if name not in NAMES:
        raise UsageError(
            f"[net]: unknown network {shown(name)}.{did_you_mean(str(name), NAMES)} "
            f"Known networks: {', '.join(NAMES)}."
        )
    keys = ("name", *_OPTIONS[name])
    for key in table:
        if key not in keys:
            raise UsageError(
                f"[net]: unknown key {shown(key)} for the network '{name}'."
                f"{did_you_mean(key, keys)} "
                f"Known keys: {', '.join(keys)}."
            )
    return name


def _load(file: str, attribute: str) -> Any:
    return getattr(importlib.import_module(f"{__name__}.{file}"), attribute)
