"""A network and its fresh twin trained alike: the same batches in the same order."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.diagnosis.examples import Examples
from ht_bench.errors import UsageError, reason
from ht_bench.methods.fresh import redraw
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import is_stacked

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MOST_AT_ONCE = 1_000
"""Examples that are evaluated in one forward pass."""


def copied(module: nn.Module) -> nn.Module:
    """Return a deep copy; raises UsageError where a module cannot be copied."""
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{type(module).__name__} cannot be copied ({reason(error)}), and it is a copy that "
            "is trained; give a module that `copy.deepcopy` takes."
        ) from error


def fresh_twin(
    module: nn.Module, generator: torch.Generator, build: Callable[[], nn.Module] | None
) -> nn.Module:
    """Return the module with what it trains drawn anew, by each layer or by `build`.

    Frozen parameters, and the buffers of modules that train nothing, are as in the module.
    Raises UsageError for a layer that cannot be redrawn, or a `build` of another network.
    """
    twin = copied(module)
    if build is None:
        owners = [name for name, child in module.named_modules() if _trains(child, False)]
        try:
            drawn = redraw(module, generator, tuple(f"{name}." for name in owners))
        except UsageError as error:
            raise UsageError(
                str(error).replace("pass initialize= to attach", "pass fresh=, which builds one")
            ) from error
    else:
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator).item()))
        drawn = named_tensors(build())
    with torch.no_grad():
        for name, tensor in named_tensors(twin).items():
            source = drawn.get(name)
            if source is None or source.shape != tensor.shape:
                raise UsageError(f"fresh= builds another network: its '{name}' does not fit.")
            owner = twin.get_submodule(name.rpartition(".")[0])
            if tensor.requires_grad or (
                not isinstance(tensor, nn.Parameter) and _trains(owner, True)
            ):
                tensor.copy_(source)
    return twin


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _trains(module: nn.Module, or_stateless: bool) -> bool:
    own = list(module.parameters(recurse=False))
    return any(p.requires_grad for p in own) or (or_stateless and not own)


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Leave torch's generators, of the CPU and of `device`, as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def forward(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs [B, …]; a stack of one seed is given its seed dimension."""
    outputs = module(inputs[None])[0] if is_stacked(module) else module(inputs)
    if not isinstance(outputs, Tensor):
        raise UsageError(
            f"{type(module).__name__} returns {type(outputs).__name__}; wrap it in a module that "
            "returns its outputs as one tensor."
        )
    return outputs


def check(module: nn.Module, examples: Examples) -> int:
    """Return how many classes the network tells apart (0: targets).

    Raises UsageError where inputs, outputs and labels do not fit together.
    """
    if not any(p.requires_grad for p in module.parameters()):
        raise UsageError(f"{type(module).__name__} has no parameter that requires a gradient.")
    few = examples.take(torch.arange(min(4, len(examples))))
    try:
        with torch.no_grad(), evaluation_mode(module):
            outputs = forward(module, few.inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{type(module).__name__} does not take inputs {list(few.inputs.shape)} of type "
            f"{few.inputs.dtype}: {reason(error)}."
        ) from error
    sizes = f"Outputs {list(outputs.shape)} and labels {list(few.labels.shape)}"
    if not examples.are_classes:
        if outputs.numel() != few.labels.numel():
            raise UsageError(f"{sizes}: floating labels need as many outputs.")
        return 0
    if outputs.dim() != few.labels.dim() + 1 or outputs.shape[2:] != few.labels.shape[1:]:
        raise UsageError(f"{sizes}: whole numbers are classes, and need one output each.")
    least, most = int(examples.labels.min()), int(examples.labels.max())
    if least < 0 or most >= outputs.shape[1]:
        raise UsageError(f"Labels of {least} to {most} for {outputs.shape[1]} outputs.")
    return outputs.shape[1]


def batches(count: int, size: int, steps: int, generator: torch.Generator) -> Tensor:
    """Return the indices of every batch, [steps, size]: epochs in random order, whole batches."""
    size = min(size, count)
    per_epoch = count // size
    epochs = math.ceil(steps / per_epoch)
    orders = [torch.randperm(count, generator=generator)[: per_epoch * size] for _ in range(epochs)]
    return torch.cat(orders).view(-1, size)[:steps]


def learning_curve(
    module: nn.Module,
    make_optimizer: MakeOptimizer,
    train: Examples,
    evaluated: Examples,
    order: Tensor,
    points: Iterable[int],
    advance: Callable[[int], Any] = lambda steps: None,
) -> list[float]:
    """Train `module` itself on the batches `order` and return its score after each of `points`."""
    optimizer = make_optimizer([p for p in module.parameters() if p.requires_grad])
    scores: list[Tensor] = []
    done = 0
    order = order.to(train.inputs.device)
    for point in points:
        module.train()
        for indices in order[done:point]:
            batch = train.take(indices)
            optimizer.zero_grad()
            batch.loss(forward(module, batch.inputs)).backward()
            optimizer.step()
        advance(point - done)
        done = point
        scores.append(_score(module, evaluated))
    return [float(score) for score in scores]


@torch.no_grad()
def _score(module: nn.Module, examples: Examples) -> Tensor:
    with evaluation_mode(module):
        parts = [forward(module, inputs) for inputs in examples.inputs.split(MOST_AT_ONCE)]
    return examples.score(torch.cat(parts))
