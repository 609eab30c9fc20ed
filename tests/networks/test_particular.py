"""What is particular to each convolutional network and to the transformer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ht_bench import networks
from ht_bench.networks.parts import CReLU
from ht_bench.networks.vit import Attention, PatchEmbedding, Tokens


def make(name: str, shape: tuple[int, int, int] = (3, 32, 32), **options: Any) -> Any:
    torch.manual_seed(0)
    return networks.build({"name": name, **options}, shape, 10)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def products_and_sides(network: Any, side: int) -> tuple[int, list[int]]:
    """Multiplications of all layers for one image, and the side of each convolution's output."""
    products: list[int] = []
    sides: list[int] = []

    def record(layer: nn.Module, _: object, output: Tensor) -> None:
        products.append(output.numel() * layer.state_dict()["weight"][0].numel())
        sides.append(output.shape[-1])

    for name in network.layers():
        network.get_submodule(name).register_forward_hook(record)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, side, side))
    return sum(products), sides


# ---- the parts ----


def test_crelu_puts_both_signs_side_by_side() -> None:
    inputs = torch.tensor([[1.0, -2.0], [-3.0, 4.0]])
    expected = torch.tensor([[1.0, 0, 0, 2], [0, 4, 3, 0]])
    assert torch.equal(CReLU()(inputs), expected)
    assert torch.equal(CReLU(dim=1)(inputs[:, :, None, None])[:, :, 0, 0], expected)


# ---- the small convolutional network ----


@pytest.mark.parametrize(("shape", "pixels"), [((1, 8, 8), 1), ((3, 16, 24), 6)])
def test_a_cnns_parameters_follow_the_size_of_its_images(
    shape: tuple[int, int, int], pixels: int
) -> None:
    convolutions = 9 * (shape[0] * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128)
    network = make("cnn", shape)
    assert count(network) == convolutions + (128 * pixels + 1) * 256 + (256 + 1) * 10
    assert network(torch.randn(2, *shape)).shape == (2, 10)


def test_a_cnns_channels_and_hidden_are_options() -> None:
    network = make("cnn", channels=[8, 16], hidden=[20, 12])
    convolutions = 9 * (3 * 8 + 8 * 16) + 2 * (8 + 16)
    head = (16 * 8 * 8 + 1) * 20 + (20 + 1) * 12 + (12 + 1) * 10
    assert count(network) == convolutions + head
    assert network.layers() == ["conv0", "conv1", "linear0", "linear1", "output"]
    assert count(make("cnn", hidden=20)) == count(make("cnn", hidden=[20]))


def test_crelu_halves_the_units_of_convolutions_too() -> None:
    network = make("cnn", activation="crelu", linear_norm="layer")
    shapes = [tuple(network.get_submodule(name).weight.shape) for name in network.layers()]
    assert shapes == [(16, 3, 3, 3), (32, 32, 3, 3), (64, 64, 3, 3), (128, 2048), (10, 256)]
    assert sum(isinstance(module, nn.LayerNorm) for module in network.modules()) == 1


# ---- ResNet-18 and VGG-16 ----


def test_a_resnets_multiplications_are_those_of_a_stem_of_stride_one() -> None:
    total, _ = products_and_sides(make("resnet18"), 32)
    # Each stage halves the sides and doubles the width: a 3x3 convolution within it costs `one`.
    one = 9 * 64 * 64 * 32 * 32
    stages = 4 * one + 3 * (3 * one + one // 2 + one // 18)
    assert total == 9 * 3 * 64 * 32 * 32 + stages + 512 * 512 + 512 * 10 == 555_684_864


def test_a_block_adds_its_shortcut_before_the_last_activation() -> None:
    block = make("resnet18").eval().blocks[2]
    weights = block.state_dict()
    inputs = torch.randn(2, 64, 8, 8)

    def convolve(values: Tensor, layer: str, stride: int, padding: int) -> Tensor:
        # Fresh BatchNorm in evaluation only divides by sqrt(1 + epsilon).
        product = functional.conv2d(values, weights[f"{layer}.weight"], None, stride, padding)
        return product / (1 + 1e-5) ** 0.5

    residual = convolve(convolve(inputs, "conv1", 2, 1).relu(), "conv2", 1, 1)
    expected = (residual + convolve(inputs, "shortcut.conv", 2, 0)).relu()
    torch.testing.assert_close(block(inputs), expected)


def test_crelu_replaces_every_relu_but_those_after_a_sum() -> None:
    network = make("resnet18", activation="crelu")
    left = [name for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    assert left == [f"blocks.{index}.activation2" for index in range(8)]
    assert len(network.blocks[7].conv1.weight) == 256


def test_vggs_poolings_stand_after_the_right_convolutions() -> None:
    total, sides = products_and_sides(make("vgg16", (3, 64, 64)), 64)
    assert sides[:13] == [64] * 2 + [32] * 2 + [16] * 3 + [8] * 3 + [4] * 3
    # 15,346,630,656 multiplications at 224 x 224, the usual figure for VGG-16's convolutions.
    convolutions = total - 2048 * 1024 - 1024 * 1024 - 1024 * 10
    assert convolutions * 224 * 224 == 15_346_630_656 * 64 * 64


# ---- ViT-Tiny ----


def test_patches_are_read_row_by_row_with_channels_last() -> None:
    embedding = PatchEmbedding(3)
    received: list[Tensor] = []
    embedding.norm1.register_forward_hook(lambda _module, inputs, _out: received.append(inputs[0]))
    images = torch.randn(2, 3, 32, 32)
    assert embedding(images).shape == (2, 64, 192)
    # The eleventh patch lies in the second row of eight, third from the left.
    expected = images[:, :, 4:8, 8:12].permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(received[0][:, 10], expected)


def test_attention_is_the_softmax_formula_over_three_heads() -> None:
    torch.manual_seed(0)
    attention = Attention().eval()
    inputs = torch.randn(2, 5, 192)
    rows = attention.qkv(attention.norm(inputs))
    heads = []
    for head in range(3):
        start = 64 * head
        q, k, v = (rows[..., o + start : o + start + 64] for o in (0, 192, 384))
        heads.append(torch.softmax(q @ k.mT / 8, -1) @ v)
    expected = attention.projection(torch.cat(heads, -1))
    torch.testing.assert_close(attention(inputs), expected)
    assert attention.qkv.bias is None and attention.projection.bias is not None


def test_the_class_token_leads_and_positions_are_added() -> None:
    torch.manual_seed(0)
    tokens = Tokens(64).eval()
    patches = torch.randn(2, 64, 192)
    sequence = tokens(patches)
    torch.testing.assert_close(sequence[:, 1:], patches + tokens.positions[:, 1:])
    assert torch.equal(sequence[0, 0], tokens.class_token[0, 0] + tokens.positions[0, 0])
    assert abs(float(tokens.positions.detach().std()) - 1) < 0.03


def test_dropout_acts_in_training_only() -> None:
    """Wherever it stands; in attention on the weights too, which no module shows."""
    network = make("vit", activation="gelu", linear_norm="none")
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert [module.p for module in dropouts] == [0.1] * (1 + 3 * 12)
    attention = Attention()
    attention.dropout.p = 0.0
    images, tokens = torch.randn(2, 3, 32, 32), torch.randn(2, 5, 192)
    for module, inputs in ((network, images), (attention, tokens)):
        assert not torch.equal(module(inputs), module(inputs))
        module.eval()
        assert torch.equal(module(inputs), module(inputs))
