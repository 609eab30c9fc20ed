"""ResNet-18 at the resolution of CIFAR-10."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.networks.parts import CReLU
from ht_bench.networks.resnet import ResNet18, build_resnet18

SHAPE, CLASSES = (3, 32, 32), 10


def make(seed: int = 0, **options: Any) -> ResNet18:
    torch.manual_seed(seed)
    return build_resnet18(options, SHAPE, CLASSES)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def redraw(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for child in module.modules():
        reset = getattr(child, "reset_parameters", None)
        if reset is not None:
            reset()


def stage_parameters(inputs: int, width: int) -> int:
    """Two blocks: four 3x3 convolutions and norms; a 1x1 shortcut where the width changes."""
    convolutions = 9 * (inputs * width + 3 * width * width) + 4 * 2 * width
    return convolutions + (inputs * width + 2 * width if inputs != width else 0)


def test_the_parameter_count_is_that_of_the_published_network() -> None:
    stem = 9 * 3 * 64 + 2 * 64
    stages = sum(stage_parameters(*pair) for pair in ((64, 64), (64, 128), (128, 256), (256, 512)))
    head = (512 + 1) * 512 + (512 + 1) * CLASSES
    assert count(make()) == stem + stages + head == 11_436_618


def test_the_multiplications_are_those_of_a_stem_of_stride_one() -> None:
    network = make().eval()
    products: list[int] = []

    def record(layer: nn.Module, _: object, output: Tensor) -> None:
        products.append(output.numel() * layer.state_dict()["weight"][0].numel())

    for name in network.layers():
        network.get_submodule(name).register_forward_hook(record)
    network(torch.zeros(1, *SHAPE))
    # Each stage halves the sides and doubles the width: a 3x3 convolution within it costs `one`.
    one = 9 * 64 * 64 * 32 * 32
    stages = 4 * one + 3 * (3 * one + one // 2 + one // 18)
    assert sum(products) == 9 * 3 * 64 * 32 * 32 + stages + 512 * 512 + 512 * CLASSES
    assert sum(products) == 555_684_864


def test_layers_run_from_input_to_output() -> None:
    network = make()
    blocks = []
    for index in range(8):
        names = ["conv1", "conv2", "shortcut.conv"] if index in (2, 4, 6) else ["conv1", "conv2"]
        blocks += [f"blocks.{index}.{name}" for name in names]
    assert network.layers() == ["stem.conv0", *blocks, "head.linear0", "head.output"]
    assert len(network.state_dict()["head.output.weight"]) == CLASSES
    assert not network.stacked


def test_a_block_adds_its_shortcut_before_the_last_activation() -> None:
    block = make().eval().blocks[2]
    weights = block.state_dict()
    inputs = torch.randn(2, 64, 8, 8)

    def convolve(values: Tensor, layer: str, stride: int, padding: int) -> Tensor:
        # Fresh BatchNorm in evaluation only divides by sqrt(1 + epsilon).
        product = functional.conv2d(values, weights[f"{layer}.weight"], None, stride, padding)
        return product / (1 + 1e-5) ** 0.5

    residual = convolve(convolve(inputs, "conv1", 2, 1).relu(), "conv2", 1, 1)
    expected = (residual + convolve(inputs, "shortcut.conv", 2, 0)).relu()
    torch.testing.assert_close(block(inputs), expected)


def test_two_steps_move_every_parameter() -> None:
    network = make()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    images, labels = torch.randn(4, *SHAPE), torch.arange(4)
    for _ in range(2):
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters())


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_each_activation_is_its_own_module_and_keeps_the_width(activation: str) -> None:
    network = make(activation=activation)
    every = network.named_modules(remove_duplicate=False)
    named = [module for _, module in every if isinstance(module, nn.ReLU | CReLU)]
    widths: list[int] = []

    def record(_: nn.Module, __: object, output: Tensor) -> None:
        widths.append(output.shape[1])

    for module in named:
        assert not getattr(module, "inplace", False)
        module.register_forward_hook(record)
    network(torch.randn(2, *SHAPE))
    assert len({id(module) for module in named}) == len(named) == 1 + 2 * 8 + 1
    stages = [width for width in (64, 128, 256, 512) for _ in range(4)]
    assert widths == [64, *stages, 512]


def test_crelu_replaces_every_relu_but_those_after_a_sum() -> None:
    network = make(activation="crelu")
    left = [name for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    assert left == [f"blocks.{index}.activation2" for index in range(8)]
    weights = network.state_dict()
    assert len(weights["head.linear0.weight"]) == len(weights["blocks.7.conv1.weight"]) == 256


@pytest.mark.parametrize(("norm", "kind"), [("layer", nn.LayerNorm), ("batch", nn.BatchNorm1d)])
def test_linear_norm_stands_between_the_hidden_linear_and_its_activation(
    norm: str, kind: type[nn.Module]
) -> None:
    network = make(linear_norm=norm)
    assert [type(module) for module in network.head] == [nn.Linear, kind, nn.ReLU, nn.Linear]
    assert count(network) == 11_436_618 + 2 * 512


def test_a_redraw_changes_every_weight_and_repeats_the_construction() -> None:
    network, twin = make(seed=1), make(seed=1)
    redraw(network, 2)
    pairs = zip(network.parameters(), twin.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs if a.dim() >= 2)
    network(torch.randn(2, *SHAPE))
    redraw(network, 1)
    for name, value in twin.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_a_stack_is_refused() -> None:
    with pytest.raises(UsageError, match="'resnet18' does not stack seeds"):
        networks.build({"name": "resnet18"}, SHAPE, CLASSES, stack=10)
