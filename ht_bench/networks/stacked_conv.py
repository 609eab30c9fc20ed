"""Convolutional networks whose layers carry a leading seed dimension (DESIGN: stacked seeds).

Weights are [S, out, in, k, k], images and feature maps [S, B, C, H, W], outputs [S, B, classes].
A GPU takes the seeds side by side, as groups of one convolution over [B, S·C, H, W], channels
last. On a CPU a seed alone fills the core, and maps of all seeds at once only cost fresh memory:
there each seed goes through the layers alone, by the arithmetic of a lone network, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ht_bench.networks.mlp import StackedBatchNorm, StackedLayerNorm, StackedLinear
from ht_bench.networks.noise import SeedNoise
from ht_bench.networks.parts import Chain, CReLU
from ht_bench.networks.seed_by_seed import call_each


def side_by_side(maps: Tensor) -> bool:
    """Whether the seeds of these maps are computed as groups of one operation."""
    return maps.device.type != "cpu"


def fold(maps: Tensor) -> Tensor:
    """Return [S, B, C, H, W] as [B, S·C, H, W], channels last; a view where memory lies so."""
    return maps.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)


def unfold(maps: Tensor, stack: int) -> Tensor:
    """Return [B, S·C, H, W] as a view [S, B, C, H, W]."""
    return maps.permute(0, 2, 3, 1).unflatten(3, (stack, -1)).permute(3, 0, 4, 1, 2)


def each_seed(maps: Tensor) -> tuple[Tensor, ...]:
    """Return every seed's maps [B, C, H, W], channels last."""
    flat = maps.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return flat.unflatten(0, maps.shape[:2]).unbind()


class StackedConv(nn.Module):
    """S convolutions without bias as one: [S, B, in, H, W] → [S, B, out, H, W]."""

    def __init__(
        self, stack: int, in_channels: int, out_channels: int, kernel: int, padding: int
    ) -> None:
        super().__init__()
        self.stack, self.padding = stack, padding
        self.weight = nn.Parameter(torch.empty(stack, out_channels, in_channels, kernel, kernel))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every seed's weights as `torch.nn.Conv2d` draws one layer's."""
        for weight in self.weight:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve each seed's maps with its own weights."""
        if side_by_side(inputs):
            weight = self.weight.flatten(0, 1)
            maps = functional.conv2d(fold(inputs), weight, None, 1, self.padding, 1, self.stack)
            return unfold(maps, self.stack)
        pairs = zip(each_seed(inputs), self.weight.unbind(), strict=True)
        maps = torch.cat(
            [functional.conv2d(x, weight, None, 1, self.padding) for x, weight in pairs]
        )
        return maps.unflatten(0, inputs.shape[:2])


class StackedBatchNorm2d(StackedBatchNorm):
    """S batch normalisations over the channels of [S, B, C, H, W], each with its own statistics.

    Channels are normalised one by one, so that one call over S·C channels is per seed by itself.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise by the batch in training, by the running statistics in evaluation."""
        if self.training:
            self.num_batches_tracked += 1
        tensors = self.running_mean, self.running_var, self.weight, self.bias
        if side_by_side(inputs):
            maps = self._normalise(fold(inputs), *(tensor.view(-1) for tensor in tensors))
            return unfold(maps, len(self.weight))
        rows = zip(each_seed(inputs), *(tensor.unbind() for tensor in tensors), strict=True)
        maps = torch.cat([self._normalise(*row) for row in rows])
        return maps.unflatten(0, inputs.shape[:2])

    def _normalise(
        self, maps: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        return functional.batch_norm(
            maps, mean, variance, weight, bias, self.training, self.momentum, self.epsilon
        )


class StackedMaxPool(nn.Module):
    """Maxima over squares of `size` x `size` of [S, B, C, H, W]."""

    def __init__(self, size: Any) -> None:
        super().__init__()
        self.size = size

    def forward(self, inputs: Tensor) -> Tensor:
        """Pool every map by itself."""
        if side_by_side(inputs):
            return unfold(functional.max_pool2d(fold(inputs), self.size), len(inputs))
        maps = torch.cat([functional.max_pool2d(x, self.size) for x in each_seed(inputs)])
        return maps.unflatten(0, inputs.shape[:2])


class StackedCReLU(CReLU):
    """`CReLU` over the channels of [S, B, C, H, W], leaving memory as `fold` reads it."""

    def __init__(self) -> None:
        super().__init__(dim=-3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return both halves, the positive first."""
        maps = inputs.permute(1, 3, 4, 0, 2)
        return torch.cat((torch.relu(maps), torch.relu(-maps)), -1).permute(3, 0, 4, 1, 2)


Forms = Mapping[nn.Module, Callable[[int], nn.Module | None]]


class StackedChain(nn.Module):
    """S networks like `lone` trained as one module: [S, B, C, H, W] → [S, B, classes].

    Its layers have the names of the lone network's, its tensors a dimension S in front, and its
    weights are drawn layer by layer, seed after seed. lone: a chain of this package's parts, best
    on the meta device, since its weights are not used. forms: for other modules of it what makes
    their like for a stack.
    """

    stacked = True
    noise: SeedNoise | None = None

    def __init__(self, lone: Chain, stack: int, forms: Forms | None = None) -> None:
        super().__init__()
        self.stack = stack
        for name, module in lone.named_children():
            self.add_module(name, _stack(module, stack, forms or {}))
        self._order = _pooling_first(lone)
        children = dict(lone.named_children())
        seed = Chain()
        for name in self._order:
            seed.add_module(name, children[name])
        # In a tuple, so that it is no submodule: its tensors are none of this network's.
        self.lone = (seed,)
        self._kinds = [type(child) for child in self.children()]

    def layers(self) -> list[str]:
        """Return the names of the weight-carrying layers, input to output."""
        kinds = (StackedConv, StackedLinear)
        return [name for name, child in self.named_children() if isinstance(child, kinds)]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [S, B, C, H, W] to logits [S, B, classes]."""
        if self._is_watched():
            return self._through(inputs, [name for name, _ in self.named_children()])
        if side_by_side(inputs):
            return self._through(inputs, self._order)
        return self._seed_by_seed(inputs)

    def _through(self, inputs: Tensor, names: list[str]) -> Tensor:
        hidden = inputs
        for name in names:
            hidden = self.get_submodule(name)(hidden)
        return hidden

    def _is_watched(self) -> bool:
        """Whether something looks at what passes between the layers, or has replaced one."""
        return [type(child) for child in self.children()] != self._kinds or any(
            child._forward_hooks
            or child._forward_pre_hooks
            or child._backward_hooks
            or child._backward_pre_hooks
            for child in list(self.modules())[1:]
        )

    def _seed_by_seed(self, inputs: Tensor) -> Tensor:
        """Send each seed's inputs through the lone network with the seed's tensors in it."""
        [network] = self.lone
        network.training = self.training
        for name, child in network.named_children():
            child.train(self.get_submodule(name).training)
        images = [own.contiguous(memory_format=torch.channels_last) for own in inputs.unbind()]
        return call_each(network, self, images, self.noise)


def _pooling_first(chain: Chain) -> list[str]:
    """Return the chain's names, each ReLU behind the pooling that follows it.

    Maxima and ReLU give the same numbers and gradients in either order, and ReLU has a quarter of
    the work behind the pooling.
    """
    names = [name for name, _ in chain.named_children()]
    for place in range(len(names) - 1):
        pair = [type(chain.get_submodule(name)) for name in names[place : place + 2]]
        if pair == [nn.ReLU, nn.MaxPool2d]:
            names[place : place + 2] = names[place + 1], names[place]
    return names


def _stack(module: nn.Module, stack: int, forms: Forms) -> nn.Module:
    """Return S new modules like `module` as one."""
    if module in forms and not isinstance(module, CReLU):
        form = forms[module](stack)
        assert form is not None  # as it was in the lone chain
        return form
    match module:
        case nn.Conv2d():
            sizes = module.in_channels, module.out_channels, module.kernel_size[0]
            return StackedConv(stack, *sizes, int(module.padding[0]))
        case nn.BatchNorm2d():
            return StackedBatchNorm2d(stack, module.num_features)
        case nn.MaxPool2d():
            return StackedMaxPool(module.kernel_size)
        case nn.Flatten():
            return nn.Flatten(2)
        case nn.Linear():
            return StackedLinear(stack, module.in_features, module.out_features)
        case nn.BatchNorm1d():
            return StackedBatchNorm(stack, module.num_features)
        case nn.LayerNorm():
            return StackedLayerNorm(stack, module.normalized_shape[0])
        case CReLU():
            return StackedCReLU() if module.dim in (1, -3) else CReLU()
        case nn.ReLU():
            return nn.ReLU()
    raise TypeError(f"{type(module).__name__} has no form for a stack of seeds.")
