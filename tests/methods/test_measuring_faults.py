"""Faults of public implementations in what they measure, and in what measuring leaves behind.

Each check passes on the shipped code and fails with the fault planted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.methods.base import Method, evaluation_mode
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.networks import diagnostics
from ht_bench.training import diagnosing
from ht_bench.training.batches import Examples

from .conftest import INPUTS, LABELS, Net, copied, descend, leaves_no_trace, make_run

# ---- dormancy: on training inputs, after the non-linearity ----


@pytest.mark.parametrize("planted", [False, True])
def test_dormancy_is_measured_on_training_inputs(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plant: on test images."""
    run = make_run(Method(), trained=False)
    measured: list[Tensor] = []
    original = diagnosing.diagnose

    def watched(module: nn.Module, inputs: Tensor, *rest: Any) -> dict[str, Tensor]:
        measured.append(inputs)
        return original(module, inputs, *rest)

    training = Examples.slice

    def tests_first(self: Examples, start: int, stop: int) -> tuple[Tensor, Tensor]:
        examples = getattr(run, "tests", self)  # before them training's are prepared
        return training(examples, start, min(stop, self.examples))

    monkeypatch.setattr(diagnosing, "diagnose", watched)
    if planted:
        monkeypatch.setattr(Examples, "slice", tests_first)
    run.train()
    assert len(measured) == 2
    for phase, inputs in enumerate(measured):
        for slot, stream in enumerate(run.streams):
            trained = run.data.train_images[stream.phase(phase).indices]
            pixels = run.images.normalise(torch.from_numpy(np.array(trained)))
            assert torch.equal(inputs[slot], pixels) is not planted


class OneHidden(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1))
        with torch.no_grad():
            self[0].weight.copy_(torch.tensor([[3.0], [-3.0], [5.0], [-5.0]]))
            self[0].bias.zero_()

    def layers(self) -> list[str]:
        return ["0", "2"]


@pytest.mark.parametrize("planted", [False, True])
def test_dormancy_is_measured_after_the_non_linearity(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four units two are never positive; all four have large pre-activations."""
    if planted:
        monkeypatch.setattr(diagnostics, "nonlinearities", lambda module: {"0": module[0]})
    net, inputs = OneHidden(), torch.tensor([[1.0], [2.0]])
    measured = diagnostics.diagnose(net, inputs, lambda z: z.sum(), dict(net.named_parameters()))
    assert (measured["plasticity/dormant_fraction"].tolist() == [0.5]) is not planted


# ---- measuring leaves no trace ----


def loss_of(outputs: Tensor) -> Tensor:
    return cross_entropy(outputs, LABELS)


def diagnoses(method: HareTortoise, net: Net) -> object:
    return diagnostics.diagnose(net, INPUTS, loss_of, copied(dict(net.named_parameters())))


def evaluates(method: HareTortoise, net: Net) -> object:
    with torch.no_grad(), method.evaluating() as evaluated:
        return evaluated(INPUTS)


def in_training_mode(method: HareTortoise, net: Net) -> object:
    """Plant: buffers move and dropout draws."""
    with torch.no_grad():
        return net(INPUTS)


def leaves_a_gradient(method: HareTortoise, net: Net) -> object:
    with evaluation_mode(net):
        return loss_of(net(INPUTS)).backward()


@pytest.mark.parametrize(
    ("look", "planted"),
    [
        (diagnoses, False),
        (evaluates, False),
        (in_training_mode, True),
        (leaves_a_gradient, True),
        (lambda method, net: net[2].register_forward_hook(print), True),
        (lambda method, net: net.eval(), True),
        (lambda method, net: net.eval().train(), True),  # the commonest, whatever the modes were
        (lambda method, net: method.tortoise.load_into_fast(), True),
    ],
)
def test_measuring_leaves_no_trace(
    look: Callable[[HareTortoise, Net], object], planted: bool
) -> None:
    """Weights, buffers, gradients, moments, hooks, modes and generators are bit-identical."""
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    method = HareTortoise(decay=0.5, reset_every=100).attach(net, optimizer)
    for _ in range(6):
        descend(net, optimizer, INPUTS, LABELS)
    net[1].eval()
    with pytest.raises(AssertionError) if planted else nullcontext(), leaves_no_trace(method):
        look(method, net)
