"""VGG-16 at the resolution of Tiny ImageNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.networks.parts import Chain, CReLU
from ht_bench.networks.vgg import build_vgg16

SHAPE, CLASSES = (3, 64, 64), 200
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def make(seed: int = 0, **options: Any) -> Chain:
    torch.manual_seed(seed)
    return build_vgg16(options, SHAPE, CLASSES)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def redraw(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for child in module.modules():
        reset = getattr(child, "reset_parameters", None)
        if reset is not None:
            reset()


def test_the_parameter_count_is_that_of_configuration_d_and_its_head() -> None:
    inputs = (3, *WIDTHS[:-1])
    convolutions = sum((9 * i + 1) * o for i, o in zip(inputs, WIDTHS, strict=True))
    # torchvision's vgg16 has 138,357,544 parameters, of which its three linear layers hold
    # (25,088 + 1) 4,096 + (4,096 + 1) 4,096 + (4,096 + 1) 1,000.
    assert convolutions == 138_357_544 - 25_089 * 4_096 - 4_097 * 4_096 - 4_097 * 1_000
    norms = 2 * sum(WIDTHS)
    head = (512 * 2 * 2 + 1) * 1_024 + (1_024 + 1) * 1_024 + (1_024 + 1) * CLASSES
    assert count(make()) == convolutions + norms + head == 18_075_912


def test_the_poolings_stand_after_the_right_convolutions() -> None:
    network = make().eval()
    products: list[int] = []
    sides: list[int] = []

    def record(layer: nn.Module, _: object, output: Tensor) -> None:
        sides.append(output.shape[-1])
        products.append(output.numel() * layer.state_dict()["weight"][0].numel())

    for name in network.layers()[:13]:
        network.get_submodule(name).register_forward_hook(record)
    network(torch.zeros(1, *SHAPE))
    assert sides == [64] * 2 + [32] * 2 + [16] * 3 + [8] * 3 + [4] * 3
    # 15,346,630,656 multiplications at 224 x 224, the usual figure for VGG-16's convolutions.
    assert sum(products) * 224 * 224 == 15_346_630_656 * 64 * 64


def test_layers_run_from_input_to_output() -> None:
    network = make()
    convolutions = [f"conv{index}" for index in range(13)]
    assert network.layers() == [*convolutions, "linear0", "linear1", "output"]
    assert len(network.state_dict()["output.weight"]) == CLASSES
    assert not network.stacked


def test_two_steps_move_every_parameter() -> None:
    network = make()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    images, labels = torch.randn(4, *SHAPE), torch.arange(4)
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters())


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_each_activation_is_its_own_module_and_keeps_the_width(activation: str) -> None:
    network = make(activation=activation)
    kind = CReLU if activation == "crelu" else nn.ReLU
    named = [m for _, m in network.named_modules(remove_duplicate=False) if isinstance(m, kind)]
    widths: list[int] = []

    def record(_: nn.Module, __: object, output: Tensor) -> None:
        widths.append(output.shape[1])

    for module in named:
        assert not getattr(module, "inplace", False)
        module.register_forward_hook(record)
    network(torch.randn(2, *SHAPE))
    assert len({id(module) for module in named}) == len(named) == 13 + 2
    assert widths == [*WIDTHS, 1_024, 1_024]


@pytest.mark.parametrize(("norm", "kind"), [("layer", nn.LayerNorm), ("batch", nn.BatchNorm1d)])
def test_linear_norm_stands_between_each_hidden_linear_and_its_activation(
    norm: str, kind: type[nn.Module]
) -> None:
    network = make(linear_norm=norm)
    kinds = [type(module) for module in network][-7:]
    assert kinds == [nn.Linear, kind, nn.ReLU, nn.Linear, kind, nn.ReLU, nn.Linear]
    assert count(network) == 18_075_912 + 2 * (1_024 + 1_024)


def test_a_redraw_changes_every_weight_and_repeats_the_construction() -> None:
    network, twin = make(seed=1), make(seed=1)
    redraw(network, 2)
    pairs = zip(network.parameters(), twin.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs if a.dim() >= 2)
    network(torch.randn(2, *SHAPE))
    redraw(network, 1)
    for name, value in twin.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_images_that_five_poolings_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 32, not 28 x 28"):
        build_vgg16({}, (1, 28, 28), 10)


def test_a_stack_is_refused() -> None:
    with pytest.raises(UsageError, match="'vgg16' does not stack seeds"):
        networks.build({"name": "vgg16"}, SHAPE, CLASSES, stack=10)
