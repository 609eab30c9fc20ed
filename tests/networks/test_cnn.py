"""The small convolutional network, and the dispatch by name that all networks share."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.networks.cnn import build_cnn
from ht_bench.networks.parts import Chain, CReLU

SHAPE, CLASSES = (3, 32, 32), 10


def make(seed: int = 0, **options: Any) -> Chain:
    torch.manual_seed(seed)
    return build_cnn(options, SHAPE, CLASSES)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def redraw(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for child in module.modules():
        reset = getattr(child, "reset_parameters", None)
        if reset is not None:
            reset()


@pytest.mark.parametrize(("shape", "pixels"), [((3, 32, 32), 16), ((1, 8, 8), 1), ((3, 16, 24), 6)])
def test_the_parameter_count_is_the_sum_over_its_layers(
    shape: tuple[int, int, int], pixels: int
) -> None:
    convolutions = 9 * (shape[0] * 32 + 32 * 64 + 64 * 128)
    norms = 2 * (32 + 64 + 128)
    head = (128 * pixels + 1) * 256 + (256 + 1) * CLASSES
    network = build_cnn({}, shape, CLASSES)
    assert count(network) == convolutions + norms + head
    assert network(torch.randn(2, *shape)).shape == (2, CLASSES)


def test_channels_and_hidden_are_options() -> None:
    network = make(channels=[8, 16], hidden=[20, 12])
    convolutions = 9 * (3 * 8 + 8 * 16) + 2 * (8 + 16)
    head = (16 * 8 * 8 + 1) * 20 + (20 + 1) * 12 + (12 + 1) * 10
    assert count(network) == convolutions + head
    assert network.layers() == ["conv0", "conv1", "linear0", "linear1", "output"]
    assert count(make(hidden=20)) == count(make(hidden=[20]))


def test_layers_run_from_input_to_output() -> None:
    network = make()
    assert not network.stacked
    assert network.layers() == ["conv0", "conv1", "conv2", "linear0", "output"]
    assert len(network.state_dict()["output.weight"]) == CLASSES


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
    assert len({id(module) for module in named}) == len(named) == 4
    assert widths == [32, 64, 128, 256]


def test_crelu_halves_the_units_of_every_hidden_layer() -> None:
    network = make(activation="crelu")
    weights = network.state_dict()
    shapes = [tuple(weights[f"{name}.weight"].shape) for name in network.layers()]
    assert shapes == [(16, 3, 3, 3), (32, 32, 3, 3), (64, 64, 3, 3), (128, 2048), (10, 256)]


def test_crelu_puts_both_signs_side_by_side() -> None:
    inputs = torch.tensor([[1.0, -2.0], [-3.0, 4.0]])
    expected = torch.tensor([[1.0, 0, 0, 2], [0, 4, 3, 0]])
    assert torch.equal(CReLU()(inputs), expected)
    assert torch.equal(CReLU(dim=1)(inputs[:, :, None, None])[:, :, 0, 0], expected)


@pytest.mark.parametrize(("norm", "kind"), [("layer", nn.LayerNorm), ("batch", nn.BatchNorm1d)])
def test_linear_norm_stands_between_each_hidden_linear_and_its_activation(
    norm: str, kind: type[nn.Module]
) -> None:
    network = make(linear_norm=norm, hidden=[20, 12])
    kinds = [type(module) for module in network][-7:]
    assert kinds == [nn.Linear, kind, nn.ReLU, nn.Linear, kind, nn.ReLU, nn.Linear]
    assert count(network) - count(make(hidden=[20, 12])) == 2 * (20 + 12)


def test_a_redraw_changes_every_weight_and_repeats_the_construction() -> None:
    network, twin = make(seed=1), make(seed=1)
    redraw(network, 2)
    pairs = zip(network.parameters(), twin.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs if a.dim() >= 2)
    network(torch.randn(2, *SHAPE))
    redraw(network, 1)
    for name, value in twin.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden": [0]}, "hidden = .*positive integer"),
        ({"hidden": "256"}, "hidden = '256'"),
        ({"channels": [8, -1]}, "channels = .*positive integer"),
        ({"channels": [True]}, "channels = .*positive integer"),
        ({"activation": "tanh"}, "activation = 'tanh': it must be one of relu, crelu"),
        ({"activation": "crelu", "hidden": [25]}, "width 25 with CReLU"),
        ({"linear_norm": "group"}, "linear_norm = 'group': it must be one of none, layer, batch"),
        ({"channels": [8] * 6}, "multiples of 64, not 32 x 32"),
    ],
)
def test_values_it_cannot_take_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make(**options)


@pytest.mark.parametrize(
    ("table", "stack", "sentence"),
    [
        ({}, 1, "'name' is missing"),
        ({"name": "resnet"}, 1, "unknown network 'resnet'. Did you mean 'resnet18'"),
        ({"name": ["mlp"]}, 1, "unknown network"),
        ({"name": "cnn", "chanels": [8]}, 1, "unknown key 'chanels'.* Did you mean 'channels'"),
        ({"name": "vgg16", "hidden": [8]}, 1, "unknown key 'hidden' for the network 'vgg16'"),
        ({"name": "mlp", "activation": "tanh"}, 2, "activation = 'tanh'"),
        ({"name": "cnn"}, 2, "'cnn' does not stack seeds, yet stack is 2"),
    ],
)
def test_tables_that_name_no_network_are_refused(
    table: dict[str, Any], stack: int, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        networks.build(table, SHAPE, CLASSES, stack)


@pytest.mark.parametrize("name", networks.NAMES)
def test_every_name_builds_a_network_that_ends_in_its_classes(name: str) -> None:
    network = networks.build({"name": name}, SHAPE, CLASSES)
    images = torch.randn(2, *SHAPE)
    logits = network.eval()(images[None] if network.stacked else images)
    assert logits.shape[-2:] == (2, CLASSES)
    assert network.stacked == (name == "mlp")


def test_the_common_options_reach_the_network() -> None:
    table = {"name": "cnn", "activation": "crelu", "linear_norm": "layer"}
    network = networks.build(table, SHAPE, CLASSES)
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(CReLU) == 4 and kinds.count(nn.LayerNorm) == 1


def test_a_table_is_checked_without_loading_torch() -> None:
    program = (
        "import sys; from ht_bench import networks; networks.check({'name': 'vit'}); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
