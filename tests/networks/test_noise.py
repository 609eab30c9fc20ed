"""Random numbers in a stack: a seed's own, whatever its mates and slot, on both ways through."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.networks import stacked_conv
from ht_bench.networks.activations import IntervalDropout
from ht_bench.networks.mlp import copy_seed
from ht_bench.networks.noise import Noisy, SeedNoise, give_noise
from ht_bench.networks.stacked_conv import StackedChain

SHAPE, CLASSES = (3, 8, 8), 5
TABLES: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "hidden": [8, 6]},
    "cnn": {"name": "cnn", "channels": [4], "hidden": [8]},
}


@pytest.fixture(params=["seed by seed", "layer by layer", "side by side"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way through a stack of convolutions: a CPU's, the same while watched, a GPU's."""
    if request.param == "side by side":
        monkeypatch.setattr(stacked_conv, "side_by_side", lambda maps: True)
    if request.param == "layer by layer":
        monkeypatch.setattr(StackedChain, "_is_watched", lambda self: True)
    return str(request.param)


def stack_of(name: str, seeds: tuple[int, ...]) -> tuple[nn.Module, SeedNoise]:
    """A stack of interval dropout, each seed with weights and draws of its own."""
    table = {**TABLES[name], "activation": "interval-dropout"}
    stack = networks.build(table, SHAPE, CLASSES, stack=len(seeds))
    for slot, seed in enumerate(seeds):
        torch.manual_seed(seed)
        copy_seed(networks.build(table, SHAPE, CLASSES, stack=1), stack, slot)
    noise = SeedNoise(len(seeds))
    assert give_noise(stack, noise)
    noise.key(seeds)
    return stack, noise


def images(seeds: tuple[int, ...]) -> Tensor:
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(4, *SHAPE, generator=draw) for draw in draws])


@pytest.mark.parametrize("name", TABLES)
def test_a_seed_draws_alike_in_every_slot_and_as_a_lone_network(name: str, way: str) -> None:
    found: dict[int, list[Tensor]] = {}
    for seeds in [(1, 2, 3), (3, 1), (2,)]:
        stack, _ = stack_of(name, seeds)
        outputs = [stack(images(seeds)) for _ in range(2)]
        for slot, seed in enumerate(seeds):
            own = [output[slot] for output in outputs]
            for one, other in zip(found.setdefault(seed, own), own, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not torch.equal(*found[1])  # each call draws anew
    if name == "cnn":
        torch.manual_seed(1)
        lone = networks.build({**TABLES[name], "activation": "interval-dropout"}, SHAPE, CLASSES)
        torch.manual_seed(1)
        [inputs] = images((1,))
        for expected in found[1]:
            given = lone(inputs.contiguous(memory_format=torch.channels_last))
            torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)


def test_without_noise_of_its_own_a_stacks_seed_would_depend_on_its_slot() -> None:
    """The fault that this excludes, planted."""
    outputs = []
    for seeds in [(1, 2), (2, 1)]:
        stack, _ = stack_of("mlp", seeds)
        give_noise(stack, None)
        torch.manual_seed(0)
        outputs.append(stack(images(seeds))[seeds.index(1)])
    assert not torch.equal(*outputs)


def test_draws_leave_torchs_generator_alone_and_go_on_from_a_checkpoint() -> None:
    stack, noise = stack_of("mlp", (1, 2))
    before, inputs = torch.get_rng_state(), images((1, 2))
    stack(inputs)
    saved = noise.state_dict()
    expected = stack(inputs)
    noise.key((7, 8))
    noise.load_state_dict(saved)
    assert torch.equal(stack(inputs), expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", TABLES)
def test_a_copy_takes_no_draw_from_the_first(name: str) -> None:
    stack, noise = stack_of(name, (1, 2))
    twin, state = copy.deepcopy(stack), noise.state_dict()
    inputs = images((1, 2))
    drawn = twin(inputs)
    assert all(map(torch.equal, noise.state_dict(), state))
    torch.testing.assert_close(stack(inputs), drawn)


def test_evaluation_draws_nothing_and_a_network_without_noise_has_none() -> None:
    stack, noise = stack_of("mlp", (1, 2))
    state = noise.state_dict()
    stack.eval()(images((1, 2)))
    assert all(map(torch.equal, noise.state_dict(), state))
    assert not give_noise(networks.build(TABLES["mlp"], SHAPE, CLASSES, stack=2), noise)


def test_others_attributes_called_noise_stay() -> None:
    layer = nn.Linear(1, 1)
    layer.noise = 0.5  # type: ignore[assignment]
    network = nn.Sequential(layer, IntervalDropout())
    assert give_noise(network, SeedNoise(1)) and layer.noise == 0.5
    assert isinstance(network[1], Noisy) and network[1].noise is not None
