"""The stacked convolutional net: each slot is the lone network, on both ways through it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench import networks
from ht_bench.networks import stacked_conv
from ht_bench.networks.diagnostics import diagnose
from ht_bench.networks.mlp import copy_seed
from ht_bench.networks.parts import Chain, CReLU
from ht_bench.networks.stacked_conv import (
    StackedBatchNorm2d,
    StackedChain,
    StackedConv,
    fold,
    unfold,
)
from ht_bench.networks.stacking import clip_gradients, finite

SHAPE, CLASSES = (3, 8, 8), 5
SEEDS = (11, 12, 13)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"linear_norm": "layer"},
    {"linear_norm": "batch"},
    {"activation": "crelu"},
    {"activation": "crelu", "linear_norm": "batch"},
    {"channels": [], "hidden": []},
]


def build(stack: int | None = None, **options: Any) -> Any:
    table = {"name": "cnn", "channels": [4, 6], "hidden": [8], **options}
    return networks.build(table, SHAPE, CLASSES, stack)


def seeded(seed: int, stack: int | None = None, **options: Any) -> Any:
    torch.manual_seed(seed)
    return build(stack, **options)


def stack_of(seeds: tuple[int, ...], **options: Any) -> StackedChain:
    stack = build(len(seeds), **options)
    for slot, seed in enumerate(seeds):
        copy_seed(seeded(seed, 1, **options), stack, slot)
    assert isinstance(stack, StackedChain)
    return stack


@pytest.fixture(params=["seed by seed", "layer by layer", "side by side"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way through a stack: a CPU's, the same while it is watched, a GPU's."""
    if request.param == "side by side":
        monkeypatch.setattr(stacked_conv, "side_by_side", lambda maps: True)
    if request.param == "layer by layer":
        monkeypatch.setattr(StackedChain, "_is_watched", lambda self: True)
    return str(request.param)


# ---- weights ----


@pytest.mark.parametrize("options", OPTIONS)
def test_every_slot_starts_from_the_weights_of_a_lone_network(options: dict[str, Any]) -> None:
    stack = stack_of(SEEDS, **options).state_dict()
    for slot, seed in enumerate(SEEDS):
        lone = seeded(seed, **options).state_dict()
        assert lone.keys() == stack.keys()
        assert all(torch.equal(stack[name][slot], tensor) for name, tensor in lone.items())


def test_a_task_of_single_seeds_has_the_lone_network() -> None:
    lone = seeded(1)
    assert isinstance(lone, Chain) and not lone.stacked and build(1).stacked
    assert [type(child) for child in lone.children()][:4] == [
        *(nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d),
    ]
    assert lone(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)
    assert build(3).layers() == lone.layers() == ["conv0", "conv1", "linear0", "output"]


def test_building_a_stack_draws_its_own_weights_alone() -> None:
    torch.manual_seed(4)
    layer = StackedConv(3, 2, 5, 3, 1)
    after = torch.get_rng_state()
    torch.manual_seed(4)
    for slot in range(3):
        assert torch.equal(layer.weight[slot], nn.Conv2d(2, 5, 3, bias=False).weight)
    assert torch.equal(torch.get_rng_state(), after)
    seeded(5)
    after = torch.get_rng_state()
    seeded(5, 1)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("options", OPTIONS)
def test_reset_parameters_draws_the_network_anew(options: dict[str, Any]) -> None:
    net = seeded(1, 2, **options)
    first = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net(torch.randn(2, 9, *SHAPE))
    for seed in (2, 1):
        torch.manual_seed(seed)
        for child in net.modules():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()
        same = [torch.equal(tensor, first[name]) for name, tensor in net.state_dict().items()]
        assert all(same) == (seed == 1)


# ---- numbers ----


def batch(seed: int, step: int, count: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1000 * seed + step)
    inputs = torch.randn(count, *SHAPE, generator=draw, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (count,), generator=draw)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_it_trains_as_lone_networks_do(
    options: dict[str, Any], clip: float | None, way: str
) -> None:
    """Outputs, weights and BatchNorm's statistics of each seed, clipped seed by seed; float64."""
    stack = stack_of(SEEDS, **options).double()
    lone = [seeded(seed, **options).double() for seed in SEEDS]
    together = torch.optim.AdamW(stack.parameters(), lr=1e-2)
    alone = [torch.optim.AdamW(net.parameters(), lr=1e-2) for net in lone]
    for step in range(4):
        batches = [batch(seed, step) for seed in SEEDS]
        outputs = stack(torch.stack([inputs for inputs, _ in batches]))
        together.zero_grad()
        sum(cross_entropy(outputs[i], labels) for i, (_, labels) in enumerate(batches)).backward()
        if clip is not None:
            clip_gradients(stack, clip)
        together.step()
        for slot, (net, optimizer) in enumerate(zip(lone, alone, strict=True)):
            optimizer.zero_grad()
            logits = net(batches[slot][0])
            torch.testing.assert_close(outputs[slot], logits, rtol=1e-6, atol=1e-7)
            cross_entropy(logits, batches[slot][1]).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
    for slot, net in enumerate(lone):
        for mine, theirs in zip(
            stack.state_dict().values(), net.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(mine[slot], theirs, rtol=1e-6, atol=1e-7)
    stack.eval()
    with torch.no_grad():
        inputs = batch(0, 9)[0]
        for slot, logits in enumerate(stack(inputs.expand(3, *inputs.shape))):
            torch.testing.assert_close(logits, lone[slot].eval()(inputs), rtol=1e-6, atol=1e-7)


def test_one_seeds_gradient_does_not_meet_anothers(way: str) -> None:
    stack = stack_of(SEEDS, linear_norm="batch")
    stack(torch.randn(3, 6, *SHAPE))[1].square().sum().backward()
    for parameter in stack.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[0].any() and not parameter.grad[2].any()
    assert stack.get_parameter("conv0.weight").grad[1].any()  # type: ignore[index]


@pytest.mark.parametrize("way", ["seed by seed", "layer by layer"], indirect=True)
def test_a_seeds_bits_do_not_depend_on_mates_and_slot(way: str) -> None:
    """Odd channels, so that vectors are cut: there grouped convolutions on a CPU do not hold it."""
    found: dict[int, list[Tensor]] = {}
    for seeds in [(11, 12, 13), (13, 11, 14), (12, 12, 11)]:
        stack = stack_of(seeds, channels=[5, 7], hidden=[9])
        inputs = torch.stack([batch(seed, 0)[0].float() for seed in seeds])
        outputs = stack(inputs)
        outputs.square().sum().backward()
        tensors = [outputs, *(p.grad for p in stack.parameters()), *stack.buffers()]
        for slot, seed in enumerate(seeds):
            mine = [tensor[slot].detach().clone() for tensor in tensors if tensor is not None]
            for value, earlier in zip(mine, found.setdefault(seed, mine), strict=True):
                assert torch.equal(value, earlier)


@pytest.mark.parametrize("name", ["conv0.weight", "conv_norm1.running_var", "output.bias"])
def test_finite_names_the_seed_that_is_not(name: str) -> None:
    stack = build(3)
    with torch.no_grad():
        stack.state_dict()[name][1].view(-1)[0] = torch.inf
    assert finite(stack).tolist() == [True, False, True]


# ---- what others rely on ----


@pytest.mark.parametrize("options", [{}, {"activation": "crelu"}])
def test_a_hook_sees_what_each_non_linearity_puts_out(options: dict[str, Any], way: str) -> None:
    """Of all seeds, [S, B, ...], before the pooling, as in the lone networks."""
    stack, lone = stack_of(SEEDS, **options), [seeded(seed, **options) for seed in SEEDS]
    inputs = torch.randn(3, 6, *SHAPE)
    seen: list[Tensor] = []
    expected: list[Tensor] = []

    def watch(net: nn.Module, into: list[Tensor]) -> None:
        for child in net.modules():
            if isinstance(child, nn.ReLU | CReLU):
                child.register_forward_hook(lambda _m, _i, output: into.append(output))

    watch(stack, seen)
    stack(inputs)
    for net, images in zip(lone, inputs, strict=True):
        watch(net, expected)
        net(images)
    assert [tuple(maps.shape) for maps in seen] == [(3, 6, 4, 8, 8), (3, 6, 6, 4, 4), (3, 6, 8)]
    for index, maps in enumerate(seen):
        torch.testing.assert_close(maps, torch.stack(expected[index::3]), rtol=1e-4, atol=1e-5)


def test_diagnostics_are_those_of_lone_networks(way: str) -> None:
    stack, lone = stack_of(SEEDS), [seeded(seed) for seed in SEEDS]
    inputs, labels = torch.randn(3, 20, *SHAPE), torch.randint(CLASSES, (3, 20))
    initial = {name: tensor.detach() - 0.25 for name, tensor in stack.named_parameters()}

    def loss(outputs: Tensor) -> Tensor:
        return torch.stack(
            [cross_entropy(z, y) for z, y in zip(outputs, labels, strict=True)]
        ).sum()

    together = diagnose(stack, inputs, loss, initial)
    for slot, net in enumerate(lone):
        own = {name: tensor[slot] for name, tensor in initial.items()}
        answers = labels[slot]
        alone = diagnose(net, inputs[slot], lambda z, y=answers: cross_entropy(z, y), own)  # type: ignore[misc]
        for key, value in together.items():
            torch.testing.assert_close(value[slot : slot + 1], alone[key], rtol=1e-4, atol=1e-5)


def test_a_frozen_norm_stays_frozen(way: str) -> None:
    stack = stack_of(SEEDS)
    stack.get_submodule("conv_norm0").eval()
    stack(torch.randn(3, 6, *SHAPE))
    counts = [stack.get_buffer(f"conv_norm{i}.num_batches_tracked").tolist() for i in range(2)]
    assert counts == [[0, 0, 0], [1, 1, 1]]
    assert not stack.get_buffer("conv_norm0.running_mean").any()


def test_a_replaced_layer_is_used() -> None:
    stack = build(2)
    inputs = torch.randn(2, 3, *SHAPE)
    stack.activation0 = nn.Tanh()
    hidden = torch.tanh(stack.linear0(stack.eval()._through(inputs, [
        *("conv0", "conv_norm0", "conv_activation0", "pool0"),
        *("conv1", "conv_norm1", "conv_activation1", "pool1", "flatten"),
    ])))  # fmt: skip
    assert torch.equal(stack(inputs), stack.output(hidden))


def test_it_computes_with_the_tensors_put_in_its_place(way: str) -> None:
    """By functional_call, and in a deep copy."""
    stack, other = stack_of(SEEDS).eval(), stack_of((14, 15, 16)).eval()
    inputs = torch.randn(3, 4, *SHAPE)
    tensors = {name: tensor.detach() for name, tensor in other.state_dict().items()}
    assert torch.equal(torch.func.functional_call(stack, tensors, (inputs,)), other(inputs))
    twin = copy.deepcopy(stack)
    twin.load_state_dict(other.state_dict())
    assert torch.equal(twin(inputs), other(inputs)) and not torch.equal(stack(inputs), twin(inputs))


def test_bf16_is_autocast_as_in_a_lone_network(way: str) -> None:
    stack, lone = stack_of(SEEDS), [seeded(seed) for seed in SEEDS]
    inputs = torch.randn(3, 6, *SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = stack(inputs)
        expected = torch.stack([net(images) for net, images in zip(lone, inputs, strict=True)])
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs, expected, rtol=0.05, atol=0.05)


# ---- parts ----


def test_folded_maps_lie_channels_last_and_come_back_without_a_copy() -> None:
    maps = torch.randn(3, 2, 4, 5, 5)
    folded = fold(maps)
    assert folded.shape == (2, 12, 5, 5)
    assert folded.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(folded[:, 4:8], maps[1])
    again = unfold(folded, 3)
    assert torch.equal(again, maps) and again.data_ptr() == folded.data_ptr()
    assert fold(torch.relu(again)).data_ptr() != folded.data_ptr()
    assert fold(again).data_ptr() == folded.data_ptr()


def test_side_by_side_nothing_is_copied_between_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer of the convolutional part reads the memory that the one before it wrote."""
    stack = build(3)
    monkeypatch.setattr(stacked_conv, "side_by_side", lambda maps: True)
    copies: list[bool] = []

    def count(maps: Tensor) -> Tensor:
        folded = fold(maps)
        copies.append(folded.data_ptr() != maps.data_ptr())
        return folded

    monkeypatch.setattr(stacked_conv, "fold", count)
    stack(torch.randn(3, 4, *SHAPE))
    assert copies == [True, *[False] * 5]  # the images alone


def test_batch_norms_statistics_are_torchs_seed_by_seed(way: str) -> None:
    norm, lone = StackedBatchNorm2d(2, 3), [nn.BatchNorm2d(3) for _ in range(2)]
    for _ in range(3):
        inputs = 3 * torch.randn(2, 4, 3, 5, 5) + 1
        outputs = norm(inputs)
        for slot, theirs in enumerate(lone):
            torch.testing.assert_close(outputs[slot], theirs(inputs[slot]), rtol=1e-4, atol=1e-5)
            for name, buffer in theirs.named_buffers():
                torch.testing.assert_close(norm.get_buffer(name)[slot], buffer)
    before = [buffer.clone() for buffer in norm.buffers()]
    norm.eval()(inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))
