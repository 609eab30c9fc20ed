"""A user's network: built from its table, and tried before it is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ht_bench.errors import UsageError, reason
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.parts import layers_of
from ht_bench.networks.stacking import is_stacked


def build(
    name: str,
    builder: Callable[..., Any],
    options: Mapping[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    stack: int | None,
) -> nn.Module:
    """Call a user's builder; raises UsageError for what it raises or returns."""
    taken = inspect.signature(builder).parameters
    form = {} if stack is None else {"stack": stack}
    try:
        if "options" in taken:
            module = builder(dict(options), shape, classes, **form)
        else:
            module = builder(shape=shape, classes=classes, **options, **form)
    except UsageError:
        raise
    except Exception as error:  # whatever another's code raises
        raise UsageError(f"The network '{name}' cannot be built: {reason(error)}.") from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"The network '{name}' is a {type(module).__name__}; return a torch.nn.Module."
        )
    if is_stacked(module) is (stack is None):
        said = "True" if stack is None else "not"
        raise UsageError(
            f"The network '{name}' was asked for {'one seed' if stack is None else 'a stack'}, but "
            f"`stacked` is {said}; only a network built with `stack` has the attribute."
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        _call(name, module, torch.zeros(1, *shape))
    return module


def try_out(
    name: str, module: nn.Module, shape: tuple[int, int, int], classes: int, stack: int | None
) -> None:
    """Raise UsageError unless a network maps images to logits, seeds apart; it stays as it was."""
    seeds = () if stack is None else (stack,)
    images = torch.zeros(*seeds, 2, *shape)
    layers_of(module)
    with torch.random.fork_rng(devices=[]):
        outputs = _call(name, module, images)
    expected = (*seeds, 2, classes)
    if not isinstance(outputs, torch.Tensor) or tuple(outputs.shape) != expected:
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs)
        raise UsageError(
            f"The network '{name}' makes {found} of images {tuple(images.shape)}; logits of shape "
            f"{expected} are wanted."
        )
    for key, tensor in (*module.named_parameters(), *module.named_buffers()):
        if stack is not None and (tensor.dim() == 0 or len(tensor) != stack):
            raise UsageError(
                f"The network '{name}' stacks {stack} seeds, but '{key}' has the shape "
                f"{tuple(tensor.shape)}; its first dimension must be that of the seeds."
            )


@torch.no_grad()
def _call(name: str, module: nn.Module, images: torch.Tensor) -> Any:
    """Return what the network makes of images in evaluation; raises UsageError where it fails."""
    with evaluation_mode(module):
        try:
            return module(images)
        except Exception as error:  # whatever another's code raises
            raise UsageError(
                f"The network '{name}' fails on images of shape {tuple(images.shape)}: "
                f"{reason(error)}."
            ) from error
