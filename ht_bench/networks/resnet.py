"""ResNet-18 for small images.

He et al. 2015 (1512.03385) with the stem that is usual on CIFAR: a 3x3 convolution of stride 1 and
no max pooling; global average pooling, then, as in the code of Lee et al. 2024 (2406.02596), one
hidden layer of 512 and the output. 11,436,618 parameters for 3 channels and 10 classes. Layers
keep PyTorch's default initialisation, as in that code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ht_bench.networks.parts import Network
from ht_bench.networks.style import CHANNELS, Style, convolution, head

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and first stride of the four stages, two blocks each."""
HIDDEN = 512


class Block(nn.Module):
    """Two 3x3 convolutions around which the input is added: [B, inputs, H, W] → [B, width, H', W'].

    Where stride or width change, a 1x1 convolution takes the input along.
    """

    def __init__(self, style: Style, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        units = style.units(width)
        self.conv1 = nn.Conv2d(inputs, units, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(units)
        self.activation1 = style.make_activation(CHANNELS)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)
        # ReLU where a unit gives two features (CReLU, [sin, cos]): they would double the sum, which
        # the next identity shortcut must match.
        self.activation2 = style.make_activation(CHANNELS) if style.features == 1 else nn.ReLU()

    def unit_groups(self) -> list[list[str]]:
        """Return the run of modules whose units nothing but the next of them reads."""
        return [["conv1", "norm1", "activation1", "conv2"]]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return activation(residual(inputs) + shortcut(inputs))."""
        hidden = self.activation1(self.norm1(self.conv1(inputs)))
        return self.activation2(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


class ResNet18(Network):
    """Stem, eight residual blocks, mean over positions, head: [B, C, H, W] → [B, classes]."""

    def __init__(self, style: Style, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(style, channels, STAGES[0][0], 0, bias=False))
        self.blocks = nn.Sequential()
        inputs = STAGES[0][0]
        for width, stride in STAGES:
            self.blocks.append(Block(style, inputs, width, stride))
            self.blocks.append(Block(style, width, width, 1))
            inputs = width
        self.head = nn.Sequential(head(style, inputs, (HIDDEN,), classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


def build_resnet18(
    options: Mapping[str, Any], shape: tuple[int, int, int], classes: int
) -> ResNet18:
    """Build the network for images of any size.

    Options: activation, linear_norm. An activation with several features of a unit ("crelu")
    replaces every ReLU but those after a residual sum. Raises UsageError for values it does not
    know.
    """
    return ResNet18(Style.read(options), shape[0], classes)


def _shortcut(inputs: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == width:
        return nn.Identity()
    convolution = nn.Conv2d(inputs, width, 1, stride, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(width)))
