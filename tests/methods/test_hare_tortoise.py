"""Hare & Tortoise against an independent loop in plain torch, and its contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.ema import ExponentialMovingAverage
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.training.supervised import SupervisedRun

Make = Callable[[], nn.Sequential]
Step = Callable[[nn.Module, torch.optim.Optimizer, int], None]
Snapshot = Callable[[nn.Module], dict[str, Tensor]]
Tensors = dict[str, Tensor]


def adamw(net: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)


def assert_equal(left: Tensors, right: Tensors) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def attached(net: nn.Module, **hyperparameters: Any) -> tuple[HareTortoise, torch.optim.AdamW]:
    optimizer = adamw(net)
    return HareTortoise(**hyperparameters).attach(net, optimizer), optimizer


# ---- the numbers ----


def reference(
    net: nn.Module, step: Step, steps: int, decay: float, every: int, buffers: str, state: str
) -> Tensors:
    """Train `net` by a loop that knows nothing of this package; returns the tortoise."""
    optimizer, fast = adamw(net), net.state_dict()
    slow = {name: tensor.clone() for name, tensor in fast.items()}
    weights = [name for name, _ in net.named_parameters()]
    for count in range(1, steps + 1):
        step(net, optimizer, count)
        for name, tensor in fast.items():
            if name in weights or (buffers == "average" and tensor.is_floating_point()):
                slow[name].lerp_(tensor, 1 - decay)
            else:
                slow[name].copy_(tensor)
        if count % every == 0:
            for name, tensor in fast.items():
                tensor.copy_(slow[name])
            if state == "clear":
                optimizer.state.clear()
    return slow


@pytest.mark.parametrize("buffers", ["average", "copy"])
@pytest.mark.parametrize("state", ["keep", "clear"])
def test_it_is_an_independent_loop_bit_for_bit(
    make_net: Make, train_step: Step, buffers: str, state: str
) -> None:
    plain, net = make_net(), make_net()
    slow = reference(plain, train_step, 66, 0.9, 7, buffers, state)
    method, optimizer = attached(
        net, decay=0.9, reset_every=7, buffers=buffers, optimizer_state=state
    )
    for count in range(1, 67):
        train_step(net, optimizer, count)
    assert_equal(net.state_dict(), plain.state_dict())
    assert_equal(method.tortoise.tensors(), slow)


def test_the_rule_by_hand() -> None:
    """θ = 4, gradient 1, lr 1, μ = 0.75, reset at step 2: s = 3.75, then 3.3125 for both."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 4.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    method = HareTortoise(decay=0.75, reset_every=2).attach(net, optimizer)
    seen = []
    for _ in range(3):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        seen.append((net.weight.item(), method.tortoise.tensors()["weight"].item()))
    assert seen == [(3.0, 3.75), (3.3125, 3.3125), (2.3125, 3.0625)]


def test_without_resets_it_is_torchs_averaged_model(make_net: Make, train_step: Step) -> None:
    net = make_net()
    method, optimizer = attached(net, decay=0.97, reset_every=None)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.97))
    average.n_averaged.fill_(1)  # else it starts as a copy at the first update
    for count in range(60):
        train_step(net, optimizer, count)
        average.update_parameters(net)
    slow = method.tortoise.tensors()
    for name, parameter in average.module.named_parameters():
        assert torch.equal(slow[name], parameter), name
        assert not torch.equal(slow[name], net.state_dict()[name]), name


def test_floating_buffers_average_or_copy_and_integers_are_copied(
    make_net: Make, train_step: Step
) -> None:
    for buffers in ("average", "copy"):
        net = make_net()
        method, optimizer = attached(net, decay=0.5, reset_every=None, buffers=buffers)
        train_step(net, optimizer, 0)
        fast, slow, start = net.state_dict(), method.tortoise.tensors(), make_net().state_dict()
        name = next(n for n in fast if n.endswith("running_mean"))
        expected = fast[name] if buffers == "copy" else start[name].lerp(fast[name], 0.5)
        assert torch.equal(slow[name], expected)
        assert not torch.equal(fast[name], start[name])
        assert slow[name.replace("running_mean", "num_batches_tracked")] == 1


# ---- resets ----


def test_a_reset_shares_no_storage_and_the_next_step_moves_only_the_hare(
    make_net: Make, train_step: Step
) -> None:
    net = make_net()
    method, optimizer = attached(net, decay=0.9, reset_every=5)
    for count in range(5):
        train_step(net, optimizer, count)
    slow = method.tortoise.tensors()
    assert_equal(net.state_dict(), slow)
    storages = {tensor.untyped_storage().data_ptr() for tensor in slow.values()}
    for name, tensor in net.state_dict().items():
        assert tensor.data_ptr() != slow[name].data_ptr()
        assert tensor.untyped_storage().data_ptr() not in storages
    kept = {name: tensor.clone() for name, tensor in slow.items()}
    for parameter in net.parameters():
        parameter.data.add_(1.0)
    assert_equal(method.tortoise.tensors(), kept)
    assert all(not torch.equal(p, kept[name]) for name, p in net.named_parameters())


def test_after_a_reset_every_parameter_is_the_optimizers_and_moves(
    make_net: Make, train_step: Step
) -> None:
    net = make_net()
    before = list(net.parameters())
    _, optimizer = attached(net, decay=0.9, reset_every=5)
    for count in range(5):
        train_step(net, optimizer, count)
    values = [parameter.detach().clone() for parameter in before]
    train_step(net, optimizer, 5)
    after, owned = list(net.parameters()), optimizer.param_groups[0]["params"]
    assert all(a is b is c for a, b, c in zip(before, after, owned, strict=True))
    assert all(not torch.equal(p, v) for p, v in zip(after, values, strict=True))


@pytest.mark.parametrize("state", ["keep", "clear"])
def test_the_optimizers_moments_are_kept_or_cleared_as_asked(
    make_net: Make, train_step: Step, state: str
) -> None:
    net = make_net()
    _, optimizer = attached(net, decay=0.9, reset_every=3, optimizer_state=state)
    for count in range(3):
        assert count == 0 or len(optimizer.state) == len(list(net.parameters()))
        train_step(net, optimizer, count)
    assert len(optimizer.state) == (0 if state == "clear" else len(list(net.parameters())))
    train_step(net, optimizer, 3)
    steps = {int(entry["step"]) for entry in optimizer.state.values()}
    assert steps == {1 if state == "clear" else 4}


# ---- the clock ----


def reset_steps(
    method: HareTortoise, net: nn.Module, step: Step, phases: list[tuple[int, int]]
) -> list[int]:
    """Return the steps, counted over all phases (steps, epoch_steps), after which θ = s."""
    optimizer = adamw(net)
    method.attach(net, optimizer)
    found, count = [], 0
    for index, (steps, epoch_steps) in enumerate(phases):
        assert method.enter_phase(index, steps, epoch_steps, len(phases)) == steps
        for _ in range(steps):
            count += 1
            step(net, optimizer, count)
            slow = method.tortoise.tensors()
            if all(torch.equal(p, slow[name]) for name, p in net.named_parameters()):
                found.append(count)
    return found


@pytest.mark.parametrize(
    ("hyperparameters", "expected"),
    [
        ({"reset_every": 6}, [6, 12, 18, 24]),  # steps run on across phases
        ({"reset_every": "2 epochs"}, [8, 16, 22]),  # 8 steps, then 6 from the phase's start on
        ({"reset_every": "1 epoch"}, [4, 8, 13, 16, 19, 22]),
        ({"reset_every": "0.5 epochs"}, [2, 4, 6, 8, 10, *range(12, 25, 2)]),
        ({"reset_every": "4 epochs"}, [22]),  # 16 of 10 steps, then 12 of 14
        ({"reset_every": 6, "first_reset": 2}, [2, 8, 14, 20]),
        ({"reset_every": 6, "first_reset": 9}, [9, 15, 21]),
        ({"reset_every": "2 epochs", "first_reset": 4}, [4, 16, 22]),
        ({"reset_every": None}, []),
    ],
)
def test_resets_fall_where_the_interval_says(
    make_net: Make, train_step: Step, hyperparameters: dict[str, Any], expected: list[int]
) -> None:
    method = HareTortoise(decay=0.7, **hyperparameters)
    assert reset_steps(method, make_net(), train_step, [(10, 4), (14, 3)]) == expected


@pytest.mark.parametrize(
    ("reset_every", "expected"),
    [
        ("1 epoch", [(0, 2), (0, 4), (0, 6), (0, 8), (0, 10), (0, 12), (1, 4), (1, 8), (1, 12)]),
        ("4 epochs", [(0, 8)]),
        (9, [(0, 9), (1, 6)]),
    ],
)
def test_the_packages_loop_tells_it_epochs_and_phases(
    make_run: Callable[..., SupervisedRun], reset_every: int | str, expected: list[tuple[int, int]]
) -> None:
    found: list[tuple[int, int]] = []

    class Recorded(HareTortoise):
        def _reset(self) -> None:
            super()._reset()
            found.append((run.position.phase, run.position.step + 1))

    run = make_run(Recorded(decay=0.9, reset_every=reset_every))
    run.train()
    assert found == expected


def test_epochs_need_a_loop_that_tells_them(make_net: Make, train_step: Step) -> None:
    net = make_net()
    _, optimizer = attached(net, reset_every="10 epochs")
    with pytest.raises(UsageError, match=r"'10 epochs' needs a loop that tells.*give steps"):
        train_step(net, optimizer, 0)


# ---- evaluation ----


@contextmanager
def assert_nothing_changes(net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Weights, buffers, gradients, modes, storages, hooks, moments, generator: bit-identical."""

    def state() -> tuple[list[Tensor], list[Any]]:
        tensors = [*net.state_dict().values(), *(p.grad for p in net.parameters())]
        moments = [t for entry in optimizer.state.values() for t in entry.values()]
        children = list(net.modules())
        facts = [child.training for child in children]
        facts += [len(c._forward_hooks) + len(c._forward_pre_hooks) for c in children]
        facts += [tensor.data_ptr() for tensor in net.state_dict().values()]
        return [t.clone() for t in [*tensors, *moments, torch.get_rng_state()]], facts

    tensors, facts = state()
    yield
    tensors_after, facts_after = state()
    assert facts_after == facts
    assert all(torch.equal(a, b) for a, b in zip(tensors, tensors_after, strict=True))


@pytest.fixture
def trained(
    make_net: Make, train_step: Step
) -> tuple[nn.Module, HareTortoise, torch.optim.Optimizer]:
    """A network after four steps, one of its modules put into evaluation mode by its owner."""
    net = make_net()
    method, optimizer = attached(net, decay=0.9, reset_every=100)
    for count in range(4):
        train_step(net, optimizer, count)
    net[2].eval()
    return net, method, optimizer


Trained = tuple[nn.Module, HareTortoise, torch.optim.Optimizer]


def test_evaluating_holds_the_tortoise_and_restores_everything(trained: Trained) -> None:
    net, method, optimizer = trained
    hare = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with assert_nothing_changes(net, optimizer):
        with method.evaluating() as judged:
            assert judged is net
            assert not any(child.training for child in net.modules())
            assert_equal(net.state_dict(), method.tortoise.tensors())
            assert any(not torch.equal(net.state_dict()[name], hare[name]) for name in hare)
            net(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
        assert net.training and not net[2].training


def test_evaluating_restores_everything_when_the_body_raises(trained: Trained) -> None:
    net, method, optimizer = trained
    with assert_nothing_changes(net, optimizer), pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with method.evaluating():
            raise ZeroDivisionError


def test_evaluating_may_be_nested(trained: Trained) -> None:
    net, method, optimizer = trained
    with assert_nothing_changes(net, optimizer), method.evaluating():
        with method.evaluating():
            assert_equal(net.state_dict(), method.tortoise.tensors())
        assert not net.training
        assert_equal(net.state_dict(), method.tortoise.tensors())


def test_evaluating_between_steps_changes_no_number(make_net: Make, train_step: Step) -> None:
    plain, net = make_net(), make_net()
    plain_optimizer = attached(plain, decay=0.9, reset_every=4)[1]
    method, optimizer = attached(net, decay=0.9, reset_every=4)
    for count in range(12):
        train_step(plain, plain_optimizer, count)
        train_step(net, optimizer, count)
        with method.evaluating():
            net(torch.ones(5, 6))
    assert_equal(net.state_dict(), plain.state_dict())


# ---- contract ----


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExponentialMovingAverage(decay=0.9),
        lambda: HareTortoise(decay=0.9, reset_every=None),
        lambda: HareTortoise(decay=0.9, reset_every=1000),
        lambda: HareTortoise(decay=0.0, reset_every=5, optimizer_state="keep"),  # s = θ
    ],
)
def test_without_resets_the_trained_weights_are_those_of_none(
    make: Callable[[], Method], assert_trains_as_none: Callable[..., None]
) -> None:
    assert_trains_as_none(make)


def test_both_are_judged_in_the_packages_loop(make_run: Callable[..., SupervisedRun]) -> None:
    plain = make_run(Method())
    run = make_run(HareTortoise(decay=0.99, reset_every=None))
    plain.train()
    run.train()
    for mine, theirs in zip(run.history.points, plain.history.points, strict=True):
        assert mine["hare/accuracy"] == theirs["test/accuracy"]
        assert mine["tortoise/accuracy"] == mine["test/accuracy"]
    assert run.history.points[-1]["hare/accuracy"] != run.history.points[-1]["tortoise/accuracy"]


@pytest.mark.parametrize("reset_every", [5, "3 epochs", None])
def test_a_stopped_run_resumes_to_the_same_bits(
    reset_every: int | str | None, assert_resumes: Callable[..., None]
) -> None:
    def make() -> Method:
        first = None if reset_every is None else 7
        return HareTortoise(decay=0.9, reset_every=reset_every, first_reset=first)

    assert_resumes(make)


def test_what_is_no_torch_optimizer_is_refused(make_net: Make) -> None:
    with pytest.raises(UsageError, match=r"needs a torch.optim.Optimizer.*; list is not one"):
        HareTortoise().attach(make_net(), [])  # type: ignore[arg-type]


def test_one_instance_serves_one_module_and_replace_makes_another(make_net: Make) -> None:
    net = make_net()
    method, optimizer = attached(net, decay=0.5, reset_every=3)
    with pytest.raises(UsageError, match=r"attached already; attach a copy.*replace"):
        method.attach(net, optimizer)
    copy = dataclasses.replace(method, reset_every=4).attach(make_net(), adamw(net))
    assert (copy.decay, copy.reset_every, method.reset_every) == (0.5, 4, 3)


def test_detached_it_leaves_the_module_alone(make_net: Make, train_step: Step) -> None:
    net = make_net()
    method, optimizer = attached(net, decay=0.5, reset_every=2)
    train_step(net, optimizer, 0)
    method.detach()
    kept = {name: tensor.clone() for name, tensor in method.tortoise.tensors().items()}
    train_step(net, optimizer, 1)
    assert_equal(method.tortoise.tensors(), kept)
    assert any(not torch.equal(p, kept[name]) for name, p in net.named_parameters())


@pytest.mark.parametrize(
    ("hyperparameters", "sentence"),
    [
        ({"decay": 1.5}, "decay = 1.5"),
        ({"decay": -0.1}, "decay = -0.1"),
        ({"buffers": "drop"}, "buffers = 'drop': it must be 'average' or 'copy'"),
        ({"reset_every": 0}, "reset_every = 0: give 1 step or more"),
        ({"reset_every": "often"}, "'often' is no interval; write steps"),
        ({"reset_every": "10"}, "'10' is no interval"),
        ({"first_reset": 0}, "first_reset = 0: give 1 step or more"),
        ({"optimizer_state": "forget"}, "optimizer_state = 'forget'"),
    ],
)
def test_values_it_cannot_take_are_refused(hyperparameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        HareTortoise(**hyperparameters)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_one_line_serves_any_torch_program(
    kind: Callable[..., torch.optim.Optimizer], make_net: Make, train_step: Step
) -> None:
    net = make_net()
    optimizer = kind(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
    tortoise = ht_bench.HareTortoise(decay=0.9, reset_every=20).attach(net, optimizer)
    first = [parameter.detach().clone() for parameter in net.parameters()]
    for count in range(40):
        train_step(net, optimizer, count)
        schedule.step()
    assert_equal(net.state_dict(), tortoise.tortoise.tensors())
    moved = [not torch.equal(p, v) for p, v in zip(net.parameters(), first, strict=True)]
    assert all(moved[0::4])  # a bias before a BatchNorm has no gradient


def test_a_closure_and_groups_of_parameters_are_served_too(make_net: Make) -> None:
    net = make_net()
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD([{"params": weights}, {"params": others, "lr": 0.01}], lr=0.1)
    method = HareTortoise(decay=0.5, reset_every=2).attach(net, optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(torch.ones(4, 6)).square().sum()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, method.tortoise.tensors()[name]), name


def test_the_slow_copy_follows_a_module_that_changes_its_type() -> None:
    """`Module.to` replaces buffers and the parameters' storage: both must still be averaged."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    method = HareTortoise(decay=0.5, reset_every=None)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method.attach(net, optimizer)
    start = {name: tensor.clone().double() for name, tensor in method.tortoise.tensors().items()}
    net.to(torch.float64)
    net(torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    for name, tensor in method.tortoise.tensors().items():
        if tensor.is_floating_point():
            wanted = start[name].lerp(net.state_dict()[name], 0.5)
            assert tensor.dtype == torch.float64
            torch.testing.assert_close(tensor, wanted)


@pytest.mark.parametrize(
    "settings",
    [{"reset_every": 2.5}, {"reset_every": True}, {"reset_every": None, "first_reset": 2}],
)
def test_intervals_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        HareTortoise(**settings)


def test_an_attach_that_fails_leaves_nothing_behind() -> None:
    class Broken(HareTortoise):
        def setup(self) -> None:
            raise RuntimeError("no")

    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method = Broken()
    with pytest.raises(RuntimeError):
        method.attach(net, optimizer)
    assert not optimizer._optimizer_step_post_hooks
    assert not hasattr(method, "module")
