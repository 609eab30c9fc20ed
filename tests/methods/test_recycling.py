"""Recycling a unit: exactly its weights, statistics and moments change, by value and in place.

And the faults of public implementations, each caught when planted.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.methods import recycling
from ht_bench.methods.moments import clear_entries
from ht_bench.methods.recycling import UnitMethod
from ht_bench.methods.redo import ReDo
from ht_bench.networks.units import Units

from .conftest import copied
from .recycled import NETS, train, trained


def own(tensor: Tensor, slot: int | None) -> Tensor:
    return tensor if slot is None else tensor[slot]


def entries(
    method: UnitMethod, units: Units, unit: int, slot: int | None
) -> Iterator[tuple[str, Tensor, str]]:
    """Yield (tensor's name, mask of a unit's entries, "fresh" or "zero"), by plain indices."""
    tensors = dict(method.module.state_dict())
    for name, features in ((units.layer, 1), *units.per_unit):
        for full, tensor in tensors.items():
            if full.rpartition(".")[0] != name or own(tensor, slot).dim() == 0:
                continue
            mask = torch.zeros_like(tensor, dtype=torch.bool)
            for feature in range(features):
                own(mask, slot)[feature * units.count + unit] = True
            yield full, mask, "fresh"
    for outgoing in units.outgoing:
        full = f"{outgoing.layer}.weight"
        mask = torch.zeros_like(tensors[full], dtype=torch.bool)
        for feature in range(outgoing.features):
            for position in range(outgoing.positions):
                column = (feature * units.count + unit) * outgoing.positions + position
                own(mask, slot)[:, column] = True
        yield full, mask, "zero"


def expected(
    method: UnitMethod, masks: list[Tensor], fresh: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights after recycling, and which entries of each tensor were recycled."""
    after = copied(method.module)
    touched = {name: torch.zeros_like(t, dtype=torch.bool) for name, t in after.items()}
    for kind in ("fresh", "zero"):
        for units, mask in zip(method.groups, masks, strict=True):
            for *seed, unit in mask.nonzero().tolist():
                slot = seed[0] if seed else None
                for name, mine, wanted in entries(method, units, unit, slot):
                    if wanted == kind:
                        value = fresh[name] if kind == "fresh" else torch.zeros_like(after[name])
                        after[name][mine] = value[mine].to(after[name].dtype)
                        touched[name] |= mine
    return after, touched


def some(method: UnitMethod) -> list[Tensor]:
    """A mask of each group: a unit or two of each seed, others in each."""
    masks = []
    for place, units in enumerate(method.groups):
        mask = torch.zeros_like(method.zeros(units, 1).squeeze(-2), dtype=torch.bool)
        for slot, mine in enumerate(mask if mask.dim() > 1 else [mask]):
            mine[(place + slot) % units.count] = True
            mine[-1 - slot % units.count] = True
        masks.append(mask)
    return masks


def check_recycled(method: UnitMethod) -> None:
    """Recycle some units and compare every number of network and optimizer."""
    masks, fresh = some(method), method.fresh()
    moments = {
        name: copied({k: v for k, v in method.optimizer.state[p].items() if v.shape == p.shape})
        for name, p in method.module.named_parameters()
    }
    addresses = [t.data_ptr() for t in method.module.state_dict().values()]
    after, touched = expected(method, masks, fresh)
    with torch.no_grad():
        method.recycle(masks, fresh)
    assert addresses == [t.data_ptr() for t in method.module.state_dict().values()]
    for name, tensor in method.module.state_dict().items():
        assert torch.equal(tensor, after[name]), name
    for name, parameter in method.module.named_parameters():
        for key, before in moments[name].items():
            now = method.optimizer.state[parameter][key]
            cleared = before.masked_fill(touched[name], 0)
            assert torch.equal(now, cleared), (name, key)
            assert before.any() and touched[name].any() <= (before != cleared).any(), (name, key)


@pytest.mark.parametrize("name", NETS)
def test_exactly_the_units_entries_change(name: str) -> None:
    check_recycled(trained(name, ReDo(every=1000)))


def test_momentum_of_sgd_is_forgotten_too() -> None:
    kind = functools.partial(torch.optim.SGD, momentum=0.9)
    check_recycled(trained("dense", ReDo(every=1000), kind=kind))


def test_squares_that_begin_at_one_do_so_again() -> None:
    class RMSpropTFLike(torch.optim.RMSprop):
        pass

    parameter = nn.Parameter(torch.ones(4))
    for kind, value in ((RMSpropTFLike, 1.0), (torch.optim.RMSprop, 0.0)):
        optimizer = kind([parameter], lr=0.1)
        optimizer.state[parameter] = {
            "step": torch.tensor(3.0),
            "square_avg": torch.full((4,), 7.0),
        }
        clear_entries(optimizer, parameter, lambda moment, value: moment[:2].fill_(value))
        state = optimizer.state[parameter]
        assert state["square_avg"].tolist() == [value, value, 7, 7]
        assert state["step"] == 3


# ---- faults of public implementations, planted ----


def columns_of_a_copy(*args: Any) -> tuple[Tensor, Tensor]:
    """Fault 3: a copy is written to, as by `w[mask].fill_(0)`."""
    view, mask = ORIGINAL_COLUMNS(*args)
    return view.clone(), mask


def rows_of_a_copy(mask: Tensor, tensor: Tensor) -> tuple[Tensor, Tensor]:
    view, mine = ORIGINAL_ROWS(mask, tensor)
    return view.clone(), mine


def all_but_the_last(module: nn.Module) -> list[Units]:
    """Fault 5: the last hidden layer is never recycled."""
    return ORIGINAL_FIND(module)[:-1]


def without_normalisation(module: nn.Module) -> list[Units]:
    """Fault 2: what normalises a unit stays behind."""
    return [dataclasses.replace(units, per_unit=()) for units in ORIGINAL_FIND(module)]


ORIGINAL_COLUMNS, ORIGINAL_ROWS = recycling.columns, recycling._rows_of
ORIGINAL_FIND = recycling.find_units


@pytest.mark.parametrize("name", ["dense", "cnn stack"])
@pytest.mark.parametrize(
    ("attribute", "planted"), [("columns", columns_of_a_copy), ("_rows_of", rows_of_a_copy)]
)
def test_writing_to_a_copy_would_be_caught(
    name: str, attribute: str, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = trained(name, ReDo(every=1000))
    monkeypatch.setattr(recycling, attribute, planted)
    with pytest.raises(AssertionError):
        check_recycled(method)


@pytest.mark.parametrize("planted", [None, all_but_the_last, without_normalisation])
def test_every_hidden_layer_is_recycled_with_its_normalisation(
    planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if planted is not None:
        monkeypatch.setattr(recycling, "find_units", planted)
    method = trained("dense", ReDo(every=1000))
    net = method.module
    before = copied(net)
    with torch.no_grad():
        everything = [torch.ones(units.count, dtype=torch.bool) for units in method.groups]
        method.recycle(everything, method.fresh())
    changed = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    counts = {"1.num_batches_tracked", "4.num_batches_tracked"}
    wanted = set(before) - {"6.bias"} - counts
    assert (changed == wanted) is (planted is None)
    if planted is None:
        assert not net[6].weight.any() and not net[3].weight.any()


@pytest.mark.parametrize("planted", [False, True])
def test_parameters_stay_in_the_optimizer_and_train_on(planted: bool) -> None:
    """Fault 4, planted: the layer is rebuilt."""
    method = trained("dense", ReDo(threshold=0.9, every=2), steps=0)
    net = method.module
    train(method, "dense", 4)
    if planted:
        net[3] = nn.Linear(8, 5)
    optimized = {id(p) for group in method.optimizer.param_groups for p in group["params"]}
    before = copied(net)
    train(method, "dense", 3)
    still = [n for n, p in net.named_parameters() if torch.equal(p, before[n])]
    inside = {id(p) for p in net.parameters()} <= optimized
    assert (inside and not still) is not planted


@pytest.mark.parametrize("scale", [1.0, 2.45])
def test_fresh_weights_are_within_the_layers_own_bound(scale: float) -> None:
    """Fault 8: a port draws 2.45 times as wide."""
    method = trained("mlp", ReDo(every=1000))
    fresh = {name: tensor * scale for name, tensor in method.fresh().items()}
    with torch.no_grad():
        everything = [torch.ones(3, units.count, dtype=torch.bool) for units in method.groups]
        method.recycle(everything, fresh)
    weight = method.module.linear0.weight
    largest = float(weight.detach().abs().max()) * weight.shape[-1] ** 0.5
    assert (0.9 < largest <= 1) is (scale == 1)
