"""Faults of public implementations: the shipped code is free of them, a planted one is caught.

Each check takes what builds a method and fails by AssertionError. It must pass on the shipped
implementation and fail on one with the fault planted. `test_measuring_faults.py` has the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.methods.base import Method
from ht_bench.methods.ema import ExponentialMovingAverage
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.penalties import L2Init
from ht_bench.methods.resets import FullReset, HeadReset, ShrinkPerturb
from ht_bench.methods.self_distillation import SelfDistillation
from ht_bench.networks.stacking import squared_norms

from .conftest import INPUTS, LABELS, Net, copied, descend, make_run


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    descend(net, optimizer, INPUTS, LABELS)


def attached(method: Method) -> tuple[Net, torch.optim.Optimizer]:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    method.attach(net, optimizer, generator=torch.Generator().manual_seed(0))
    return net, optimizer


def trained_then_reset(method: Method) -> tuple[Net, dict[str, Tensor]]:
    """Two steps, then a reset: H&T's second step makes it, the others' next phase does.

    Returns the network and a copy of its weights from before the phase.
    """
    net, optimizer = attached(method)
    for _ in range(2):
        step(net, optimizer)
    before = copied(net)
    method.enter_phase(1, 10, 5, 2)
    return net, before


# ---- 1: hare and tortoise share storage after a reset ----


def check_storage(make: Callable[[], ExponentialMovingAverage]) -> None:
    """Also after a reset what happens to the hare leaves the tortoise alone."""
    method = make()
    net, _ = trained_then_reset(method)
    slow = copied(method.tortoise.named())
    theirs = {t.untyped_storage().data_ptr() for t in method.tortoise.named().values()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    for name, tensor in method.tortoise.named().items():
        assert torch.equal(tensor, slow[name]), name
    assert all(t.untyped_storage().data_ptr() not in theirs for t in net.state_dict().values())


class SharesStorage(HareTortoise):
    def act(self) -> None:
        super().act()
        slow = self.tortoise.tensors()
        for name, parameter in self.module.named_parameters():
            parameter.data = slow[name].data


# ---- 2: penalties, distillation, buffers ----


def check_derivative(cls: type[L2Init]) -> None:
    """λ (θ − θ0) is added to the gradient of every tensor."""
    method = cls(strength=0.5)
    net, optimizer = attached(method)
    initial = copied(net)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.25).add_(0.5)
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        expected = 1 + 0.5 * (parameter.detach() - initial[name])
        assert torch.allclose(parameter.grad, expected, atol=1e-6), name


class LastTensorOnly(L2Init):
    def before_step(self) -> None:
        name, parameter = list(self.module.named_parameters())[-1]
        assert parameter.grad is not None
        parameter.grad.add_(parameter - self._initial.named()[name], alpha=self.strength)


class Unsquared(L2Init):
    def before_step(self) -> None:
        for name, parameter in self.module.named_parameters():
            assert parameter.grad is not None
            away = parameter - self._initial.named()[name]
            parameter.grad.add_(away / away.norm(), alpha=self.strength)


def check_divergence(cls: type[SelfDistillation]) -> None:
    """A mean over samples, times the square of the temperature."""
    method = cls(decay=0.9, strength=0.5, temperature=3.0)
    net, optimizer = attached(method)
    step(net, optimizer)
    outputs = net(INPUTS)
    teacher = Net()
    teacher.load_state_dict(method.tortoise.tensors())
    p = (teacher.eval()(INPUTS) / 3).softmax(-1)
    q = (outputs / 3).softmax(-1)
    by_hand = 0.5 * 9 * sum((p[i] * (p[i] / q[i]).log()).sum() for i in range(8)) / 8
    loss = method.auxiliary_loss(INPUTS, outputs)
    torch.testing.assert_close(loss, by_hand, rtol=1e-4, atol=1e-8)


def divided(by: float) -> type[SelfDistillation]:
    """Plant: the loss is too small by a factor."""

    class Planted(SelfDistillation):
        def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
            loss = super().auxiliary_loss(inputs, outputs)
            return None if loss is None else loss / by

    return Planted


LOSSES = [
    divided(3),  # a mean over classes
    divided(3.0**2),  # without the square of the temperature
    divided(3 * 3.0**2),  # both: `KLDivLoss()` as it comes
]


def check_buffers_follow(make: Callable[[], Method]) -> None:
    """After a full reset, a head reset of all but the first layer, and a shrink to θ0 alike."""
    net, before = trained_then_reset(make())
    fresh = Net().state_dict()
    for name in ("5.running_mean", "5.running_var"):
        assert not torch.equal(before[name], fresh[name])
        assert torch.equal(net.state_dict()[name], fresh[name]), name


def parameters_only(cls: type[Method], **values: Any) -> Callable[[], Method]:
    """Plant: the method acts on parameters, and buffers stay as they were."""

    class Planted(cls):  # type: ignore[valid-type, misc]
        def tensors(self) -> dict[str, Tensor]:
            named = self.module.named_parameters()
            return {name: parameter.detach() for name, parameter in named}

    return partial(Planted, **values)


@pytest.mark.parametrize("planted", [False, True])
def test_gradients_start_at_zero(planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that hardly move and one full batch: every step's gradient is the first one."""
    run = make_run(
        Method(),
        {"name": "mlp", "hidden": [8]},
        trained=False,
        optimizer={"lr": 1e-12},
        training={"batch": 64, "points": 1},
        phases=[{"new": 1.0, "updates": 4}],
    )
    norms: list[Tensor] = []

    def record(*_: object) -> None:
        gradients = [p.grad for p in run.module.parameters() if p.grad is not None]
        norms.append(squared_norms(gradients, stacked=True).sqrt())

    run.optimizer.register_step_pre_hook(record)
    if planted:
        monkeypatch.setattr(run.optimizer, "zero_grad", lambda: None)
    run.train()
    assert len(norms) == 4
    assert all(torch.allclose(norm, norms[0], rtol=1e-3) for norm in norms) is not planted


# ---- 4: parameters rebuilt without telling the optimizer ----


def check_parameters(make: Callable[[], Method]) -> None:
    """Every one is still the network's first and the optimizer's, and moves."""
    method = make()
    net, _ = trained_then_reset(method)
    groups = method.optimizer.param_groups
    owned = [id(p) for group in groups for p in group["params"]]
    assert [id(p) for p in net.parameters()] == owned == net.first_parameters
    before = copied(net)
    for _ in range(2):  # a bias at zero is first moved by its second gradient
        step(net, method.optimizer)
    for name, parameter in net.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def rebuilding(cls: type[Method]) -> type[Method]:
    """Plant: the last layer is a new module after a reset, as one port makes it."""

    class Planted(cls):  # type: ignore[valid-type, misc]
        def enter_phase(self, *budget: int) -> int:
            allowed: int = super().enter_phase(*budget)
            self.module[-1] = nn.Linear(5, 3)
            return allowed

    return Planted


# ---- 5: the last hidden layer ----


def check_last_hidden_layer(make: Callable[[], Method]) -> None:
    """It is redrawn too."""
    net, before = trained_then_reset(make())
    for name in ("4.weight", "4.bias", "7.weight", "7.bias"):
        assert not torch.equal(net.state_dict()[name], before[name]), name


class SkipsLastHidden(HeadReset):
    def setup(self) -> None:
        super().setup()
        self._prefixes = tuple(p for p in self._prefixes if p != "4.")


# ---- 6: θ0 taken after the first step ----


def check_theta0(make: Callable[[], Method]) -> None:
    """It is what the weights were at attach."""
    method = make()
    net, optimizer = attached(method)
    initial = copied(net)
    for _ in range(2):
        step(net, optimizer)
    theta0: Mapping[str, Tensor] = method.state_dict()["initial"]
    for name, _ in net.named_parameters():
        assert torch.equal(theta0[name], initial[name]), name


def late(cls: type[Method]) -> type[Method]:
    """Plant: what `setup` does is done after the first step."""

    class Planted(cls):  # type: ignore[valid-type, misc]
        taken = False

        def after_step(self) -> None:
            if not self.taken:
                self.taken = True
                super().setup()

    return Planted


# ---- the shipped passes, the planted is caught ----


TWO_LAYERS = partial(HeadReset, layers=2)
TO_START = partial(ShrinkPerturb, amount=1.0)
FRESH = {"amount": 0.5, "toward": "fresh"}
RESETTING = {"decay": 0.5, "reset_every": 2}
CASES: list[tuple[Callable[[Any], None], Any, list[Any]]] = [
    (check_storage, partial(HareTortoise, **RESETTING), [partial(SharesStorage, **RESETTING)]),
    (check_storage, partial(ExponentialMovingAverage, decay=0.5), []),
    (check_derivative, L2Init, [LastTensorOnly, Unsquared]),
    (check_divergence, SelfDistillation, LOSSES),
    (check_buffers_follow, FullReset, [parameters_only(FullReset)]),
    (check_buffers_follow, TWO_LAYERS, [parameters_only(HeadReset, layers=2)]),
    (check_buffers_follow, TO_START, [parameters_only(ShrinkPerturb, amount=1.0)]),
    (check_parameters, FullReset, [rebuilding(FullReset)]),
    (check_parameters, HeadReset, [rebuilding(HeadReset)]),
    (check_parameters, TWO_LAYERS, []),
    (check_parameters, partial(ShrinkPerturb, amount=0.5), [rebuilding(ShrinkPerturb)]),
    (check_parameters, partial(ShrinkPerturb, **FRESH), []),
    (check_parameters, partial(HareTortoise, **RESETTING), [rebuilding(HareTortoise)]),
    (check_last_hidden_layer, TWO_LAYERS, [partial(SkipsLastHidden, layers=2), HeadReset]),
    (check_last_hidden_layer, FullReset, [partial(ShrinkPerturb, amount=0.0)]),
    (check_theta0, L2Init, [late(L2Init)]),
    (check_theta0, ShrinkPerturb, [late(ShrinkPerturb)]),
]


@pytest.mark.parametrize(("check", "shipped", "planted"), CASES)
def test_the_shipped_code_is_free_of_it_and_a_planted_fault_is_caught(
    check: Callable[[Any], None], shipped: Any, planted: list[Any]
) -> None:
    check(shipped)
    for fault in planted:
        with pytest.raises(AssertionError):
            check(fault)
