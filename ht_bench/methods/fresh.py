"""Freshly drawn weights for any module, by each layer's own `reset_parameters`."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError


def redraw(
    module: nn.Module, generator: torch.Generator | list[torch.Generator] | None = None
) -> dict[str, Tensor]:
    """Return new weights and buffers for `module` by name; the module itself is left alone.

    The draws come from `generator` (its first, of a list) and leave torch's own state untouched;
    without one they come from torch's default generator. Raises UsageError for a module that
    holds parameters of its own but no `reset_parameters`.
    """
    twin = copy.deepcopy(module)
    if generator is None:
        _reset(twin)
    else:
        source = generator[0] if isinstance(generator, list) else generator
        seed = int(torch.randint(2**62, (1,), generator=source, device=source.device).item())
        with torch.random.fork_rng(devices=_cuda_devices(module)):
            torch.manual_seed(seed)
            _reset(twin)
    named: dict[str, Tensor] = dict(twin.named_parameters())
    named.update(twin.named_buffers())
    return {name: tensor.detach() for name, tensor in named.items()}


def _reset(module: nn.Module) -> None:
    for name, child in module.named_modules():
        reset = getattr(child, "reset_parameters", None)
        if callable(reset):
            reset()
        elif next(child.parameters(recurse=False), None) is not None:
            raise UsageError(
                f"The layer '{name or type(child).__name__}' holds parameters but has no "
                "reset_parameters(); give it one, or pass initialize= to attach."
            )


def _cuda_devices(module: nn.Module) -> list[torch.device]:
    return sorted({p.device for p in module.parameters() if p.device.type == "cuda"}, key=str)
