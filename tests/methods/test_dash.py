"""Direction-aware shrinking against its rule in NumPy; what may shrink and what may not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import ht_bench.sb3  # noqa: F401
from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.dash import DirectionAwareShrinking
from ht_bench.methods.loop import Loop
from ht_bench.networks.mlp import StackedMLP

from .conftest import INPUTS, LABELS, Array, Make, TwoLayers, copied, leaves_no_trace

AVERAGING, THRESHOLD = 0.4, 0.02


def cosine(a: Array, b: Array) -> float:
    return float(np.sum(a * b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-8))


def attached(net: nn.Module, **settings: float) -> DirectionAwareShrinking:
    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        dtype = next(net.parameters()).dtype
        for start in (0, 4):
            yield INPUTS[start : start + 4].to(dtype), LABELS[start : start + 4]

    values = {"averaging": AVERAGING, "threshold": THRESHOLD, **settings}
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    loop = Loop(old_batches=batches, loss=cross_entropy)
    return DirectionAwareShrinking(**values).attach(net, optimizer, loop=loop)


def test_it_shrinks_as_the_rule_says() -> None:
    mine = TwoLayers(4)
    net = mine.twin()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(3):
            inputs, labels = TwoLayers.batch(step)
            yield torch.tensor(inputs), torch.tensor(labels)

    loop = Loop(old_batches=batches, loss=cross_entropy)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method = DirectionAwareShrinking(averaging=AVERAGING, threshold=THRESHOLD)
    method.attach(net, optimizer, loop=loop)
    average: dict[str, Array] = {name: np.zeros_like(w) for name, w in mine.weights.items()}
    for step in range(3):
        gradients = mine.gradients(*TwoLayers.batch(step))
        average = {
            name: (1 - AVERAGING) * g - AVERAGING * gradients[name] for name, g in average.items()
        }
    factors = []
    for name, weights in mine.weights.items():
        rows = [weights] if weights.ndim == 1 else list(weights)
        toward = [average[name]] if weights.ndim == 1 else list(average[name])
        for row, direction in zip(rows, toward, strict=True):
            factors.append(min(max(cosine(direction, row), THRESHOLD), 1.0))
            row *= factors[-1]
    method.enter_phase(1, 5, None, 2)
    mine.assert_equals(net)
    assert len(set(factors)) == 3 and min(factors) == THRESHOLD  # both branches were met


def test_kernels_shrink_one_by_one_and_normalisations_not_at_all(make_net: Make) -> None:
    net = make_net()
    net(INPUTS)
    method = attached(net)
    before = copied(net)
    method.enter_phase(1, 5, None, 2)
    after, seen = copied(net), set[float]()
    for name, tensor in after.items():
        layer = net.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert torch.equal(tensor, before[name]), name
            continue
        factors = tensor / before[name]
        if tensor.dim() == 4:
            factors = factors.flatten(2)
        torch.testing.assert_close(factors, factors[..., :1].expand_as(factors))
        assert bool((factors >= THRESHOLD - 1e-6).all() and (factors <= 1 + 1e-6).all()), name
        seen |= {round(float(factor), 4) for factor in factors.reshape(-1)}
    assert len(seen) > 2


def test_gathering_leaves_everything_else_alone(make_net: Make) -> None:
    net = make_net()
    net.train()
    method = attached(net, threshold=1.0)
    method.threshold = 0.0  # gathers, and by λ = 0 … 1 shrinks
    nn.functional.cross_entropy(net(INPUTS), LABELS).backward()
    with leaves_no_trace(method):
        method._descent(method._shrinking())


def test_each_seed_of_a_stack_shrinks_by_its_own_data() -> None:
    inputs = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(3, (3, 8), generator=torch.Generator().manual_seed(2))
    stack = StackedMLP((4, 6, 5, 3), 3, "relu", "none")
    lones = []
    for seed in range(3):
        lone = StackedMLP((4, 6, 5, 3), 1, "relu", "none")
        with torch.no_grad():
            for mine, theirs in zip(lone.parameters(), stack.parameters(), strict=True):
                mine.copy_(theirs[seed : seed + 1])
        lones.append(lone)

    def loss(outputs: Tensor, truth: Tensor) -> Tensor:
        each = cross_entropy(outputs.flatten(0, 1), truth.flatten(), reduction="none")
        return each.view(truth.shape).mean(1).sum()

    for seeds, net in [(slice(0, 3), stack), *((slice(s, s + 1), n) for s, n in enumerate(lones))]:
        loop = Loop(old_batches=lambda s=seeds: iter([(inputs[s], labels[s])]), loss=loss)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        DirectionAwareShrinking(threshold=0.1).attach(net, optimizer, loop=loop).enter_phase(
            1, 5, None, 2
        )
    for seed, lone in enumerate(lones):
        for mine, theirs in zip(lone.parameters(), stack.parameters(), strict=True):
            torch.testing.assert_close(mine[0], theirs[seed])


def test_where_no_old_data_are_it_is_refused() -> None:
    net = TwoLayers().twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(Unsuitable, match=r"'dash' reads the examples of the phase that has ended"):
        DirectionAwareShrinking().attach(net, optimizer)
    with pytest.raises(Unsuitable, match="which an agent's buffer no longer holds"):
        PPO("PlasticMlpPolicy", "CartPole-v1", policy_kwargs={"plasticity": "dash"})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [({"averaging": 0.0}, "averaging = 0.0"), ({"threshold": 1.5}, "threshold = 1.5")],
)
def test_wrong_values_are_named(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        DirectionAwareShrinking(**values)
