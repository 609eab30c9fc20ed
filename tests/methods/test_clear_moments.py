"""Clearing of moments: exactly every so many steps, weights untouched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ht_bench.errors import UsageError
from ht_bench.methods.clear_moments import ClearMoments

from .conftest import Make, assert_equal, train_step


def test_it_is_a_loop_that_forgets_the_state(make_net: Make) -> None:
    net, plain = make_net(), make_net()
    optimizer, theirs = (torch.optim.Adam(n.parameters(), lr=1e-2) for n in (net, plain))
    ClearMoments(every=3).attach(net, optimizer)
    for step in range(10):
        train_step(net, optimizer, step)
        train_step(plain, theirs, step)
        if (step + 1) % 3 == 0:
            theirs.state.clear()
        assert len(optimizer.state) == len(theirs.state)
        assert_equal(net.state_dict(), plain.state_dict())
    assert len(optimizer.state) == len(list(net.parameters()))  # of the tenth step


def test_weights_stay_and_moments_of_others_too(make_net: Make) -> None:
    net, other = make_net(), nn.Linear(2, 2)
    optimizer = torch.optim.Adam([*net.parameters(), *other.parameters()], lr=0.0)
    ClearMoments(every=1).attach(net, optimizer)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    for parameter in (*net.parameters(), other.weight):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert_equal({n: p.detach() for n, p in net.named_parameters()}, before)
    assert list(optimizer.state) == [other.weight]


def test_in_place_the_storage_stays_and_is_zero(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    method = ClearMoments(every=2).attach(net, optimizer)
    method.clears_in_place = True
    train_step(net, optimizer, 0)
    held: list[dict[str, Any]] = [optimizer.state[p] for p in net.parameters()]
    train_step(net, optimizer, 1)
    assert all(optimizer.state[p] is s for p, s in zip(net.parameters(), held, strict=True))
    assert not any(t.any() for state in held for t in state.values())


def test_the_clock_runs_on_across_phases_and_resync_restarts_it(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    method = ClearMoments(every=3).attach(net, optimizer)
    train_step(net, optimizer, 0)
    method.enter_phase(1, 5, None, 2)
    assert method.due() == 2
    method.resync()
    assert method.due() == 3


@pytest.mark.parametrize("every", [0, -1, 2.5, True])
def test_values_it_cannot_take(every: Any) -> None:
    with pytest.raises(UsageError, match=f"every = {every}"):
        ClearMoments(every)
