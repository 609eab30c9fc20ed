"""TRAC against NumPy with scalars alone, erfi, tuners per seed, what is kept in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.trac import ERFI_OF_HALF_ROOT, LARGEST, Trac, erfi, nodes
from ht_bench.sb3 import find_algorithm
from ht_bench.training.program import Program, stack

from .conftest import Array, Make, TwoLayers, assert_equal, copied, descend, train_step


def series(x: float) -> float:
    """erfi by its power series, 2/√π Σ x^(2n+1) / (n! (2n+1))."""
    term, total = x, 0.0
    for n in range(200):
        total += term / (2 * n + 1)
        term *= x * x / (n + 1)
    return 2 / math.sqrt(math.pi) * total


class Tuners:
    """The scale of TRAC, one discount after the other (Algorithm 2)."""

    def __init__(self, count: int, scale: float) -> None:
        self.betas = [1 - 10.0**-j for j in range(1, count + 1)]
        self.v, self.sigma, self.scale = [0.0] * count, [1e-8] * count, scale

    def update(self, product: float) -> float:
        total = 0.0
        for j, beta in enumerate(self.betas):
            self.v[j] = beta**2 * self.v[j] + product**2
            self.sigma[j] = beta * self.sigma[j] - product
            ratio = self.sigma[j] / (math.sqrt(2 * self.v[j]) + 1e-8)
            total += self.scale / series(1 / math.sqrt(2)) * series(ratio)
        return total


@pytest.mark.parametrize(("scale", "tuners", "rests"), [(1e-2, 6, False), (0.3, 3, True)])
def test_it_is_a_numpy_loop(scale: float, tuners: int, rests: bool) -> None:
    """With SGD; while the scales' sum is negative the weights rest at θ_ref."""
    ours, reference = TwoLayers(), TwoLayers().weights
    net, tune = ours.twin(), Tuners(tuners, scale)
    delta: dict[str, Array] = {name: np.zeros_like(w) for name, w in reference.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    Trac(tuners=tuners, scale=scale).attach(net, optimizer)
    sums = []
    for step in range(60):
        inputs, labels = ours.batch(step % 3)
        gradients = ours.gradients(inputs, labels)
        product = float(sum((delta[name] * g).sum() for name, g in gradients.items()))
        for name, gradient in gradients.items():
            delta[name] = delta[name] - 0.5 * gradient
        sums.append(tune.update(product))
        for name, w in reference.items():
            ours.weights[name] = w + max(sums[-1], 0.0) * delta[name]
        descend(net, optimizer, inputs, labels)
        for name, tensor in net.state_dict().items():
            np.testing.assert_allclose(tensor, ours.weights[name], rtol=1e-8, atol=1e-12)
    assert max(sums) > 4 * scale and (min(sums) < 0) == rests


def test_it_rests_at_the_reference_while_gradients_point_back_to_it() -> None:
    """Weight 0, lr 1: δ = -1, then gradients of -1 make ⟨∇, δ⟩ = 1 and the scale negative."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    Trac(tuners=1, scale=0.5).attach(net, optimizer)
    weights = []
    for gradient in (1.0, -1.0):
        net.weight.grad = torch.full_like(net.weight, gradient)
        optimizer.step()
        weights.append(net.weight.item())
    first = 0.5 / series(1 / math.sqrt(2)) * series(0.9)
    assert weights == pytest.approx([-first, 0.0])


def test_erfi_is_its_series() -> None:
    places = [0.0, 1e-9, 0.1, 0.7, 1.0, 2.5, 5.0, 8.0, -1.3]
    values = erfi(torch.tensor(places, dtype=torch.float64), nodes(torch.device("cpu")))
    np.testing.assert_allclose(values, [series(x) for x in places], rtol=1e-12)
    assert series(1 / math.sqrt(2)) == pytest.approx(ERFI_OF_HALF_ROOT, rel=1e-14)
    largest = erfi(torch.tensor([1e3], dtype=torch.float64), nodes(torch.device("cpu")))
    # The asymptotic expansion, exp(x²) / (√π x) (1 + 1/(2x²) + …).
    expected = math.exp(LARGEST**2) / math.sqrt(math.pi) / LARGEST * (1 + 0.5 / LARGEST**2)
    assert largest.item() == pytest.approx(expected, rel=1e-5)


def test_what_float32_would_round_away_is_kept() -> None:
    """δ · 1e-8 is lost in a weight near 1; δ itself, of the optimizer's size, is not."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    method = Trac().attach(net, optimizer)
    for _ in range(60):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        if int(method.steps_seen) == 5:
            assert net.weight.item() == 1.0
            assert method.state_dict()["delta"]["weight"].item() == pytest.approx(-5e-3, rel=1e-4)
    assert net.weight.item() < 0.99


def test_each_seed_of_a_stack_has_tuners_of_its_own() -> None:
    scales = []
    for seeds in ((1, 2, 3), (3, 9)):
        program = Program(Trac(scale=0.1), lambda seeds=seeds: _stack(len(seeds)), seeds)
        scales.append(program.train(5).method.state_dict()["scales"])
    assert scales[0].shape == (3, 6)
    torch.testing.assert_close(scales[0][2], scales[1][0])
    assert not torch.allclose(scales[0][0], scales[0][1])


def _stack(count: int) -> nn.Module:
    made = stack()
    return made if count == 3 else type(made)((16, 12, 8, 3), count, "relu", "none")


def test_any_optimizers_steps_are_summed_and_its_moments_left_alone(make_net: Make) -> None:
    net, plain = make_net(), make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    theirs = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.1)
    method = Trac(scale=1e-2).attach(net, optimizer)
    train_step(net, optimizer, 0)
    train_step(plain, theirs, 0)
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    expected = [state["exp_avg"] for state in theirs.state.values()]
    assert all(map(torch.equal, moments, expected))
    saved = method.state_dict()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(
            saved["delta"][name], parameter.detach() - saved["reference"][name]
        )


def test_the_reference_is_the_weights_at_attach_and_a_frozen_one_stays(make_net: Make) -> None:
    """Taken after the first step, θ0 would be another (fault 6)."""
    net = make_net()
    frozen = next(net.parameters()).requires_grad_(False)
    initial = copied({name: p.detach() for name, p in net.named_parameters()})
    optimizer = torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=0.1)
    method = Trac(scale=0.1).attach(net, optimizer)
    for step in range(3):
        train_step(net, optimizer, step)
    assert_equal(method.state_dict()["reference"], initial)
    assert torch.equal(frozen, next(iter(initial.values())))
    method.resync()
    after: dict[str, Tensor] = {name: p.detach() for name, p in net.named_parameters()}
    assert_equal(method.state_dict()["reference"], after)
    assert not any(t.any() for t in method.state_dict()["delta"].values())


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_agents_train_with_it(algorithm: str) -> None:
    settings = {
        "ppo": {"n_steps": 32, "batch_size": 16, "n_epochs": 2},
        "dqn": {"learning_starts": 16, "batch_size": 8, "train_freq": 1},
    }[algorithm]
    kwargs = {"net_arch": [8], "plasticity": "trac", "plasticity_kwargs": {"scale": 0.1}}
    model: Any = find_algorithm(algorithm)(
        "PlasticMlpPolicy", "CartPole-v1", seed=1, policy_kwargs=kwargs, device="cpu", **settings
    )
    before = copied({name: p.detach() for name, p in model.policy.named_parameters()})
    model.learn(64)
    (method,) = model.policy.methods.values()
    assert method.steps_seen > 0 and method.state_dict()["scales"].any()
    moved = [not torch.equal(p, before[name]) for name, p in model.policy.named_parameters()]
    assert any(moved) or method.state_dict()["scales"].sum() <= 0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"tuners": 0}, "tuners = 0: give 1 or more"),
        ({"tuners": True}, "tuners = True"),
        ({"scale": 0.0}, "scale = 0.0: it lies above 0"),
    ],
)
def test_values_it_cannot_take_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Trac(**values)
