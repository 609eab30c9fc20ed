"""ReDo and GraMa against their rules written out in NumPy, on two layers and step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.methods.grama import GraMa
from ht_bench.methods.recycling import shares
from ht_bench.methods.redo import ReDo

from .conftest import Array, TwoLayers, descend

LR, EVERY = 0.3, 3


def fresh_weights() -> dict[str, Array]:
    return TwoLayers(seed=9).weights


def as_tensors(weights: dict[str, Array]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in weights.items()}


def recycle(mine: TwoLayers, dormant: Array) -> None:
    fresh = fresh_weights()
    for unit in np.flatnonzero(dormant):
        mine.weights["0.weight"][unit] = fresh["0.weight"][unit]
        mine.weights["0.bias"][unit] = fresh["0.bias"][unit]
        mine.weights["2.weight"][:, unit] = 0


@pytest.mark.parametrize("scored_by", ["activation", "gradient"])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.5, 0.8])
def test_units_below_the_threshold_are_drawn_anew(scored_by: str, threshold: float) -> None:
    mine = TwoLayers()
    mine.weights["0.bias"][3] = -50.0
    net = mine.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    cls = ReDo if scored_by == "activation" else GraMa
    method = cls(threshold=threshold, every=EVERY)
    method.attach(net, optimizer, initialize=lambda: as_tensors(fresh_weights()))
    recycled = 0
    for step in range(3 * EVERY + 1):
        inputs, labels = TwoLayers.batch(step)
        gradients = mine.gradients(inputs, labels)
        hidden = np.maximum(inputs @ mine.weights["0.weight"].T + mine.weights["0.bias"], 0)
        size = (
            hidden.mean(0) if scored_by == "activation" else np.abs(gradients["0.weight"]).mean(1)
        )
        mine.step(gradients, LR)
        if (step + 1) % EVERY == 0:
            dormant = size / size.mean() <= threshold
            recycled += int(dormant.sum())
            recycle(mine, dormant)
        descend(net, optimizer, inputs, labels)
        mine.assert_equals(net)
    assert (recycled > 0) is (threshold >= 0)
    assert recycled < 3 * 5


def test_a_dead_unit_by_hand() -> None:
    net = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0], [-2.0], [4.0]]))
        net[0].bias.zero_()
        net[2].weight.fill_(1.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    fresh = {n: torch.full_like(p, 7.0) for n, p in net.state_dict().items()}
    ReDo(threshold=0.0, every=1).attach(net, optimizer, initialize=lambda: fresh)
    net(torch.tensor([[1.0], [2.0]])).sum().backward()
    optimizer.step()
    assert net[0].weight.flatten().tolist() == [2.0, 7.0, 4.0]
    assert net[0].bias.tolist() == [0.0, 7.0, 0.0]
    assert net[2].weight.flatten().tolist() == [1.0, 0.0, 1.0]


def test_shares_are_of_each_seeds_own_layer() -> None:
    values = torch.tensor([[1.0, 3.0], [10.0, 30.0], [0.0, 0.0]])
    assert shares(values).tolist() == [[0.5, 1.5], [0.5, 1.5], [0.0, 0.0]]
