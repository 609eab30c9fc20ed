"""A chain of stacked linear layers with ReLU between them, its gradient written by hand.

What autograd spends beside the products (transposed copies of weight gradients, a node for each
operation) is about half of a small network's backward pass. The numbers are autograd's, but for
the rounding of a weight's gradient on processors that sum a transposed product in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules


def chain(inputs: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the outputs [S, B, out]; parameters: weight [S, out, in] and bias [S, out] of each."""
    hidden = inputs
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        if hidden is not inputs:
            hidden = torch.relu(hidden)
        hidden = torch.baddbmm(bias[:, None], hidden, weight.mT)
    return hidden


class Chain(torch.autograd.Function):
    """`chain` with the gradient of all layers in one node."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *parameters: Tensor) -> Tensor:  # type: ignore[override]
        """Keep each layer's inputs; ReLU works in place, since its own inputs are not needed."""
        hidden, kept = inputs, list[Tensor]()
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            if kept:
                hidden = hidden.relu_()
            kept.append(hidden)
            hidden = torch.baddbmm(bias[:, None], hidden, weight.mT)
        ctx.save_for_backward(*parameters, *kept)
        return hidden

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of inputs and parameters; None for those that need none."""
        layers, saved = len(ctx.saved_tensors) // 3, ctx.saved_tensors
        parameters, kept = saved[: 2 * layers], saved[2 * layers :]
        needed, [gradient] = ctx.needs_input_grad, gradients
        if torch.is_grad_enabled():  # of a gradient that is itself differentiated
            return _differentiable(gradient, (kept[0], *parameters), needed)
        found: list[Tensor | None] = []
        for layer in reversed(range(layers)):
            wants_weight, wants_bias = needed[1 + 2 * layer : 3 + 2 * layer]
            found.append(gradient.sum(1) if wants_bias else None)
            found.append(torch.bmm(gradient.mT, kept[layer]) if wants_weight else None)
            if layer:
                product = torch.bmm(gradient, parameters[2 * layer])
                gradient = torch.ops.aten.threshold_backward(product, kept[layer], 0)
        inputs = torch.bmm(gradient, parameters[0]) if needed[0] else None
        return inputs, *reversed(found)


def _differentiable(
    gradient: Tensor, tensors: Sequence[Tensor], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The same gradients with a graph of their own, by running the chain again."""
    wanted = [tensor for tensor, need in zip(tensors, needed, strict=True) if need]
    outputs = chain(tensors[0], tensors[1:])
    found = iter(torch.autograd.grad(outputs, wanted, gradient, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


def unobserved(layers: Sequence[nn.Module]) -> bool:
    """Whether nothing watches or changes what happens inside these modules' calls."""
    if modules._has_any_global_hook():  # type: ignore[no-untyped-call]
        return False
    return not any(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
        for layer in layers
    )


def plain_autograd(tensors: Sequence[Tensor]) -> bool:
    """Whether these are float32 tensors in a plain eager pass whose gradient is wanted.

    Autocast, functorch, forward-mode derivatives, tracing and compiling see the operations one by
    one.
    """
    return (
        torch.is_grad_enabled()
        and tensors[0].device.type in ("cpu", "cuda")  # "meta" has no autocast to ask for
        and not torch.is_autocast_enabled(tensors[0].device.type)
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and not torch.compiler.is_compiling()
        and all(t.dtype == torch.float32 and type(t) in (Tensor, nn.Parameter) for t in tensors)
    )
