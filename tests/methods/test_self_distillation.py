"""Self-distillation from the tortoise: its loss by hand and in NumPy, its teacher, its contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.self_distillation import SelfDistillation
from ht_bench.training.supervised import SupervisedRun

Make = Callable[[], nn.Sequential]
Step = Callable[[nn.Module, torch.optim.Optimizer, int], None]


def test_the_divergence_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2), T = 2: λ T² (¾ ln 3/2 + ¼ ln 1/2), a mean of two."""
    net = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2 * math.log(3)], [0.0]]))
    method = SelfDistillation(strength=3.0, temperature=2.0)
    method.attach(net, torch.optim.SGD(net.parameters(), lr=1.0))
    with torch.no_grad():
        net.weight.zero_()
    inputs = torch.ones(2, 1)
    inputs[1] = 0.0  # there teacher and student agree
    loss = method.auxiliary_loss(inputs, net(inputs))
    expected = 3 * 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert loss is not None and loss.shape == ()
    assert math.isclose(loss.item(), expected, rel_tol=1e-6)


@pytest.mark.parametrize(("strength", "temperature"), [(1.0, 1.0), (0.5, 3.0)])
def test_it_is_a_numpy_loop(
    two_layers: Callable[..., Any], strength: float, temperature: float
) -> None:
    """d/dz λ T² KL(p_s ‖ softmax(z/T)) = λ T (softmax(z/T) − p_s), here divided by the batch."""
    ours = two_layers()
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
        optimizer.zero_grad()
        images = torch.from_numpy(inputs)
        logits = net(images)
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        auxiliary = method.auxiliary_loss(images, logits)
        assert auxiliary is not None
        (loss + auxiliary).backward()
        optimizer.step()
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


def test_the_teacher_is_the_tortoise_in_evaluation_mode(make_net: Make, train_step: Step) -> None:
    """It is judged by its own statistics, and neither net notices: modes, buffers, gradients."""
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    method = SelfDistillation(decay=0.5).attach(net, optimizer)
    for step in range(3):
        train_step(net, optimizer, step)
    tortoise = make_net()
    tortoise.load_state_dict(method.tortoise.tensors())
    inputs = torch.randn(9, 6)
    outputs = net(inputs)
    kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    slow = {name: tensor.clone() for name, tensor in method.tortoise.tensors().items()}
    net[1].eval()
    loss = method.auxiliary_loss(inputs, outputs)
    assert loss is not None
    with torch.no_grad():
        p, q = tortoise.eval()(inputs).softmax(-1), outputs.softmax(-1)
    torch.testing.assert_close(loss.detach(), (p * (p / q).log()).sum(-1).mean().detach())
    assert net.training and not net[1].training and net[2].training
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())
    optimizer.zero_grad()
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    now = method.tortoise.tensors()
    assert all(torch.equal(now[name], slow[name]) and not now[name].requires_grad for name in now)


def test_before_the_first_step_teacher_and_student_agree() -> None:
    """Without BatchNorm they are then one function: nothing to learn, no gradient."""
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    method = SelfDistillation().attach(net, torch.optim.SGD(net.parameters(), lr=1.0))
    inputs = torch.randn(9, 6)
    loss = method.auxiliary_loss(inputs, net(inputs))
    assert loss is not None and abs(loss.item()) < 1e-7
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() < 1e-7 for p in net.parameters())


def test_the_trained_network_is_judged(make_net: Make, train_step: Step) -> None:
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    method = SelfDistillation().attach(net, optimizer)
    train_step(net, optimizer, 0)
    kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with method.evaluating() as judged:
        assert judged is net and not net.training
        assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())
    assert net.training
    assert not method.has_tortoise


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_the_packages_loop_adds_the_loss(make_run: Callable[..., SupervisedRun], net: str) -> None:
    seen: list[Tensor | None] = []

    class Watched(SelfDistillation):
        def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
            seen.append(super().auxiliary_loss(inputs, outputs))
            return seen[-1]

    table = {"name": net, "hidden": [8]}
    plain, run = make_run(Method(), table), make_run(Watched(decay=0.5), table)
    plain.train()
    run.train()
    assert len(seen) == run.steps_taken == 24
    assert all(loss is not None and loss.shape == () for loss in seen)
    output = run.module.state_dict()["output.weight"]
    assert not torch.equal(output, plain.module.state_dict()["output.weight"])
    assert "tortoise/accuracy" not in run.history.points[-1]


def test_with_strength_nothing_it_trains_as_none(
    assert_trains_as_none: Callable[..., None],
) -> None:
    assert_trains_as_none(lambda: SelfDistillation(strength=0.0))


def test_a_stopped_run_resumes_to_the_same_bits(assert_resumes: Callable[..., None]) -> None:
    assert_resumes(lambda: SelfDistillation(decay=0.9, temperature=2.0))


@pytest.mark.parametrize(
    ("hyperparameters", "sentence"),
    [
        ({"strength": -1.0}, "strength = -1.0"),
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"decay": 2.0}, "decay = 2.0"),
    ],
)
def test_values_it_cannot_take_are_refused(hyperparameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        SelfDistillation(**hyperparameters)
