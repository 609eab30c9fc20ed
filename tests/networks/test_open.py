"""A user's networks, activations and normalisations: on every built-in network, or refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks, registry
from ht_bench.errors import UsageError
from ht_bench.networks import outside, stacked_conv
from ht_bench.networks.diagnostics import diagnose
from ht_bench.networks.mlp import copy_seed
from ht_bench.networks.noise import SeedNoise, give_noise
from ht_bench.networks.parts import features_per_unit, is_nonlinearity, layers_of, nonlinearities
from ht_bench.networks.stacked_conv import StackedChain

from . import user_parts

FILE = Path(user_parts.__file__)
SHAPE, CLASSES, SEEDS = (3, 8, 8), 5, (11, 12, 13)
TABLES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "mlp": ({"name": "mlp", "hidden": [12, 6]}, SHAPE),
    "cnn": ({"name": "cnn", "channels": [6], "hidden": [12]}, SHAPE),
    "resnet18": ({"name": "resnet18"}, SHAPE),
    "vgg16": ({"name": "vgg16"}, (3, 32, 32)),
    "vit": ({"name": "vit"}, SHAPE),
}
STACKS = ("mlp", "cnn")


def of(name: str) -> str:
    return f"{FILE}:{name}"


def build(net: str, stack: int | None = None, **options: Any) -> Any:
    table, shape = TABLES[net]
    return networks.build({**table, **options}, shape, CLASSES, stack)


def images(net: str) -> Tensor:
    batch = torch.randn(2, *TABLES[net][1])
    return batch[None] if net == "mlp" else batch


@pytest.fixture(params=["seed by seed", "layer by layer", "side by side"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way through a stack of convolutions: a CPU's, the same while watched, a GPU's."""
    if request.param == "side by side":
        monkeypatch.setattr(stacked_conv, "side_by_side", lambda maps: True)
    if request.param == "layer by layer":
        monkeypatch.setattr(StackedChain, "_is_watched", lambda self: True)
    return str(request.param)


# ---- activations ----


@pytest.mark.parametrize("activation", ["Snake", "Scaled", "Jitter", "half_relu", "tanh", "silu"])
@pytest.mark.parametrize("net", TABLES)
def test_an_activation_stands_in_every_network(net: str, activation: str) -> None:
    """In place of each ReLU or GELU, seen as a non-linearity; every weight gets a gradient."""
    named = activation if activation.islower() and "_" not in activation else of(activation)
    plain, network = build(net), build(net, activation=named)
    places = [name for name, child in plain.named_modules() if type(child) in (nn.ReLU, nn.GELU)]
    assert list(nonlinearities(network)) == places
    assert not any(type(child) in (nn.ReLU, nn.GELU) for child in network.modules())
    network(images(net)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(("net", "width"), [("mlp", 12), ("cnn", 12), ("vit", 768)])
def test_several_features_a_unit_make_layers_narrower(net: str, width: int) -> None:
    network = build(net, activation=of("Powers"))
    assert {features_per_unit(child) for child in nonlinearities(network).values()} == {3}
    layer = "blocks.0.mlp.linear0" if net == "vit" else "linear0"
    assert network.get_submodule(layer).weight.shape[-2] == width // 3
    assert network(images(net)).shape[-1] == CLASSES
    with pytest.raises(UsageError, match="width 64: every width must be a multiple of 3"):
        build("resnet18", activation=of("Powers"))


def stack_and_lone(net: str, **options: Any) -> tuple[nn.Module, list[nn.Module]]:
    """A stack whose slots were drawn as lone networks are, and those."""
    stack, lone = build(net, len(SEEDS), **options), []
    for slot, seed in enumerate(SEEDS):
        torch.manual_seed(seed)
        copy_seed(build(net, 1, **options), stack, slot)
        torch.manual_seed(seed)
        lone.append(build(net, **options))
    return stack, lone


@pytest.mark.parametrize(
    "options",
    [
        {"activation": of("Snake")},
        {"activation": {"name": of("Snake"), "start": 3.0}},
        {"activation": of("Scaled"), "linear_norm": of("RMSNorm")},
        {"activation": of("Powers"), "linear_norm": {"name": of("RMSNorm"), "epsilon": 0.1}},
        {"activation": "gelu", "linear_norm": of("OfSeeds")},
        {"activation": {"name": "leaky-relu", "negative_slope": 0.3}},
    ],
)
def test_every_slot_of_a_stack_is_the_lone_network(options: dict[str, Any], way: str) -> None:
    """Weights, outputs, gradients and buffers, through two steps in training."""
    stack, lone = stack_and_lone("cnn", **options)
    for slot, network in enumerate(lone):
        for name, tensor in network.state_dict().items():
            assert torch.equal(stack.state_dict()[name][slot].view(tensor.shape), tensor), name
    inputs = torch.randn(len(SEEDS), 4, *SHAPE)
    for _ in range(2):
        outputs = stack(inputs)
        expected = torch.stack([net(x) for net, x in zip(lone, inputs, strict=True)])
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    outputs.square().sum().backward()
    expected.square().sum().backward()
    for slot, network in enumerate(lone):
        for name, parameter in network.named_parameters():
            own = stack.get_parameter(name).grad
            assert own is not None and parameter.grad is not None
            theirs = parameter.grad
            torch.testing.assert_close(own[slot].view(theirs.shape), theirs, rtol=1e-3, atol=1e-4)
        for name, buffer in network.named_buffers():
            torch.testing.assert_close(stack.get_buffer(name)[slot], buffer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", STACKS)
def test_a_redraw_of_a_stack_repeats_the_construction(net: str) -> None:
    torch.manual_seed(1)
    network = build(net, 2, activation=of("Scaled"), linear_norm=of("RMSNorm"))
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for seed, same in ((2, False), (1, True)):
        torch.manual_seed(seed)
        for child in network.modules():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()
        drawn = torch.equal(network.get_parameter("linear0.weight"), first["linear0.weight"])
        frequency = network.get_parameter("activation0.inner.frequency")
        assert torch.equal(frequency, first["activation0.inner.frequency"]) is drawn is same


def test_the_hand_written_gradient_serves_relu_alone() -> None:
    network = build("mlp", 2, activation=of("LeakyLinear"))
    assert not network._plain_chain(list(network.children()))
    inputs = -torch.ones(2, 1, *SHAPE)
    assert build("mlp", 2)._plain_chain(list(build("mlp", 2).children()))
    hidden: list[Tensor] = []
    network.activation0.register_forward_hook(lambda m, i, output: hidden.append(output))
    network(inputs)
    assert (hidden[0] < 0).any()


def test_a_users_noise_is_each_seeds_own() -> None:
    network, noise = build("mlp", 2, activation=of("Jitter")), SeedNoise(2)
    assert give_noise(network, noise)
    drawn = []
    for keys in ((1, 2), (2, 1)):
        noise.key(keys)
        inputs = torch.zeros(2, 3, *SHAPE)
        drawn.append(network.activation0(network.linear0(inputs.flatten(2)) * 0))
    assert torch.equal(drawn[0], drawn[1].flip(0)) and not torch.equal(*drawn[0])


@pytest.mark.parametrize("net", STACKS)
def test_diagnostics_see_it_and_leave_no_trace(net: str) -> None:
    network = build(net, 2, activation=of("Scaled"))
    before = copy.deepcopy(network.state_dict())
    inputs = torch.randn(2, 4, *SHAPE)
    measured = diagnose(network, inputs, lambda z: z.sum(), dict(network.named_parameters()))
    assert measured["plasticity/dormant_fraction"].shape == (2,)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert len(nonlinearities(network)) == 2


@pytest.mark.parametrize(
    ("key", "named", "stack", "sentence"),
    [
        ("activation", of("Mixes"), 2, "what it makes of one seed depends on the others"),
        ("activation", of("Draws"), 2, "random numbers would depend on the other seeds"),
        ("activation", of("Doubles"), None, "attribute `features` says how many"),
        ("activation", of("Fails"), None, "it fails \\(not today\\)"),
        ("activation", of("no_module"), None, "makes a int, no torch.nn.Module"),
        ("activation", of("NUMBER"), None, "is no class or function"),
        ("activation", of("Sneak"), None, "has no 'Sneak'. Did you mean 'Snake'"),
        ("activation", {"name": of("Snake"), "begin": 1}, None, "has no option 'begin'"),
        ("activation", {"start": 1}, None, "must be one of"),
        ("activation", {"name": "relu", "inplace": True}, None, "has no option 'inplace'"),
        ("activation", {"name": "leaky-relu", "negative_slope": "x"}, None, "it fails"),
        ("linear_norm", of("Mixes"), 2, "what it makes of one seed depends on the others"),
        ("linear_norm", of("Doubles"), None, "it makes"),
        ("linear_norm", "grup", None, "must be one of none, layer, batch"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_what_does_not_serve_is_refused(
    net: str, key: str, named: Any, stack: int | None, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(net, stack, **{key: named})


def test_lone_networks_may_draw_and_mix() -> None:
    """What is refused is only what a stack cannot have."""
    for name in ("Mixes", "Draws"):
        assert build("cnn", activation=of(name))(images("cnn")).shape == (2, CLASSES)


@pytest.fixture
def registered() -> Iterator[None]:
    """`registry.register_…` in a program, forgotten after the test."""
    registry.register_activation("snake")(user_parts.Snake)
    registry.register_norm("rms")(user_parts.RMSNorm)
    registry.register_network("pooled")(user_parts.pooled)
    yield
    for known in (registry.activations, registry.norms, registry.networks):
        for name in ("snake", "rms", "pooled"):
            known._entries.pop(name, None)


@pytest.mark.usefixtures("registered")
def test_registered_names_serve_as_built_in_ones() -> None:
    network = build("mlp", 2, activation="snake", linear_norm="rms")
    assert is_nonlinearity(network.activation0) and "norm1.weight" in network.state_dict()
    assert isinstance(networks.build({"name": "pooled"}, SHAPE, CLASSES), nn.Sequential)
    with pytest.raises(UsageError, match="unknown network 'poled'. Did you mean 'pooled'"):
        networks.check({"name": "poled"})


# ---- networks ----


def outsider(name: str, stack: int | None = None, **options: Any) -> nn.Module:
    table = {"name": of(name), **options}
    module = networks.build(table, SHAPE, CLASSES, stack)
    outside.try_out(of(name), module, SHAPE, CLASSES, stack)
    return module


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("pooled", {"width": 4}, ["0", "5"]),
        ("ByPosition", {}, ["1", "3"]),
        ("Perceptron", {"width": 4}, ["first", "last"]),
    ],
)
def test_a_network_maps_images_to_logits(
    name: str, options: dict[str, Any], layers: list[str]
) -> None:
    module = outsider(name, **options)
    assert layers_of(module) == layers
    inputs = torch.randn(4, *SHAPE)
    measured = diagnose(module, inputs, lambda z: z.sum(), dict(module.named_parameters()))
    assert measured["weights/norm"].shape == (1,)


def test_one_that_takes_stack_trains_seeds_together() -> None:
    assert networks.stacks(of("Perceptron")) and not networks.stacks(of("pooled"))
    module = outsider("Perceptron", 3)
    assert module(torch.randn(3, 2, *SHAPE)).shape == (3, 2, CLASSES)
    with pytest.raises(UsageError, match="does not stack seeds; set stack = 1"):
        outsider("pooled", 3)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("pooled", {"widht": 4}, "unknown key 'widht'.* Did you mean 'width'"),
        ("Perceptron", {"with": 4}, "unknown key 'with'.* Did you mean 'width'"),
        ("ByPosition", {"width": 4}, "unknown key 'width'.* Known keys: name"),
        ("narrow", {}, "makes \\(2, 4\\) of images .*; logits of shape \\(2, 5\\) are wanted"),
        ("broken", {}, "cannot be built: 'depth'"),
        ("nothing", {}, "is a NoneType; return a torch.nn.Module"),
        ("weightless", {}, "has no layer with a weight"),
        ("NUMBER", {}, "is no class or function"),
        ("Snake", {}, "cannot be built"),
    ],
)
def test_a_network_that_is_none_is_refused(
    name: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        outsider(name, **options)


# ---- tables ----


@pytest.mark.parametrize(
    "table",
    [
        {"name": "nets.py:Net"},
        {"activation": "os:system"},
        {"activation": {"name": "parts.py:Snake"}},
        {"linear_norm": "parts.py"},
    ],
)
def test_an_untrusted_table_may_name_no_code(table: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="names code; only names are taken here"):
        networks.refuse_references(table)
    networks.refuse_references({"name": "mlp", "hidden": [8], "activation": {"name": "gelu"}})
