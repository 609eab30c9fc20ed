"""A multilayer perceptron whose layers carry a leading seed dimension (DESIGN: stacked seeds).

Weights are [S, out, in], inputs [S, B, ...], outputs [S, B, classes]. Each seed's weights are
drawn exactly as a lone `torch.nn.Linear` draws them, and one seed's numbers never meet another's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.networks.chain import Chain, plain_autograd, unobserved
from ht_bench.networks.parts import check_size, read_widths
from ht_bench.networks.stacking import is_stacked
from ht_bench.networks.style import Style


class StackedLinear(nn.Module):
    """S linear layers as one: [S, B, in] → [S, B, out]; weight [S, out, in], bias [S, out]."""

    def __init__(self, stack: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(stack, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(stack, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every seed's weights as `torch.nn.Linear` draws one layer's, weight then bias."""
        bound = 1 / math.sqrt(self.in_features)
        for weight, bias in zip(self.weight, self.bias, strict=True):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the S products in one batched call."""
        return torch.baddbmm(self.bias[:, None], inputs, self.weight.mT)


class StackedBatchNorm(nn.Module):
    """S batch normalisations over [S, B, features], each with its own statistics.

    As `torch.nn.BatchNorm1d`: biased variance to normalise, unbiased for the running one.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, stack: int, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, 1e-5
        self.weight = nn.Parameter(torch.ones(stack, features))
        self.bias = nn.Parameter(torch.zeros(stack, features))
        self.register_buffer("running_mean", torch.zeros(stack, features))
        self.register_buffer("running_var", torch.ones(stack, features))
        self.register_buffer("num_batches_tracked", torch.zeros(stack, dtype=torch.long))

    def reset_parameters(self) -> None:
        """Forget the statistics and return to the identity."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise by the batch in training, by the running statistics in evaluation."""
        if self.training:
            variance, mean = torch.var_mean(inputs, dim=1, correction=0)
            self._track(mean, variance, inputs.shape[1])
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.epsilon)
        return torch.addcmul((self.bias - mean * scale)[:, None], inputs, scale[:, None])

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked += 1


class StackedLayerNorm(nn.Module):
    """S layer normalisations over the last dimension of [S, B, features]."""

    def __init__(self, stack: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(stack, features))
        self.bias = nn.Parameter(torch.zeros(stack, features))

    def reset_parameters(self) -> None:
        """Return to the identity."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise each example's features."""
        normal = nn.functional.layer_norm(inputs, inputs.shape[-1:])
        return torch.addcmul(self.bias[:, None], normal, self.weight[:, None])


class StackedMLP(nn.Module):
    """S perceptrons trained as one module: linear, normalisation, activation; then the output.

    sizes: features from input to output. activation, linear_norm: as a `[net]` table has them.
    """

    stacked = True

    def __init__(
        self, sizes: tuple[int, ...], stack: int, activation: Any, linear_norm: Any
    ) -> None:
        super().__init__()
        self.stack, style = stack, Style(activation, linear_norm)
        modules: dict[str, nn.Module] = {}
        for index, (inputs, width) in enumerate(itertools.pairwise(sizes[:-1])):
            units = style.units(width)
            modules[f"linear{index}"] = StackedLinear(stack, inputs, units)
            norm = style.make_linear_norm(units, stack)
            if norm is not None:
                modules[f"norm{index}"] = norm
            modules[f"activation{index}"] = style.make_activation(stack=stack)
        modules["output"] = StackedLinear(stack, sizes[-2], sizes[-1])
        for name, module in modules.items():
            self.add_module(name, module)

    def layers(self) -> list[str]:
        """Return the names of the weight-carrying layers, input to output."""
        return [name for name, child in self.named_children() if isinstance(child, StackedLinear)]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [S, B, ...] to logits [S, B, classes]; each example is flattened."""
        hidden, children = inputs.flatten(2), list(self.children())
        parameters = self._plain_chain(children)
        if parameters and plain_autograd([hidden, *parameters]) and unobserved(children):
            return Chain.apply(hidden, *parameters)
        for module in children:
            hidden = module(hidden)
        return hidden

    def _plain_chain(self, children: Sequence[nn.Module]) -> list[Tensor]:
        """The parameters, layer by layer, of linear layers with ReLU between; else none."""
        kinds = (StackedLinear, nn.ReLU)
        if any(type(child) is not kinds[place % 2] for place, child in enumerate(children)):
            return []
        layers = cast(Sequence[StackedLinear], children[::2])
        return [tensor for layer in layers for tensor in (layer.weight, layer.bias)]


def build_mlp(
    options: Mapping[str, Any], shape: tuple[int, int, int], classes: int, stack: int
) -> nn.Module:
    """Build the stacked perceptron of a `[net]` table: hidden, activation, linear_norm.

    Raises UsageError for values it does not know and widths that are not positive or, with an
    activation of two features a unit, odd.
    """
    hidden = read_widths(options, "hidden", (128, 128))
    sizes = (math.prod(shape), *hidden, classes)
    check_size(sizes, stack)
    activation, norm = options.get("activation", "relu"), options.get("linear_norm", "none")
    return StackedMLP(sizes, stack, activation, norm)


@torch.no_grad()
def copy_seed(source: nn.Module, target: nn.Module, slot: int) -> None:
    """Copy the one seed held by `source` (a stack of width 1) into `slot` of `target`."""
    if not (is_stacked(source) and is_stacked(target)):
        raise UsageError("copy_seed needs two stacked networks.")
    theirs = dict(source.state_dict())
    for name, tensor in target.state_dict().items():
        tensor[slot].copy_(theirs[name][0])
