"""VGG-16 with BatchNorm for Tiny ImageNet.

Configuration D of Simonyan & Zisserman 2014 (1409.1556), each convolution (with bias) followed by
BatchNorm, with the head of the code of Lee et al. 2024 (2406.02596): the last feature map,
flattened, then hidden layers of 1024 and 1024 without dropout. 18,075,912 parameters for images of
3 x 64 x 64 and 200 classes. Layers keep PyTorch's default initialisation, as in that code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from ht_bench.networks.parts import Chain, check_divisible
from ht_bench.networks.style import Style, convolution, head

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions before each of the five poolings."""
HIDDEN = (1024, 1024)


def build_vgg16(options: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Chain:
    """Build the network: [B, C, H, W] → [B, classes], H and W multiples of 32.

    Options: activation, linear_norm. Raises UsageError for values and shapes it cannot take.
    """
    factor = 2 ** len(STAGES)
    check_divisible("vgg16", shape, factor)
    style = Style.read(options)
    inputs, height, width = shape
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    index = 0
    for stage, widths in enumerate(STAGES):
        for outputs in widths:
            modules |= convolution(style, inputs, outputs, index, bias=True)
            inputs, index = outputs, index + 1
        modules[f"pool{stage}"] = nn.MaxPool2d(2)
    modules["flatten"] = nn.Flatten()
    features = inputs * (height // factor) * (width // factor)
    return Chain(modules | head(style, features, HIDDEN, classes))
