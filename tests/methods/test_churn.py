"""Churn reduction by hand, against NumPy, in a stack; nothing but gradients changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.average import SlowCopy
from ht_bench.methods.churn import ChurnReduction
from ht_bench.methods.loop import Loop

from .conftest import Array, Net, TwoLayers, copied, descend, make_run, softmax, train_step


def offered(net: nn.Module, batches: Any) -> Loop:
    """A loop whose second batches are the next of `batches`."""
    return Loop(second_batch=lambda: next(batches), outputs=net)


def by_hand() -> list[float]:
    """The gradient left on w = 4 after each step: own gradient 1, lr 1, c = 0.25, input 2.

    Outputs are 2 w; between two steps w moves by the last gradient, d, so that the squares are
    (2 d)² and their derivative by w is 2 · 2 d · 2 = -8 · 0.25 d.
    """
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 4.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.125)
    loop = offered(net, iter([torch.full((3, 1), 2.0)] * 9))
    ChurnReduction(strength=0.25).attach(net, optimizer, loop=loop)
    gradients = []
    for _ in range(3):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        gradients.append(net.weight.grad.item())
    return gradients


def test_the_rule_by_hand() -> None:
    """d = -0.125 g: the term is 0.25 · 8 d = -0.25 g of the last step; none in the first."""
    assert by_hand() == [1.0, 0.75, 0.8125]


def test_a_reference_that_follows_at_once_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier weights in the storage of the present ones make every term zero."""

    def shared(slow: SlowCopy, decay: float) -> None:
        for value, parameter in zip(slow.values, slow.module.parameters(), strict=True):
            value.data = parameter.data

    monkeypatch.setattr(SlowCopy, "update", shared)
    assert by_hand() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("distance", ["squares", "divergence"])
def test_it_is_a_numpy_loop(distance: Any) -> None:
    ours = TwoLayers()
    net, second = ours.twin(), [TwoLayers.batch(100 + step)[0] for step in range(20)]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    loop = offered(net, iter([torch.tensor(inputs) for inputs in second]))
    ChurnReduction(strength=2.0, distance=distance).attach(net, optimizer, loop=loop)
    earlier: dict[str, Array] | None = None
    terms = 0.0
    for step in range(15):
        inputs, labels = ours.batch(step)
        gradients = ours.gradients(inputs, labels)
        if earlier is not None:
            other = second[step - 1]
            now, then = ours.logits(other), ours.logits(other, earlier)
            by_logits = (
                2 * (now - then) / now.size
                if distance == "squares"
                else (softmax(now) - softmax(then)) / len(now)
            )
            added = _backward(ours, other, by_logits)
            terms += float(sum(np.abs(term).sum() for term in added.values()))
            gradients = {name: g + 2.0 * added[name] for name, g in gradients.items()}
        earlier = dict(ours.weights)
        ours.step(gradients, 0.3)
        descend(net, optimizer, inputs, labels)
        ours.assert_equals(net)
    assert terms > 0.01


def _backward(ours: TwoLayers, inputs: Array, by_logits: Array) -> dict[str, Array]:
    """The gradients of a loss on `inputs` whose derivative by the logits is given."""
    with_it = ours.gradients(inputs, np.zeros(len(inputs), dtype=np.int64), by_logits)
    without = ours.gradients(inputs, np.zeros(len(inputs), dtype=np.int64))
    return {name: with_it[name] - without[name] for name in with_it}


def test_statistics_modes_and_generators_are_left_alone() -> None:
    """Outputs are taken in evaluation mode: BatchNorm learns nothing, dropout draws nothing."""
    ends = []
    for strength in (0.0, 1e-12):
        torch.manual_seed(4)
        net = Net()
        net[4].eval()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        inputs = torch.full((5, 6), 9.0)
        method = ChurnReduction(strength=strength)
        method.attach(net, optimizer, loop=offered(net, iter([inputs] * 9)))
        for step in range(3):
            train_step(net, optimizer, step)
        modes = [child.training for child in net.modules()]
        ends.append((copied(net), torch.get_rng_state(), modes))
    assert torch.equal(ends[0][1], ends[1][1]) and ends[0][2] == ends[1][2]
    for name, tensor in ends[0][0].items():
        torch.testing.assert_close(tensor, ends[1][0][name], msg=name)


def test_a_parameter_without_gradient_is_left_alone() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    frozen = net[0].weight.requires_grad_(False)
    before = frozen.clone()
    optimizer = torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=0.1)
    loop = offered(net, iter([torch.ones(2, 6)] * 9))
    ChurnReduction(strength=1.0).attach(net, optimizer, loop=loop)
    for step in range(3):
        train_step(net, optimizer, step)
    assert torch.equal(frozen, before) and frozen.grad is None


def test_it_keeps_what_it_says_near_in_the_packages_loop() -> None:
    """Outputs on held data move less from step to step, the more the stronger it is."""
    moved = []
    for strength in (0.0, 1.0, 10.0):
        run = make_run(ChurnReduction(strength), {"name": "mlp", "hidden": [16]}, trained=False)
        outputs: list[Tensor] = []

        def watch(*_: Any, run: Any = run, outputs: Any = outputs) -> None:
            inputs, _labels = next(run.method.loop.batches())
            with torch.no_grad(), run.method.evaluating() as module:
                outputs.append(module(inputs))

        run.optimizer.register_step_post_hook(watch)
        run.train()
        moved.append(torch.stack(outputs[:12]).diff(dim=0).square().mean().item())
    assert moved == sorted(moved, reverse=True), moved


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"strength": -1.0}, "strength = -1.0: a penalty is zero or more"),
        ({"distance": "cosine"}, "distance = 'cosine'"),
    ],
)
def test_values_it_cannot_take_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ChurnReduction(**values)
