"""What every network keeps to, over the registry of networks, and the dispatch by name."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.networks.mlp import StackedBatchNorm, StackedLayerNorm
from ht_bench.networks.parts import CReLU

Shape = tuple[int, int, int]
VGG = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
RESNET = [64, 64, 64, 64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512]


def linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def convolutions(widths: tuple[int, ...], bias: int) -> int:
    """Parameters of 3 x 3 convolutions from the first width on, each with its BatchNorm."""
    return sum((9 * i + bias + 2) * o for i, o in itertools.pairwise(widths))


def resnet_stage(inputs: int, width: int) -> int:
    """Two blocks; a 1 x 1 shortcut with its norm where the width changes."""
    shortcut = inputs * width + 2 * width if inputs != width else 0
    return convolutions((inputs, width, width, width, width), bias=0) + shortcut


def vit_parameters(classes: int) -> int:
    pixels, patches, norm = 3 * 4 * 4, 8 * 8, 2 * 192
    embedding = 2 * pixels + linear(pixels, 192) + norm
    tokens = (patches + 1) * 192 + 192
    attention = norm + 192 * 3 * 192 + linear(192, 192)
    mlp = norm + linear(192, 768) + linear(768, 192)
    return embedding + tokens + 12 * (attention + mlp) + norm + linear(192, classes)


@dataclass(frozen=True)
class Facts:
    """A network at the resolution that it is meant for.

    parameters: worked out by hand. widths: features that each non-linearity puts out, in order.
    relus: how many ReLUs CReLU replaces, None where it may not be asked for. hidden: widths of
    the hidden linear layers, each followed by `linear_norm`. multiple: of which an image's sides
    must be, with sides that are none.
    """

    shape: Shape
    classes: int
    parameters: int
    layers: list[str]
    widths: list[int]
    relus: int | None
    hidden: tuple[int, ...] = ()
    multiple: int = 1
    refused: Shape | None = None


FACTS = {
    "mlp": Facts(
        (1, 8, 8), 10,
        parameters=linear(64, 128) + linear(128, 128) + linear(128, 10),
        layers=["linear0", "linear1", "output"],
        widths=[128, 128], relus=2, hidden=(128, 128),
    ),
    "cnn": Facts(
        (3, 32, 32), 10,
        parameters=convolutions((3, 32, 64, 128), 0) + linear(128 * 16, 256) + linear(256, 10),
        layers=["conv0", "conv1", "conv2", "linear0", "output"],
        widths=[32, 64, 128, 256], relus=4, hidden=(256,), multiple=8, refused=(3, 28, 28),
    ),
    "resnet18": Facts(
        (3, 32, 32), 10,
        parameters=11_436_618,
        layers=[
            "stem.conv0",
            *(f"blocks.{index}.{name}"
              for index in range(8)
              for name in ("conv1", "conv2", "shortcut.conv")[: 3 if index in (2, 4, 6) else 2]),
            "head.linear0", "head.output",
        ],
        widths=[64, *RESNET, 512], relus=10, hidden=(512,),
    ),
    "vgg16": Facts(
        (3, 64, 64), 200,
        parameters=18_075_912,
        layers=[*(f"conv{index}" for index in range(13)), "linear0", "linear1", "output"],
        widths=[*VGG, 1024, 1024], relus=15, hidden=(1024, 1024), multiple=32, refused=(1, 28, 28),
    ),
    "vit": Facts(
        (3, 32, 32), 100,
        parameters=5_373_700,
        layers=[
            "embedding.linear",
            *(f"blocks.{index}.{name}"
              for index in range(12)
              for name in ("attention.qkv", "attention.projection", "mlp.linear0", "mlp.linear1")),
            "output",
        ],
        widths=[768] * 12, relus=None, multiple=4, refused=(3, 30, 30),
    ),
}  # fmt: skip
NAMES = list(FACTS)
STYLED = [name for name in NAMES if FACTS[name].relus is not None]


def make(name: str, **options: Any) -> Any:
    return networks.build({"name": name, **options}, FACTS[name].shape, FACTS[name].classes)


@pytest.fixture(scope="module", params=NAMES)
def built(request: pytest.FixtureRequest) -> tuple[str, Any, dict[str, Tensor]]:
    """A network drawn from seed 1 that all tests of it share, and a copy of its first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = make(request.param)
    return request.param, network, {k: v.clone() for k, v in network.state_dict().items()}


Built = tuple[str, Any, dict[str, Tensor]]


def images(name: str, count: int = 2) -> Tensor:
    batch = torch.randn(count, *FACTS[name].shape)
    return batch[None] if name == "mlp" else batch


def redraw(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for child in module.modules():
        reset = getattr(child, "reset_parameters", None)
        if reset is not None:
            reset()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_network_has_facts_and_a_builder() -> None:
    assert sorted(networks.NAMES) == sorted(FACTS)


def test_the_parameters_are_those_of_the_publications() -> None:
    stages = sum(resnet_stage(*pair) for pair in ((64, 64), (64, 128), (128, 256), (256, 512)))
    stem_and_head = convolutions((3, 64), 0) + linear(512, 512) + linear(512, 10)
    assert stem_and_head + stages == FACTS["resnet18"].parameters
    # torchvision's vgg16 has 138,357,544 parameters, its three linear layers among them.
    published = 138_357_544 - linear(25_088, 4_096) - linear(4_096, 4_096) - linear(4_096, 1_000)
    head = linear(512 * 2 * 2, 1_024) + linear(1_024, 1_024) + linear(1_024, 200)
    assert published + 2 * sum(VGG) + head == FACTS["vgg16"].parameters
    assert convolutions((3, *VGG), 1) == published + 2 * sum(VGG)
    assert vit_parameters(100) == FACTS["vit"].parameters


def test_parameters_layers_and_logits(built: Built) -> None:
    name, network, _ = built
    facts = FACTS[name]
    assert count(network) == facts.parameters
    assert network.layers() == facts.layers
    assert network.get_submodule(facts.layers[-1]).weight.shape[-2] == facts.classes
    assert network.stacked == (name == "mlp")
    assert network(images(name)).shape[-2:] == (2, facts.classes)


def output_widths(network: nn.Module, kinds: tuple[type[nn.Module], ...], name: str) -> list[int]:
    """Features of each non-linearity's output, none of which is used twice or works in place."""
    every = network.named_modules(remove_duplicate=False)
    activations = [module for _, module in every if isinstance(module, kinds)]
    assert len({id(module) for module in activations}) == len(activations)
    widths: list[int] = []

    def record(_: nn.Module, __: object, output: Tensor) -> None:
        widths.append(output.shape[1] if output.dim() in (2, 4) else output.shape[-1])

    handles = [module.register_forward_hook(record) for module in activations]
    assert not any(getattr(module, "inplace", False) for module in activations)
    with torch.no_grad():
        network(images(name))
    for handle in handles:
        handle.remove()
    return widths


def test_each_non_linearity_is_a_module_of_its_own(built: Built) -> None:
    name, network, _ = built
    assert output_widths(network, (nn.ReLU, nn.GELU), name) == FACTS[name].widths


@pytest.mark.parametrize("name", STYLED)
def test_crelu_keeps_widths_with_half_the_units(name: str) -> None:
    network, facts = make(name, activation="crelu"), FACTS[name]
    assert output_widths(network, (nn.ReLU, CReLU), name) == facts.widths
    assert sum(isinstance(module, CReLU) for module in network.modules()) == facts.relus
    hidden = [network.get_submodule(layer) for layer in facts.layers if "linear" in layer]
    assert [layer.weight.shape[-2] for layer in hidden] == [width // 2 for width in facts.hidden]


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("name", STYLED)
def test_linear_norm_stands_between_each_hidden_linear_and_its_activation(
    name: str, norm: str
) -> None:
    network, facts = make(name, linear_norm=norm), FACTS[name]
    norms = {"layer": (nn.LayerNorm, StackedLayerNorm), "batch": (nn.BatchNorm1d, StackedBatchNorm)}
    head = list(getattr(network, "head", network).children())[-3 * len(facts.hidden) - 1 :]
    for index, width in enumerate(facts.hidden):
        product, normal, activation = head[3 * index : 3 * index + 3]
        assert product.weight.shape[-2] == normal.weight.shape[-1] == width
        assert isinstance(normal, norms[norm]) and isinstance(activation, nn.ReLU)
    assert count(network) == facts.parameters + 2 * sum(facts.hidden)


def test_two_steps_move_every_parameter_and_a_redraw_repeats_the_construction(built: Built) -> None:
    name, network, first = built
    network.train()
    network.load_state_dict(first)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    inputs, labels = images(name), torch.arange(2)
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(inputs).flatten(0, -2), labels)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    weights = dict(network.named_parameters())
    assert all(not torch.equal(value, first[key]) for key, value in weights.items())
    redraw(network, 2)
    drawn = [key for key, value in weights.items() if value.dim() >= 2 + network.stacked]
    assert all(not torch.equal(weights[key], first[key]) for key in drawn)
    redraw(network, 1)
    assert all(torch.equal(value, first[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", [name for name in NAMES if FACTS[name].refused])
def test_images_it_cannot_divide_are_refused(name: str) -> None:
    shape, multiple = FACTS[name].refused, FACTS[name].multiple
    assert shape is not None
    sentence = f"'{name}' takes .* multiples of {multiple}, not {shape[1]} x {shape[2]}"
    with pytest.raises(UsageError, match=sentence):
        networks.build({"name": name}, shape, 10)


@pytest.mark.parametrize("name", [name for name in NAMES if not networks.stacks(name)])
def test_a_stack_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' does not stack seeds; set stack = 1"):
        networks.build({"name": name}, FACTS[name].shape, 10, stack=10)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("cnn", {"hidden": [0]}, "hidden = .*positive integer"),
        ("cnn", {"hidden": "256"}, "hidden = '256'"),
        ("cnn", {"channels": [8, -1]}, "channels = .*positive integer"),
        ("cnn", {"channels": [True]}, "channels = .*positive integer"),
        ("cnn", {"channels": [8] * 6}, "multiples of 64, not 32 x 32"),
        (
            "cnn",
            {"activation": "crelu", "hidden": [25]},
            "width 25: every width must be a multiple of 2",
        ),
        (
            "mlp",
            {"activation": "crelu", "hidden": [7]},
            "width 7: every width must be a multiple of 2",
        ),
        ("mlp", {"hidden": [8, 0]}, "every width must be a positive integer"),
        *(
            (name, {"activation": "tanhh"}, "activation = 'tanhh': .* relu, crelu.* mean 'tanh'")
            for name in NAMES
        ),
        *(
            (name, {"activation": {"name": "crelu", "size": 2}}, "'crelu' has no option 'size'")
            for name in NAMES
        ),
        (
            "mlp",
            {"activation": {"name": "leaky-relu", "slope": 2}},
            "Did you mean 'negative_slope'",
        ),
        ("mlp", {"activation": {"name": "interval-dropout", "keep": 2}}, "keep = 2 is no number"),
        *((name, {"linear_norm": "group"}, "linear_norm = 'group': it .* none") for name in STYLED),
        ("vit", {"linear_norm": "layer"}, "linear_norm = 'layer'.* already has LayerNorm"),
        ("vit", {"linear_norm": "batch"}, "linear_norm = 'batch'.* already has LayerNorm"),
        ("resnet", {}, "unknown network 'resnet'. Did you mean 'resnet18'"),
        (["mlp"], {}, "unknown network"),
        ("cnn", {"chanels": [8]}, "unknown key 'chanels'.* Did you mean 'channels'"),
        ("vgg16", {"hidden": [8]}, "unknown key 'hidden' for the network 'vgg16'"),
    ],
)
def test_tables_it_cannot_take_are_refused(
    name: Any, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        networks.build({"name": name, **options}, (3, 32, 32), 10)


def test_a_table_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="'name' is missing"):
        networks.build({}, (3, 32, 32), 10)


def test_a_table_is_checked_without_loading_torch() -> None:
    program = (
        "import sys; from ht_bench import networks; networks.check({'name': 'vit'}); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
