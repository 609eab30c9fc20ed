"""Methods in programs that nobody here wrote: their modules, optimizers, scalers, checkpoints."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from ht_bench.methods.base import Method
from ht_bench.methods.ema import ExponentialMovingAverage
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.penalties import L2Init
from ht_bench.methods.redo import ReDo
from ht_bench.methods.resets import FullReset, ShrinkPerturb
from ht_bench.methods.self_distillation import SelfDistillation
from ht_bench.networks.modes import evaluation_mode

from .conftest import copied


def sgd(net: nn.Module, lr: float = 0.1, **settings: Any) -> torch.optim.SGD:
    return torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=lr, **settings)


def fit(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1, width: int = 4) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(6, width, generator=torch.Generator().manual_seed(step))
        net(inputs).square().mean().backward()
        optimizer.step()


# ---- buffers ----


class Keeper(nn.Module):
    """A linear layer with every kind of buffer that is no running statistic, and one that is."""

    running_statistics = ("centre",)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("mask", torch.full((2,), float("-inf")))
        self.register_buffer("wide", torch.ones(1).expand(4))
        self.register_buffer("seen", torch.zeros(0, 4))
        self.register_buffer("centre", torch.zeros(4))

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, inputs.detach()])
        self.centre = self.centre + inputs.detach().mean(0)
        return self.linear(inputs)


@pytest.mark.parametrize(
    "method",
    [
        HareTortoise(decay=0.5, reset_every=2),
        ShrinkPerturb(amount=0.5),
        SelfDistillation(decay=0.5),
    ],
    ids=repr,
)
def test_only_running_statistics_are_averaged(method: Method) -> None:
    net = Keeper()
    optimizer = sgd(net)
    method.attach(net, optimizer)
    fit(net, optimizer, 3)
    method.enter_phase(1, 4, None, 2)
    with method.evaluating() as judged:
        assert torch.equal(judged.mask, torch.full((2,), float("-inf")))
        assert len(judged.seen) == 18
        assert torch.isfinite(judged(torch.ones(1, 4))).all()
    assert net.wide.stride() == (0,)
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_module_declares_its_own_running_statistics() -> None:
    net = Keeper()
    optimizer = sgd(net)
    method = ExponentialMovingAverage(decay=0.75).attach(net, optimizer)
    fit(net, optimizer)
    torch.testing.assert_close(method.tortoise.named()["centre"], 0.25 * net.centre)


def test_a_full_reset_replaces_buffers_that_have_grown_or_share_memory() -> None:
    net = Keeper()
    method = FullReset().attach(net, sgd(net), initialize=lambda: copied(Keeper()))
    net(torch.ones(3, 4))
    method.enter_phase(1, 4, None, 2)
    assert net.seen.shape == (0, 4) and net.centre.abs().max() == 0


# ---- what is derived from weights ----


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_spectral_norm_is_that_of_the_judged_weights(norm: Callable[..., nn.Module]) -> None:
    net = nn.Sequential(norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    optimizer = sgd(net, 0.5)
    method = ExponentialMovingAverage(decay=0.9).attach(net, optimizer)
    fit(net, optimizer, 40)
    weight = net.eval()[0].weight
    before = copied(net.train())
    with method.evaluating() as judged, torch.no_grad():
        largest = torch.linalg.matrix_norm(judged[0].weight, 2)
        torch.testing.assert_close(largest, torch.tensor(1.0), rtol=1e-3, atol=0)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(net.eval()[0].weight, weight)


def test_weights_computed_by_hooks_are_the_judged_ones_without_a_forward_pass() -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    prune.random_unstructured(net[0], "weight", 0.5)
    optimizer = sgd(net)
    method = ExponentialMovingAverage(decay=0.5).attach(net, optimizer)
    fit(net, optimizer, 8)
    mask, slow = net[0].weight_mask, method.tortoise.named()["0.weight_orig"]
    with method.evaluating() as judged:
        assert torch.equal(judged[0].weight, slow * mask)
    with parametrize.cached():
        pass


# ---- precision, devices, parts ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_averaged_in_fp32(dtype: torch.dtype) -> None:
    net = nn.Linear(3, 3).to(dtype)
    optimizer = sgd(net, 0.0)
    method = HareTortoise(decay=0.999, reset_every=None).attach(net, optimizer)
    start = net.weight.detach().float()
    with torch.no_grad():
        net.weight.add_(0.25)
    for _ in range(500):
        net.weight.grad = torch.zeros_like(net.weight)
        optimizer.step()
    expected = start.lerp(net.weight.detach().float(), 1 - 0.999**500)
    torch.testing.assert_close(method.tortoise.named()["weight"], expected, rtol=0, atol=1e-4)
    with method.evaluating() as judged:
        assert judged.weight.dtype == dtype
        torch.testing.assert_close(judged.weight.detach().float(), expected, rtol=1e-2, atol=1e-2)


def test_a_part_in_another_type_and_complex_weights() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    net.register_parameter("phase", nn.Parameter(torch.ones(2, dtype=torch.complex64)))
    for method in (ExponentialMovingAverage(decay=0.5), L2Init(strength=0.1)):
        method.attach(net, sgd(net))
        net[1].double()
        net[1](net[0](torch.ones(3, 4)).double()).sum().backward()
        method.optimizer.step()
        net[1].float()


# ---- modes ----


class Merging(nn.Linear):
    """Merges a low-rank part into its weight in evaluation mode, as LoRA does."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.weight.requires_grad_(False)
        self.merged = False
        self.a, self.b = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(4, 2))

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode == self.merged:
            with torch.no_grad():
                self.weight.add_(self.b @ self.a, alpha=-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.weight if self.merged else self.weight + self.b @ self.a
        return nn.functional.linear(inputs, weight, self.bias)


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize(
    "make", [Method, lambda: ExponentialMovingAverage(decay=0.0), lambda: SelfDistillation(0.0)]
)
def test_layers_that_merge_come_back_bit_for_bit(
    make: Callable[[], Method], evaluated: bool
) -> None:
    net = nn.Sequential(Merging(), nn.Linear(4, 2))
    optimizer = sgd(net)
    method = make().attach(net, optimizer)
    fit(net, optimizer, 4)
    inputs = torch.ones(2, 4)
    expected = net(inputs)
    net.train(not evaluated)
    before = copied(net)
    with method.evaluating() as judged:
        torch.testing.assert_close(judged(inputs), expected)
    assert net[0].merged is evaluated and net.training is not evaluated
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_a_look_between_forward_and_backward_leaves_autograd_in_peace() -> None:
    net = nn.Sequential(nn.Linear(4, 4), Merging())
    optimizer = sgd(net)
    method = SelfDistillation(decay=0.5).attach(net, optimizer)
    inputs = torch.ones(2, 4)
    outputs = net(inputs)
    extra = method.auxiliary_loss(inputs, outputs)
    assert extra is not None
    (outputs.sum() + extra).backward()


class Frozen(nn.Sequential):
    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self[1].eval()
        return self


def test_a_frozen_norm_stays_frozen() -> None:
    net = Frozen(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    net[2].eval()
    with evaluation_mode(net):
        assert not any(child.training for child in net.modules())
    assert [child.training for child in net.modules()] == [True, True, False, False]


# ---- copies ----


@pytest.mark.parametrize("given", [HareTortoise(decay=0.5, reset_every=4), L2Init(), ReDo(every=3)])
def test_a_copy_goes_on_as_its_original_by_the_documents_recipe(given: Method) -> None:
    """docs/api.md: copy model and optimizer together, attach a replaced method, restore."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(net.parameters())
    method = dataclasses.replace(given).attach(net, optimizer, generator=torch.Generator())
    fit(net, optimizer, 6)
    other, copied_optimizer = copy.deepcopy((net, optimizer))
    twin = dataclasses.replace(method).attach(other, copied_optimizer, generator=torch.Generator())
    twin.restore(method.checkpoint(), None, None)
    fit(other, copied_optimizer, 7)
    fit(net, optimizer, 7)
    assert all(map(torch.equal, net.parameters(), other.parameters()))
    with method.evaluating(), twin.evaluating():
        assert all(map(torch.equal, net.parameters(), other.parameters()))
