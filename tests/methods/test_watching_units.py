"""Units are watched in training alone, recycled when no rollout is being learned from."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods import recycling
from ht_bench.methods.base import Method
from ht_bench.methods.continual_backprop import ContinualBackprop
from ht_bench.methods.grama import GraMa
from ht_bench.methods.recycling import UnitMethod
from ht_bench.methods.redo import ReDo
from ht_bench.methods.self_normalized_resets import SelfNormalizedResets
from ht_bench.testing import check_method

from .conftest import dense
from .recycled import METHODS, train, trained

# ---- watching ----


@pytest.mark.parametrize("planted", [None, "before the non-linearity", "in evaluation"])
def test_units_are_seen_after_the_non_linearity_on_training_inputs(
    planted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 5: dormancy from test inputs, or from pre-activations."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]))
        net[0].bias.zero_()
    if planted == "before the non-linearity":
        find = recycling.find_units
        monkeypatch.setattr(
            recycling,
            "find_units",
            lambda module: [dataclasses.replace(g, activation="0") for g in find(module)],
        )
    method = ReDo(every=1000).attach(net, torch.optim.SGD(net.parameters(), lr=0.0))
    net(torch.tensor([[1.0, 0.0], [3.0, 1.0]]))
    net.train(planted == "in evaluation")
    net(torch.full((2, 2), 50.0))
    net.train()
    with torch.no_grad():
        net(torch.full((2, 2), 70.0))
    with method.evaluating() as evaluated:
        evaluated(torch.full((2, 2), 90.0))
    assert (method.activity[0].tolist() == [[2.0, 0.0, 1.0]]) is (planted is None)
    if planted is None:
        assert method.chosen()[0].tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["cnn stack", "cnn crelu", "vit", "mlp crelu"])
def test_each_units_mean_is_over_examples_positions_and_features(name: str) -> None:
    method = trained(name, ReDo(every=1000), steps=0)
    net, seen = method.module, dict[str, Tensor]()

    def keep(module: nn.Module, inputs: object, output: Tensor, name: str) -> None:
        seen[name] = output.detach()

    for units in method.groups:
        activation = net.get_submodule(units.activation)
        activation.register_forward_hook(functools.partial(keep, name=units.activation))
    train(method, name, 1)
    stacked = bool(getattr(net, "stacked", False))
    for units, value in zip(method.groups, method.activity, strict=True):
        output = seen[units.activation] if stacked else seen[units.activation][None]
        for slot, mine in enumerate(output):
            at = mine.movedim(units.channel, -1).reshape(-1, units.features, units.count)
            torch.testing.assert_close(
                (value if stacked else value[None])[slot, 0], at.abs().mean((0, 1))
            )


def test_detached_and_copied_modules_are_not_watched() -> None:
    method = trained("dense", ReDo(every=1000))
    net = method.module
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        before = method.activity[0].clone()
        twin(torch.randn(8, 6) + 9)
        assert torch.equal(method.activity[0], before)
        other = ReDo(every=1000).attach(twin, torch.optim.SGD(twin.parameters(), lr=0.1))
        assert len(twin[2]._forward_hooks) == 1  # what was copied along is gone
        twin(torch.randn(8, 6))
        assert other.activity[0].any()
    method.detach()
    assert not any(child._forward_hooks for child in net.modules())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_modules_without_units_are_refused_at_attach(method: UnitMethod) -> None:
    net = nn.Linear(4, 2)
    fresh = copy.deepcopy(method)
    with pytest.raises(UsageError, match="Linear has no hidden units that could be recycled"):
        fresh.attach(net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert not net._forward_hooks


def test_an_initialize_that_leaves_weights_out_is_refused() -> None:
    net = dense()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method = ReDo(threshold=9.0, every=1).attach(net, optimizer, initialize=dict)
    with pytest.raises(UsageError, match="initialize\\(\\) returned no '0.weight'"):
        train(method, "dense", 1)


# ---- when ----


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_recycling_waits_while_resets_are_held(method: UnitMethod) -> None:
    """An on-policy agent's weights must not jump between two updates on one rollout."""
    held = trained("dense", dataclasses.replace(method), steps=0)
    renewed: list[int] = []
    original = held.recycle
    held.recycle = lambda *args: (renewed.append(1), original(*args))  # type: ignore[method-assign]
    held.holds_resets = True
    train(held, "dense", 8)
    assert not renewed
    saved = held.checkpoint()
    held.holds_resets = False
    held.release()
    held.release()
    assert renewed == [1]
    other = trained("dense", dataclasses.replace(method), steps=0)
    other.restore(saved, None, None)
    assert other._held
    other.resync()
    assert not other._held


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_they_keep_the_contract_where_units_are_silent(method: UnitMethod) -> None:
    """Few inputs and no BatchNorm: every method acts within the dozen steps."""
    acted: list[bool] = []

    def sparse() -> nn.Module:
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
        with torch.no_grad():
            net[1].bias.sub_(0.9)
        return net

    class Counted(type(method)):  # type: ignore[misc]
        def recycle(self, masks: Any, fresh: Any) -> None:
            acted.append(any(mask is not None and bool(mask.any()) for mask in masks))
            super().recycle(masks, fresh)

    given = [field.name for field in dataclasses.fields(method) if field.init]
    check_method(Counted(**{name: getattr(method, name) for name in given}), sparse)
    assert any(acted)


def test_of_a_hyperparameter_that_recycles_nothing_nothing_is_watched() -> None:
    for method in (
        ReDo(threshold=-1.0),
        GraMa(threshold=-1.0),
        ContinualBackprop(replacement_rate=0.0),
        SelfNormalizedResets(percentile=1.0),
    ):
        inert = trained("dense", method, steps=3)
        assert not any(child._forward_hooks for child in inert.module.modules())
        assert inert.due() is None


@pytest.mark.parametrize(
    ("cls", "values", "sentence"),
    [
        (ReDo, {"every": 0}, "every = 0: give 1 step or more"),
        (GraMa, {"every": True}, "every = True"),
        (ContinualBackprop, {"replacement_rate": 1.5}, "replacement_rate = 1.5: a share"),
        (ContinualBackprop, {"maturity": -1}, "maturity = -1: give 0 steps or more"),
        (ContinualBackprop, {"decay": 1.0}, "decay = 1.0"),
        (ContinualBackprop, {"initialization": "zero"}, "'kaiming' or 'fresh'"),
        (SelfNormalizedResets, {"percentile": 0.0}, "percentile = 0.0"),
        (SelfNormalizedResets, {"percentile": 1.1}, "percentile = 1.1"),
        (SelfNormalizedResets, {"minimum": 0}, "minimum = 0: give 1 to 511 steps"),
    ],
)
def test_values_they_cannot_take_are_refused(
    cls: type[Method], values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        cls(**values)
