"""Self-distillation from the tortoise: in NumPy, of a stack, its teacher, in the loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ht_bench import networks
from ht_bench.methods.base import Method
from ht_bench.methods.self_distillation import SelfDistillation

from .conftest import Make, TwoLayers, assert_equal, copied, descend, make_run, train_step


@pytest.mark.parametrize(("strength", "temperature"), [(1.0, 1.0), (0.5, 3.0)])
def test_it_is_a_numpy_loop(strength: float, temperature: float) -> None:
    """d/dz λ T² KL(p_s ‖ softmax(z/T)) = λ T (softmax(z/T) − p_s), here divided by the batch."""
    ours = TwoLayers()
    net, slow = ours.twin(), dict(ours.weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method = SelfDistillation(0.8, strength=strength, temperature=temperature)
    method.attach(net, optimizer)

    def softened(logits: Any) -> Any:
        powers = np.exp(logits / temperature)
        return powers / powers.sum(1, keepdims=True)

    for step in range(30):
        inputs, labels = ours.batch(step)
        apart = softened(ours.logits(inputs)) - softened(ours.logits(inputs, slow))
        extra = strength * temperature * apart / len(labels)
        ours.step(ours.gradients(inputs, labels, extra), 0.3)
        slow = {name: 0.8 * slow[name] + 0.2 * value for name, value in ours.weights.items()}
        descend(net, optimizer, inputs, labels, method)
    ours.assert_equals(net)
    for name, tensor in method.tortoise.tensors().items():
        np.testing.assert_allclose(tensor, slow[name], rtol=1e-10)


def test_a_stack_gives_the_sum_of_its_seeds_means() -> None:
    table = {"name": "mlp", "hidden": [7]}
    stack = networks.build(table, (1, 2, 3), 4, stack=3)
    method = SelfDistillation(temperature=2.0)
    method.attach(stack, torch.optim.SGD(stack.parameters(), lr=1.0))
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(torch.randn_like(parameter))
    inputs = torch.randn(3, 5, 1, 2, 3)
    outputs = stack(inputs)
    with torch.no_grad():
        teacher = torch.func.functional_call(stack, method.tortoise.tensors(), (inputs,))
    p, q = (teacher / 2).softmax(-1), (outputs / 2).softmax(-1)
    by_hand = 4 * (p * (p / q).log()).sum(-1).mean(1).sum()
    loss = method.auxiliary_loss(inputs, outputs)
    assert loss is not None
    torch.testing.assert_close(loss, by_hand)


def test_the_teacher_is_the_tortoise_in_evaluation_mode(make_net: Make) -> None:
    """It answers by its own statistics, and neither net notices: modes, buffers, gradients."""
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    method = SelfDistillation(decay=0.5).attach(net, optimizer)
    for step in range(3):
        train_step(net, optimizer, step)
    tortoise = make_net()
    tortoise.load_state_dict(method.tortoise.tensors())
    inputs = torch.randn(9, 6)
    outputs = net(inputs)
    before, slow = copied(net), copied(method.tortoise.tensors())
    net[1].eval()
    loss = method.auxiliary_loss(inputs, outputs)
    assert loss is not None
    with torch.no_grad():
        p, q = tortoise.eval()(inputs).softmax(-1), outputs.softmax(-1)
    torch.testing.assert_close(loss.detach(), (p * (p / q).log()).sum(-1).mean().detach())
    assert net.training and not net[1].training and net[2].training
    assert_equal(net.state_dict(), before)
    optimizer.zero_grad()
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    assert_equal(method.tortoise.tensors(), slow)
    assert not any(tensor.requires_grad for tensor in method.tortoise.tensors().values())


def test_the_trained_network_is_evaluated(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    method = SelfDistillation().attach(net, optimizer)
    train_step(net, optimizer, 0)
    trained = copied(net)
    with method.evaluating() as evaluated:
        assert evaluated is net and not net.training
        assert_equal(net.state_dict(), trained)
    assert net.training
    assert not method.has_tortoise


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_the_packages_loop_adds_the_loss(net: str) -> None:
    losses: list[Tensor | None] = []

    class Watched(SelfDistillation):
        def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
            losses.append(super().auxiliary_loss(inputs, outputs))
            return losses[-1]

    table: dict[str, Any] = {"name": net, "hidden": [8]}
    plain, run = make_run(Method(), table), make_run(Watched(decay=0.5), table)
    assert len(losses) == run.steps_taken == 24
    assert all(loss is not None and loss.shape == () for loss in losses)
    output = run.module.state_dict()["output.weight"]
    assert not torch.equal(output, plain.module.state_dict()["output.weight"])
    assert "tortoise/accuracy" not in run.history.points[-1]
