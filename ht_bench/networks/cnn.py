"""A small convolutional network for tasks that run on a CPU.

This benchmark's own, after no paper: per entry of `channels` a block Conv 3x3 (padding 1, no bias,
since BatchNorm removes it), BatchNorm, activation, MaxPool 2; then hidden linear layers and the
output. Layers keep PyTorch's default initialisation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ht_bench.networks.parts import Chain, check_divisible, check_size, read_widths
from ht_bench.networks.stacked_conv import StackedChain
from ht_bench.networks.style import Style, convolution, head


def build_cnn(
    options: Mapping[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    stack: int | None = None,
) -> nn.Module:
    """Build the network: [B, C, H, W] → [B, classes], H and W multiples of 2 per block (8).

    Options: channels (default [32, 64, 128]), hidden (default [256]; one integer stands for one
    layer), activation, linear_norm. stack: seeds of a stack, [S, B, C, H, W] → [S, B, classes].
    Raises UsageError for values and shapes it cannot take.
    """
    if stack is None:
        return _build_lone(options, shape, classes, Style.read(options))
    style = Style.read(options)
    with torch.device("meta"):
        lone = _build_lone(options, shape, classes, style, stack)
    return StackedChain(lone, stack, style.forms)


def _build_lone(
    options: Mapping[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    style: Style,
    stack: int = 1,
) -> Chain:
    channels = read_widths(options, "channels", (32, 64, 128))
    hidden = read_widths(options, "hidden", (256,))
    factor = 2 ** len(channels)
    check_divisible("cnn", shape, factor)
    inputs, height, width = shape
    last = (channels[-1] if channels else inputs) * (height // factor) * (width // factor)
    check_size((inputs, *channels), stack, kernel=9)
    check_size((last, *hidden, classes), stack)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for index, outputs in enumerate(channels):
        modules |= convolution(style, inputs, outputs, index, bias=False)
        modules[f"pool{index}"] = nn.MaxPool2d(2)
        inputs = outputs
    modules["flatten"] = nn.Flatten()
    features = inputs * (height // factor) * (width // factor)
    return Chain(modules | head(style, features, hidden, classes))
