"""ViT-Tiny with patches of 4 x 4 for small images.

Dosovitskiy et al. 2020 (2010.11929) in the size of Touvron et al. 2020 (2012.12877), in the form of
the code of Lee et al. 2024 (2406.02596), which follows lucidrains/vit-pytorch: LayerNorm on both
sides of the patch embedding, pre-norm blocks, queries, keys and values without bias, dropout 0.1.
5,373,700 parameters for images of 3 x 32 x 32 and 100 classes. Layers keep PyTorch's default
initialisation; class token and positions are drawn from N(0, 1), as in that code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ht_bench.errors import UsageError, shown
from ht_bench.networks.parts import Network, check_divisible
from ht_bench.networks.style import Style

PATCH, WIDTH, DEPTH, HEADS, MLP_WIDTH, DROPOUT = 4, 192, 12, 3, 768, 0.1


class PatchEmbedding(nn.Module):
    """LayerNorm, linear, LayerNorm on each patch: [B, C, H, W] → [B, patches, WIDTH].

    A patch's pixels are ordered (row, column, channel), the patches row by row.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        pixels = channels * PATCH * PATCH
        self.norm1 = nn.LayerNorm(pixels)
        self.linear = nn.Linear(pixels, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """Cut the images into patches and embed them."""
        split = images.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
        patches = split.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return self.norm2(self.linear(self.norm1(patches)))


class Tokens(nn.Module):
    """Class token in front, positions added, dropout: [B, N, WIDTH] → [B, N + 1, WIDTH]."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(1, patches + 1, WIDTH))
        self.class_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.dropout = nn.Dropout(DROPOUT)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw positions and class token from N(0, 1)."""
        nn.init.normal_(self.positions)
        nn.init.normal_(self.class_token)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the sequence the transformer reads."""
        first = self.class_token.expand(len(patches), -1, -1)
        return self.dropout(torch.cat((first, patches), 1) + self.positions)


class Attention(nn.Module):
    """Multi-head self-attention over a normalised input, [B, N, WIDTH] → the same shape.

    The rows of `qkv.weight` are the queries of all heads, then their keys, then their values,
    WIDTH rows each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.projection = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(64)) v, the heads joined and projected."""
        split = self.qkv(self.norm(inputs)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = DROPOUT if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return self.dropout(self.projection(mixed.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each added to its input: [B, N, WIDTH]."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self.attention = Attention()
        self.mlp = nn.Sequential(
            OrderedDict(
                norm=nn.LayerNorm(WIDTH),
                linear0=nn.Linear(WIDTH, style.units(MLP_WIDTH)),
                activation=style.make_activation(),
                dropout0=nn.Dropout(DROPOUT),
                linear1=nn.Linear(MLP_WIDTH, WIDTH),
                dropout1=nn.Dropout(DROPOUT),
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sequence after both residual branches."""
        hidden = inputs + self.attention(inputs)
        return hidden + self.mlp(hidden)


class ViT(Network):
    """The transformer, read out from the class token: [B, C, H, W] → [B, classes]."""

    def __init__(self, style: Style, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.embedding = PatchEmbedding(channels)
        self.tokens = Tokens((height // PATCH) * (width // PATCH))
        self.blocks = nn.Sequential(*(Block(style) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        sequence = self.blocks(self.tokens(self.embedding(images)))
        return self.output(self.norm(sequence[:, 0]))


def build_vit(options: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> ViT:
    """Build the network for images whose height and width are multiples of 4.

    Options: activation, in each block's perceptron ("gelu" by default); linear_norm may only be
    "none". Raises UsageError for another, since a run would then be credited to a change never
    made, and for values it does not know.
    """
    check_divisible("vit", shape, PATCH)
    style, norm = Style.read(options, activation="gelu"), options.get("linear_norm", "none")
    if norm != "none":
        raise UsageError(
            f"[net] linear_norm = {shown(norm)}: the network 'vit' already has LayerNorm in every "
            "block; leave the key out."
        )
    return ViT(style, shape, classes)
