"""Faults of public implementations: the shipped code is free of them, a planted one is caught.

Each check takes a method's class (or what else it examines) and fails by AssertionError. It must
pass on the shipped implementation and fail on one with the fault planted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from ht_bench.methods.base import Method, evaluation_mode
from ht_bench.methods.ema import ExponentialMovingAverage
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.penalties import L2Init
from ht_bench.methods.resets import FullReset, HeadReset, ShrinkPerturb
from ht_bench.methods.self_distillation import SelfDistillation
from ht_bench.networks import diagnostics
from ht_bench.networks.stacking import squared_norms
from ht_bench.training import recording
from ht_bench.training.batches import PhaseBatches
from ht_bench.training.supervised import SupervisedRun

MakeRun = Callable[..., SupervisedRun]
INPUTS = torch.linspace(-2, 2, 8 * 6).view(8, 6)
LABELS = torch.arange(8) % 3


class Net(nn.Sequential):
    """Two hidden layers of decreasing width with BatchNorm and dropout, then the output."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            hidden = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2)]
            hidden += [nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ReLU()]
            super().__init__(*hidden, nn.Linear(5, 3))

    def layers(self) -> list[str]:
        return ["0", "4", "7"]


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    cross_entropy(net(INPUTS), LABELS).backward()
    optimizer.step()


def attached(method: Method) -> tuple[Net, torch.optim.Optimizer]:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    method.attach(net, optimizer, generator=torch.Generator().manual_seed(0))
    return net, optimizer


def copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


Reset = Callable[[Net, torch.optim.Optimizer], None]


def trained_then_reset(method: Method) -> tuple[Net, torch.optim.Optimizer, dict[str, Tensor]]:
    """Two steps, then a reset: H&T's second step makes it, the others' next phase does."""
    net, optimizer = attached(method)
    for _ in range(2):
        step(net, optimizer)
    before = copied(net)
    method.enter_phase(1, 10, 5, 2)
    return net, optimizer, before


# ---- 1: hare and tortoise share storage after a reset ----


def check_a_reset_shares_no_storage(cls: type[HareTortoise]) -> None:
    method = cls(decay=0.5, reset_every=2)
    net, _, _ = trained_then_reset(method)
    slow = {name: tensor.clone() for name, tensor in method.tortoise.tensors().items()}
    assert all(torch.equal(tensor, slow[name]) for name, tensor in net.state_dict().items())
    theirs = {t.untyped_storage().data_ptr() for t in method.tortoise.tensors().values()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    for name, tensor in method.tortoise.tensors().items():
        assert torch.equal(tensor, slow[name]), name
    assert all(t.untyped_storage().data_ptr() not in theirs for t in net.state_dict().values())


class SharesStorage(HareTortoise):
    def _reset(self) -> None:
        super()._reset()
        slow = self.tortoise.tensors()
        for name, parameter in self.module.named_parameters():
            parameter.data = slow[name].data


# ---- 2: penalties, distillation, buffers ----


def check_l2_init_adds_its_derivative_to_every_tensor(cls: type[L2Init]) -> None:
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
        parameter.grad.add_(parameter - self._initial[name], alpha=self.strength)


class Unsquared(L2Init):
    def before_step(self) -> None:
        for name, parameter in self.module.named_parameters():
            assert parameter.grad is not None
            away = parameter - self._initial[name]
            parameter.grad.add_(away / away.norm(), alpha=self.strength)


def check_the_divergence_is_a_mean_over_samples_times_the_square_of_t(
    cls: type[SelfDistillation],
) -> None:
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
    assert loss is not None
    assert torch.allclose(loss, torch.as_tensor(by_hand), rtol=1e-4)


class MeanOverClasses(SelfDistillation):
    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        loss = super().auxiliary_loss(inputs, outputs)
        return None if loss is None else loss / outputs.shape[-1]


class WithoutSquare(SelfDistillation):
    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        loss = super().auxiliary_loss(inputs, outputs)
        return None if loss is None else loss / self.temperature**2


class TorchsDefaultReduction(SelfDistillation):
    """`KLDivLoss()` as it comes: a mean over samples and classes."""

    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        with torch.no_grad(), evaluation_mode(self.module):
            taught = torch.func.functional_call(self.module, self.tortoise.tensors(), (inputs,))
        student = log_softmax(outputs / self.temperature, dim=-1)
        soft = (taught / self.temperature).softmax(-1)
        return self.strength * kl_div(student, soft, reduction="none").mean()


def check_the_buffers_of_batch_norm_follow(make: Callable[[], Method]) -> None:
    """After a full reset, a head reset of all but the first layer, and a shrink to θ0 alike."""
    net, _, before = trained_then_reset(make())
    fresh = Net().state_dict()
    for name in ("5.running_mean", "5.running_var"):
        assert not torch.equal(before[name], fresh[name])
        assert torch.equal(net.state_dict()[name], fresh[name]), name


def parameters_only(cls: type[Method]) -> type[Method]:
    """Plant: the method acts on parameters, and buffers stay as they were."""

    class Planted(cls):  # type: ignore[valid-type, misc]
        def tensors(self) -> dict[str, Tensor]:
            named = self.module.named_parameters()
            return {name: parameter.detach() for name, parameter in named}

    return Planted


def check_gradients_start_at_zero(run: SupervisedRun) -> None:
    """Weights that hardly move and one full batch: every step's gradient is the first one."""
    norms: list[Tensor] = []

    def record(*_: object) -> None:
        gradients = [p.grad for p in run.module.parameters() if p.grad is not None]
        norms.append(squared_norms(gradients, stacked=True).sqrt())

    run.optimizer.register_step_pre_hook(record)
    run.train()
    assert len(norms) == 4
    assert all(torch.allclose(norm, norms[0], rtol=1e-3) for norm in norms)


@pytest.fixture
def still_run(make_run: MakeRun) -> SupervisedRun:
    """Four steps on one full batch at a learning rate of next to nothing."""
    return make_run(
        Method(),
        {"name": "mlp", "hidden": [8]},
        optimizer={"lr": 1e-12},
        training={"batch": 64, "points": 1},
        phases=[{"new": 1.0, "updates": 4}],
    )


# ---- 4: parameters rebuilt without telling the optimizer ----


def check_every_parameter_is_the_optimizers_and_moves(make: Callable[[], Method]) -> None:
    net, optimizer, _ = trained_then_reset(make())
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    assert [id(p) for p in net.parameters()] == [id(p) for p in owned]
    kept = copied(net)
    step(net, optimizer)
    step(net, optimizer)
    for name, parameter in net.named_parameters():
        assert not torch.equal(parameter, kept[name]), name


def rebuilding(cls: type[Method]) -> type[Method]:
    """Plant: the last layer is a new module after a reset, as one port makes it."""

    class Planted(cls):  # type: ignore[valid-type, misc]
        def enter_phase(self, *budget: int) -> int:
            allowed: int = super().enter_phase(*budget)
            self.module[-1] = nn.Linear(5, 3)
            return allowed

    return Planted


# ---- 5: the last hidden layer; dormancy; evaluation leaves a trace ----


def check_the_last_hidden_layer_is_redrawn(make: Callable[[], Method]) -> None:
    net, _, before = trained_then_reset(make())
    for name in ("4.weight", "4.bias", "7.weight", "7.bias"):
        assert not torch.equal(net.state_dict()[name], before[name]), name


class SkipsLastHidden(HeadReset):
    def setup(self) -> None:
        super().setup()
        self._prefixes = tuple(p for p in self._prefixes if p != "4.")


def check_dormancy_is_measured_on_training_inputs(
    run: SupervisedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    original = recording.diagnose

    def watched(module: nn.Module, inputs: Tensor, *rest: Any) -> dict[str, Tensor]:
        seen.append(inputs)
        return original(module, inputs, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "diagnose", watched)
        run.train()
    assert len(seen) == 2
    for phase, inputs in enumerate(seen):
        for slot, stream in enumerate(run.streams):
            trained = run.data.train_images[stream.phase(phase).indices]
            pixels = run.images.normalise(torch.from_numpy(np.array(trained)))
            assert inputs[slot].shape == pixels.shape
            assert torch.equal(inputs[slot], pixels)


def check_dormancy_is_measured_after_the_non_linearity() -> None:
    """Of four units two are never positive; all four have large pre-activations."""
    net = OneHidden()
    found = diagnostics.diagnose(
        net, torch.tensor([[1.0], [2.0]]), lambda z: z.sum(), dict(net.named_parameters())
    )
    assert found["plasticity/dormant_fraction"].tolist() == [0.5]


class OneHidden(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1))
        with torch.no_grad():
            self[0].weight.copy_(torch.tensor([[3.0], [-3.0], [5.0], [-5.0]]))
            self[0].bias.zero_()

    def layers(self) -> list[str]:
        return ["0", "2"]


Look = Callable[[Method, Net], object]


def check_it_leaves_no_trace(look: Look) -> None:
    """Weights, buffers, gradients, moments, hooks, modes and generators are bit-identical."""
    method = HareTortoise(decay=0.5, reset_every=100)
    net, optimizer = attached(method)
    for _ in range(3):
        step(net, optimizer)
    net[1].eval()
    before, facts = state_of(net, optimizer)
    numpy_state = np.random.get_state()[1].copy()
    look(method, net)
    after, facts_after = state_of(net, optimizer)
    assert facts == facts_after
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def state_of(net: Net, optimizer: torch.optim.Optimizer) -> tuple[list[Tensor], list[Any]]:
    tensors = [*net.state_dict().values(), *(p.grad for p in net.parameters())]
    tensors += [t for entry in optimizer.state.values() for t in entry.values()]
    facts: list[Any] = [child.training for child in net.modules()]
    for child in net.modules():
        facts += [len(child._forward_hooks), len(child._forward_pre_hooks)]
        facts.append(len(child._backward_hooks))
    facts += [p.requires_grad for p in net.parameters()]
    return [t.clone() for t in [*tensors, torch.get_rng_state()]], facts


def loss_of(outputs: Tensor) -> Tensor:
    return cross_entropy(outputs, LABELS)


def diagnoses(method: Method, net: Net) -> object:
    initial = {name: p.detach().clone() for name, p in net.named_parameters()}
    return diagnostics.diagnose(net, INPUTS, loss_of, initial)


def evaluates(method: Method, net: Net) -> object:
    with torch.no_grad(), method.evaluating() as judged:
        return judged(INPUTS)


def in_training_mode(method: Method, net: Net) -> object:
    """Plant: buffers move and dropout draws."""
    with torch.no_grad():
        return net(INPUTS)


def leaves_a_gradient(method: Method, net: Net) -> object:
    with evaluation_mode(net):
        return loss_of(net(INPUTS)).backward()


def leaves_a_hook(method: Method, net: Net) -> object:
    return net[2].register_forward_hook(lambda *_: None)


def leaves_evaluation_mode(method: Method, net: Net) -> object:
    return net.eval()


def leaves_all_in_training_mode(method: Method, net: Net) -> object:
    """The commonest: `eval()` before, `train()` after, whatever the modes were."""
    net.eval()
    return net.train()


def leaves_the_tortoise(method: Method, net: Net) -> object:
    assert isinstance(method, HareTortoise)
    return method.tortoise.load_into_fast()


# ---- 6: θ0 taken after the first step ----


def check_theta0_is_taken_at_attach(make: Callable[[], Method]) -> None:
    method = make()
    net, optimizer = attached(method)
    initial = copied(net)
    for _ in range(2):
        step(net, optimizer)
    kept: Mapping[str, Tensor] = method.state_dict()["initial"]
    for name, _ in net.named_parameters():
        assert torch.equal(kept[name], initial[name]), name


def late(cls: type[Method]) -> type[Method]:
    """Plant: what `setup` does is done after the first step."""

    class Planted(cls):  # type: ignore[valid-type, misc]
        taken = False

        def after_step(self) -> None:
            if not self.taken:
                self.taken = True
                super().setup()

    return Planted


# ---- 7: ranks by their names ----


def check_ranks_are_what_they_are_called(ranks: Callable[..., Mapping[str, Tensor]]) -> None:
    """Singular values 10, 5, 1, 0.01: ‖A‖²_F/‖A‖²₂ = 1.260001; three of them hold 99 %."""
    found = ranks(torch.diag(torch.tensor([10.0, 5.0, 1.0, 0.01]))[None])
    assert torch.allclose(found["plasticity/stable_rank"], torch.tensor([1.260001]))
    assert found["plasticity/srank"].tolist() == [3.0]


def swapped(features: Tensor) -> dict[str, Tensor]:
    found = diagnostics.ranks(features)
    found["plasticity/stable_rank"] = found["plasticity/srank"]
    return found


# ---- the shipped passes, the planted is caught ----


@contextmanager
def caught() -> Iterator[None]:
    with pytest.raises(AssertionError):
        yield


CASES: list[tuple[Callable[[Any], None], Any, list[Any]]] = [
    (check_a_reset_shares_no_storage, HareTortoise, [SharesStorage]),
    (check_l2_init_adds_its_derivative_to_every_tensor, L2Init, [LastTensorOnly, Unsquared]),
    (
        check_the_divergence_is_a_mean_over_samples_times_the_square_of_t,
        SelfDistillation,
        [MeanOverClasses, WithoutSquare, TorchsDefaultReduction],
    ),
    (check_the_buffers_of_batch_norm_follow, FullReset, [parameters_only(FullReset)]),
    (
        check_the_buffers_of_batch_norm_follow,
        lambda: HeadReset(layers=2),
        [lambda: parameters_only(HeadReset)(layers=2)],  # type: ignore[call-arg]
    ),
    (
        check_the_buffers_of_batch_norm_follow,
        lambda: ShrinkPerturb(amount=1.0),
        [lambda: parameters_only(ShrinkPerturb)(amount=1.0)],  # type: ignore[call-arg]
    ),
    (check_every_parameter_is_the_optimizers_and_moves, FullReset, [rebuilding(FullReset)]),
    (check_every_parameter_is_the_optimizers_and_moves, HeadReset, [rebuilding(HeadReset)]),
    (
        check_every_parameter_is_the_optimizers_and_moves,
        lambda: ShrinkPerturb(amount=0.5),
        [rebuilding(ShrinkPerturb)],
    ),
    (
        check_every_parameter_is_the_optimizers_and_moves,
        lambda: HareTortoise(decay=0.5, reset_every=2),
        [rebuilding(HareTortoise)],
    ),
    (
        check_the_last_hidden_layer_is_redrawn,
        lambda: HeadReset(layers=2),
        [lambda: SkipsLastHidden(layers=2), lambda: HeadReset(layers=1)],
    ),
    (check_the_last_hidden_layer_is_redrawn, FullReset, [lambda: ShrinkPerturb(amount=0.0)]),
    (
        check_it_leaves_no_trace,
        diagnoses,
        [in_training_mode, leaves_a_gradient, leaves_a_hook, leaves_all_in_training_mode],
    ),
    (check_it_leaves_no_trace, evaluates, [leaves_evaluation_mode, leaves_the_tortoise]),
    (check_theta0_is_taken_at_attach, L2Init, [late(L2Init)]),
    (check_theta0_is_taken_at_attach, ShrinkPerturb, [late(ShrinkPerturb)]),
    (check_ranks_are_what_they_are_called, diagnostics.ranks, [swapped]),
]


@pytest.mark.parametrize(("check", "shipped", "planted"), CASES)
def test_the_shipped_code_is_free_of_it_and_a_planted_fault_is_caught(
    check: Callable[[Any], None], shipped: Any, planted: list[Any]
) -> None:
    check(shipped)
    for fault in planted:
        with caught():
            check(fault)


def test_gradients_start_at_zero(still_run: SupervisedRun) -> None:
    check_gradients_start_at_zero(still_run)


def test_gradients_that_are_never_zeroed_are_caught(
    still_run: SupervisedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(still_run.optimizer, "zero_grad", lambda: None)
    with caught():
        check_gradients_start_at_zero(still_run)


def test_dormancy_is_measured_on_training_inputs(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_dormancy_is_measured_on_training_inputs(make_run(Method()), monkeypatch)


def test_dormancy_of_test_images_is_caught(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(Method())

    def tests_first(self: PhaseBatches, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return run.tests.slice(start, min(stop, self.examples))

    monkeypatch.setattr(PhaseBatches, "slice", tests_first)
    with caught():
        check_dormancy_is_measured_on_training_inputs(run, monkeypatch)


def test_dormancy_is_measured_after_the_non_linearity() -> None:
    check_dormancy_is_measured_after_the_non_linearity()


def test_dormancy_of_pre_activations_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "ACTIVATIONS", (nn.Linear,))
    with caught():
        check_dormancy_is_measured_after_the_non_linearity()


def test_the_average_alone_shares_no_storage_either() -> None:
    method = ExponentialMovingAverage(decay=0.5)
    net, _ = attached(method)
    theirs = {t.untyped_storage().data_ptr() for t in method.tortoise.tensors().values()}
    assert all(t.untyped_storage().data_ptr() not in theirs for t in net.state_dict().values())
