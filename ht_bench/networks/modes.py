"""Evaluation mode for a while: each submodule's own mode comes back, by its own `train`.

A module may do work in `train()`: LoRA layers merge their update into the weight in evaluation
mode and take it out in training mode, a network may keep its BatchNorm frozen. So modes change by
calling `train(mode)`, never by the attribute; and since such work rounds, it is done on copies:
afterwards the weights have their old bits, and autograd sees no change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode and return each submodule to its own mode after."""
    with _mode(module, False):
        yield


@contextmanager
def training_form(module: nn.Module) -> Iterator[None]:
    """Hold the weights as training has them: modules with a `train` of their own are asked to.

    A network of stock modules is left as it is, in whatever mode.
    """
    if all(child.training for child in _with_own_train(module)):
        yield
        return
    with _mode(module, True):
        yield


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    children = list(module.modules())
    modes = [child.training for child in children]
    if all(mode is training for mode in modes):
        yield
        return
    with _set_aside(_with_own_train(module)):
        try:
            module.train(training)
            yield
        finally:
            _return_to(children, modes)


def _return_to(children: Sequence[nn.Module], modes: Sequence[bool]) -> None:
    """Call `train` on the root, then on those that it did not bring to their mode, top down."""
    children[0].train(modes[0])
    for child, mode in zip(children, modes, strict=True):
        if child.training is not mode:
            child.train(mode)
    for child, mode in zip(children, modes, strict=True):
        if child.training is not mode:  # its `train` cannot bring it there
            child.training = mode


def _with_own_train(module: nn.Module) -> list[nn.Module]:
    stock = nn.Module.train
    return [c for c in module.modules() if type(c).train is not stock or "train" in vars(c)]


@contextmanager
def _set_aside(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let copies take the place of these modules' tensors, and put the tensors' data back."""
    if not modules:
        yield
        return
    found = {
        id(tensor): tensor
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
        if not tensor.is_inference()
    }
    tensors = tuple(found.values())
    data: list[Tensor] = [tensor.data for tensor in tensors]
    preserve = torch.autograd._unsafe_preserve_version_counter  # type: ignore[attr-defined]
    with preserve(tensors):  # the bits come back too
        try:
            for tensor in tensors:
                tensor.data = tensor.data.clone()
            yield
        finally:
            for tensor, old in zip(tensors, data, strict=True):
                tensor.data = old
