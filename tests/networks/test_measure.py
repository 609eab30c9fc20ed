"""One call measures a lone network, a stack, and what a checkpoint held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ht_bench
from ht_bench import networks
from ht_bench.networks.measure import measure
from ht_bench.records.keys import DIAGNOSTICS

from .test_diagnostics import state

CHURN = {"plasticity/feature_churn", "plasticity/output_churn"}


def test_a_plain_module_its_optimizer_and_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    initial = {name: p.detach().clone() for name, p in net.named_parameters()}
    inputs, labels = torch.randn(20, 6), torch.randint(3, (20,))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    nn.functional.cross_entropy(net(inputs), labels).backward()
    optimizer.step()
    before, facts = state(net)
    found = ht_bench.measure(net, inputs, labels, optimizer=optimizer, initial=initial)
    after, facts_after = state(net)
    assert facts == facts_after
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert set(found) == set(DIAGNOSTICS) - CHURN
    assert all(value.shape == (1,) and value.isfinite().all() for value in found.values())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    again = measure(other, inputs, labels, costly=False)
    assert set(again) < set(found) and "weights/distance_from_init" not in again
    assert all(torch.equal(again[key], found[key]) for key in again)


@pytest.mark.parametrize("table", [{"name": "mlp", "hidden": [8]}])
def test_a_stack_is_measured_as_its_slots(table: dict[str, Any]) -> None:
    torch.manual_seed(0)
    stack = networks.build(table, (1, 2, 3), 3, stack=2)
    inputs, labels = torch.randn(2, 20, 1, 2, 3), torch.randint(3, (2, 20))
    together = measure(stack, inputs, labels, costly=False)
    lone = networks.build(table, (1, 2, 3), 3, stack=1)
    lone.load_state_dict({name: tensor[1:] for name, tensor in stack.state_dict().items()})
    for key, value in measure(lone, inputs[1:], labels[1:], costly=False).items():
        torch.testing.assert_close(together[key][1:], value, rtol=1e-4, atol=1e-5)
