"""The stacked perceptron: each slot is the lone network, bit for bit or within rounding."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods.resolve import resolve
from ht_bench.networks.mlp import (
    StackedBatchNorm,
    StackedLayerNorm,
    StackedLinear,
    StackedMLP,
    copy_seed,
)
from ht_bench.networks.parts import CReLU
from ht_bench.networks.stacking import clip_gradients, finite, squared_norms
from ht_bench.running.job import StackJob, run_stack
from ht_bench.streams.data import load
from ht_bench.streams.randomness import torch_seed
from ht_bench.streams.task import Task, parse_task
from ht_bench.training import build

SHAPE, CLASSES = (1, 4, 4), 5
SEEDS = (11, 12, 13)


def stacked(stack: int = 1, **options: Any) -> StackedMLP:
    net = networks.build({"name": "mlp", "hidden": [8, 6], **options}, SHAPE, CLASSES, stack)
    assert isinstance(net, StackedMLP)
    return net


def plain(**options: Any) -> nn.Sequential:
    """The same network of nn.Linear, nn.LayerNorm and nn.BatchNorm1d."""
    norms = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
    modules: list[nn.Module] = [nn.Flatten()]
    inputs = 16
    crelu = options.get("activation") == "crelu"
    for width in (8, 6):
        units = width // 2 if crelu else width
        modules.append(nn.Linear(inputs, units))
        if "linear_norm" in options:
            modules.append(norms[options["linear_norm"]](units))
        modules.append(CReLU() if crelu else nn.ReLU())
        inputs = width
    return nn.Sequential(*modules, nn.Linear(inputs, CLASSES))


def seeded(make: Callable[..., nn.Module], seed: int, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return make(**options)


def stack_of(seeds: tuple[int, ...], **options: Any) -> StackedMLP:
    stack = stacked(len(seeds), **options)
    for slot, seed in enumerate(seeds):
        copy_seed(seeded(stacked, seed, **options), stack, slot)
    return stack


OPTIONS: list[dict[str, Any]] = [
    {},
    {"linear_norm": "layer"},
    {"linear_norm": "batch"},
    {"activation": "crelu"},
    {"activation": "crelu", "linear_norm": "batch"},
]


# ---- weights ----


@pytest.mark.parametrize("options", OPTIONS)
def test_every_slot_starts_from_the_weights_of_a_lone_torch_network(
    options: dict[str, Any],
) -> None:
    stack = stack_of(SEEDS, **options)
    for slot, seed in enumerate(SEEDS):
        lone = seeded(plain, seed, **options).state_dict()
        one = seeded(stacked, seed, **options).state_dict()
        pairs = zip(stack.state_dict().values(), lone.values(), one.values(), strict=True)
        for mine, theirs, single in pairs:
            assert torch.equal(mine[slot], theirs)
            assert torch.equal(mine[slot], single[0])


def test_a_stack_drawn_at_once_draws_each_layer_seed_after_seed() -> None:
    torch.manual_seed(4)
    layer = StackedLinear(3, 7, 5)
    torch.manual_seed(4)
    for slot in range(3):
        lone = nn.Linear(7, 5)
        assert torch.equal(layer.weight[slot], lone.weight)
        assert torch.equal(layer.bias[slot], lone.bias)


@pytest.mark.parametrize("purpose", ["initial weights", "fresh weights"])
def test_a_runs_stack_is_built_of_keyed_lone_networks(purpose: Any) -> None:
    task, data, state = tiny(), load("digits"), torch.get_rng_state()
    stack = build.network(task, data, (100, 101, 100), {}, purpose, phase=1)
    assert torch.equal(torch.get_rng_state(), state)
    for slot, seed in enumerate((100, 101, 100)):
        torch.manual_seed(torch_seed("tiny", seed, purpose, 1, 0))
        widths = (64, 16, 12, 10)
        lone = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        for name, layer in zip(stack.layers(), lone, strict=True):  # type: ignore[operator]
            mine = stack.get_submodule(name)
            assert torch.equal(mine.weight[slot], layer.weight)  # type: ignore[index]
            assert torch.equal(mine.bias[slot], layer.bias)  # type: ignore[index]


@pytest.mark.parametrize("options", OPTIONS)
def test_reset_parameters_draws_the_network_anew(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    net = stacked(2, **options)
    first = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net(torch.randn(2, 9, *SHAPE))
    for seed in (2, 1):
        torch.manual_seed(seed)
        for child in net.modules():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()
        same = [torch.equal(tensor, first[name]) for name, tensor in net.state_dict().items()]
        assert all(same) == (seed == 1)


# ---- training ----


def batch(seed: int, step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1000 * seed + step)
    inputs = torch.randn(16, *SHAPE, generator=draw, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (16,), generator=draw)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_it_trains_as_lone_torch_networks_do(options: dict[str, Any], clip: float | None) -> None:
    """In float64, where a bias before BatchNorm, whose gradient is rounding, stays put."""
    stack = stack_of(SEEDS, **options).double()
    lone = [seeded(plain, seed, **options).double() for seed in SEEDS]
    together = torch.optim.AdamW(stack.parameters(), lr=1e-2)
    alone = [torch.optim.AdamW(net.parameters(), lr=1e-2) for net in lone]
    for step in range(8):
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
        pairs = zip(stack.state_dict().values(), net.state_dict().values(), strict=True)
        for mine, theirs in pairs:
            torch.testing.assert_close(mine[slot], theirs, rtol=1e-6, atol=1e-7)


def test_one_seeds_gradient_does_not_meet_anothers() -> None:
    stack = stack_of(SEEDS, linear_norm="batch")
    inputs = torch.randn(3, 9, *SHAPE)
    stack(inputs)[1].square().sum().backward()
    for parameter in stack.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[0].any() and not parameter.grad[2].any()
    assert stack.get_parameter("output.weight").grad[1].any()  # type: ignore[index]


# ---- a seed's bits, whatever its mates and slot ----


def tiny() -> Task:
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [16, 12]},
        "optimizer": {"lr": 1e-2, "clip": 0.5},
        "training": {"batch": 16, "points": 2, "stack": 4},
        "phases": [{"new": 0.5, "wrong": 0.5, "updates": 12}, {"new": 0.5, "updates": 12}],
    }
    return parse_task(table, "tiny.toml")


@pytest.mark.parametrize(
    ("method", "hyperparameters"),
    [
        ("none", {}),
        ("hare-tortoise", {"decay": 0.9, "reset_every": 5}),
        ("full-reset", {}),
        ("head-reset", {"layers": 2}),
        ("shrink-perturb", {"amount": 0.5, "toward": "fresh"}),
        ("l2-init", {"strength": 0.01}),
        ("self-distillation", {"decay": 0.9, "temperature": 2.0}),
        ("layer-norm", {}),
        ("crelu", {}),
    ],
)
def test_a_seed_has_the_same_bits_whatever_its_mates_and_slot(
    method: str, hyperparameters: dict[str, Any]
) -> None:
    spec = resolve(method, "tiny", hyperparameters)
    found: dict[int, dict[str, Any]] = {}
    for seeds in [(100, 101, 102), (102, 100), (103, 101, 104, 102)]:
        for record in run_stack(StackJob(tiny(), spec, seeds)):
            kept = {key: record[key] for key in ("curve", "diagnostics", "status", "steps")}
            assert found.setdefault(record["seed"], kept) == kept
    assert sorted(found) == [100, 101, 102, 103, 104]
    assert found[100]["curve"] != found[101]["curve"]


# ---- parts ----


def test_batch_norm_is_torchs_in_outputs_gradients_and_buffers() -> None:
    norm = StackedBatchNorm(2, 5)
    lone = [nn.BatchNorm1d(5) for _ in range(2)]
    with torch.no_grad():
        for slot, theirs in enumerate(lone):
            for mine, tensor in ((norm.weight, theirs.weight), (norm.bias, theirs.bias)):
                tensor.copy_(torch.randn(5))
                mine[slot] = tensor
    for step in range(4):
        inputs = 3 * torch.randn(2, 7, 5) + 1
        if step == 3:
            norm.eval()
            for theirs in lone:
                theirs.eval()
        mine_in = inputs.clone().requires_grad_()
        outputs = norm(mine_in)
        slope = torch.randn_like(outputs)
        norm.zero_grad()
        outputs.backward(slope)
        for slot, theirs in enumerate(lone):
            their_in = inputs[slot].clone().requires_grad_()
            theirs.zero_grad()
            expected = theirs(their_in)
            expected.backward(slope[slot])
            torch.testing.assert_close(outputs[slot], expected, rtol=1e-5, atol=1e-5)
            grads = (mine_in.grad, norm.weight.grad, norm.bias.grad)
            wanted = (their_in.grad, theirs.weight.grad, theirs.bias.grad)
            for mine, want in zip(grads, wanted, strict=True):
                torch.testing.assert_close(mine[slot], want, rtol=1e-4, atol=1e-5)
            for name, buffer in theirs.named_buffers():
                torch.testing.assert_close(norm.get_buffer(name)[slot], buffer)


def test_batch_norms_statistics_stand_still_in_evaluation() -> None:
    norm = StackedBatchNorm(2, 5).eval()
    before = [buffer.clone() for buffer in norm.buffers()]
    norm(torch.randn(2, 7, 5))
    assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))


def test_layer_norm_is_torchs() -> None:
    norm, lone = StackedLayerNorm(2, 5), [nn.LayerNorm(5) for _ in range(2)]
    with torch.no_grad():
        for slot, theirs in enumerate(lone):
            for mine, tensor in ((norm.weight, theirs.weight), (norm.bias, theirs.bias)):
                tensor.copy_(torch.randn(5))
                mine[slot] = tensor
    inputs = torch.randn(2, 7, 5, requires_grad=True)
    outputs = norm(inputs)
    outputs.square().sum().backward()
    for slot, theirs in enumerate(lone):
        theirs_in = inputs.detach()[slot].clone().requires_grad_()
        expected = theirs(theirs_in)
        expected.square().sum().backward()
        torch.testing.assert_close(outputs[slot], expected)
        assert inputs.grad is not None and norm.weight.grad is not None
        torch.testing.assert_close(inputs.grad[slot], theirs_in.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.weight.grad[slot], theirs.weight.grad)


@pytest.mark.parametrize("maximum", [0.01, 1.0, 1e6])
def test_clipping_is_torchs_seed_by_seed(maximum: float) -> None:
    stack, lone = stack_of(SEEDS), [seeded(plain, seed) for seed in SEEDS]
    for index, parameter in enumerate(stack.parameters()):
        parameter.grad = torch.randn_like(parameter) * torch.tensor([0.01, 1.0, 9.0]).view(
            3, *[1] * (parameter.dim() - 1)
        )
        for slot, net in enumerate(lone):
            list(net.parameters())[index].grad = parameter.grad[slot].clone()
    norms = [nn.utils.clip_grad_norm_(net.parameters(), maximum) for net in lone]
    gradients = [p.grad for p in stack.parameters() if p.grad is not None]
    mine = squared_norms(gradients, stacked=True).sqrt()
    torch.testing.assert_close(mine, torch.stack(norms))
    clip_gradients(stack, maximum)
    for slot, net in enumerate(lone):
        for gradient, theirs in zip(gradients, net.parameters(), strict=True):
            torch.testing.assert_close(gradient[slot], theirs.grad)


def test_clipping_a_lone_network_is_torchs() -> None:
    nets = [seeded(plain, 1) for _ in range(2)]
    for net in nets:
        net(torch.ones(3, *SHAPE)).square().sum().backward()
    clip_gradients(nets[0], 0.1)
    nn.utils.clip_grad_norm_(nets[1].parameters(), 0.1)
    for mine, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("name", ["linear0.weight", "norm1.running_var", "output.bias"])
def test_finite_names_the_seed_that_is_not(name: str) -> None:
    stack = stacked(3, linear_norm="batch")
    assert finite(stack).tolist() == [True, True, True]
    with torch.no_grad():
        stack.state_dict()[name][1].view(-1)[0] = np.inf
    assert finite(stack).tolist() == [True, False, True]


def test_copying_needs_two_stacks() -> None:
    with pytest.raises(UsageError, match="copy_seed needs two stacked networks"):
        copy_seed(plain(), stacked(2), 0)
