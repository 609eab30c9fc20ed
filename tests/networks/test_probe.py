"""The probe tells planted bad networks from fresh ones, by hand and seed by seed, traceless."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench import networks
from ht_bench.networks.probe import like, plain_copy, trainability

from .test_diagnostics import state

ADAM = partial(torch.optim.Adam, lr=1e-2)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return ADAM(module.parameters())


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def fresh(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )


def probed(net: nn.Module, inputs: Tensor, **options: Any) -> tuple[list[float], list[float]]:
    found = trainability(net, inputs, adam, **options)
    return found["plasticity/probe_steps"].tolist(), found["plasticity/probe_accuracy"].tolist()


def test_steps_are_those_of_a_plain_loop() -> None:
    net, inputs = fresh(), draw(40, 8)
    labels = torch.randint(4, (40,), generator=torch.Generator().manual_seed(0))
    twin = fresh()
    optimizer, shares = adam(twin), []
    for _ in range(201):
        outputs = twin(inputs)
        shares.append(float((outputs.argmax(1) == labels).float().mean()))
        optimizer.zero_grad()
        cross_entropy(outputs, labels).backward()
        optimizer.step()
    first = next(step for step, share in enumerate(shares) if share >= 0.9)
    [steps], [accuracy] = probed(net, inputs)
    assert 5 < steps == first < 100
    assert accuracy == pytest.approx((sum(shares[:first]) + 201 - first) / 201, abs=1e-6)
    [steps], [accuracy] = probed(net, inputs, budget=5)
    assert steps == 5 and accuracy == pytest.approx(np.mean(shares[:6]), abs=1e-6)


@pytest.mark.parametrize("kind", ["dead", "huge", "fresh"])
def test_a_bad_network_takes_longer_than_a_fresh_one(kind: str) -> None:
    """Nearly all units dead; weights a thousand times as large; and a second fresh one."""
    inputs, net = draw(40, 8), fresh(1)
    with torch.no_grad():
        if kind == "dead":
            net[2].bias[1:] = -1e3
        elif kind == "huge":
            for parameter in net.parameters():
                parameter.mul_(100)
    [usual], [usual_accuracy] = probed(fresh(), inputs)
    [steps], [accuracy] = probed(net, inputs)
    assert (steps > 2 * usual) is (kind != "fresh")
    assert (accuracy < usual_accuracy - 0.1) is (kind != "fresh")


def test_a_seed_of_a_stack_does_not_depend_on_its_mates() -> None:
    table = {"name": "mlp", "hidden": [32, 32]}
    torch.manual_seed(0)
    stack = networks.build(table, (1, 2, 4), 4, stack=3)
    with torch.no_grad():
        stack.get_parameter("linear1.bias")[1] = -1e3  # this seed never fits them
    inputs = draw(1, 40, 1, 2, 4).expand(3, -1, -1, -1, -1)
    steps, accuracies = probed(stack, inputs, budget=60)
    for slot in range(3):
        lone = networks.build(table, (1, 2, 4), 4, stack=1)
        lone.load_state_dict({n: t[slot : slot + 1] for n, t in stack.state_dict().items()})
        assert probed(lone, inputs[:1], budget=60)[0] == [steps[slot]]
        assert probed(lone, inputs[:1], budget=60)[1] == pytest.approx([accuracies[slot]], abs=0.01)
    assert steps[1] == 60 and max(steps[0], steps[2]) < 60


class Noisy(nn.Sequential):
    """Dropout and BatchNorm: draws and moves buffers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4)
        )


def test_network_optimizer_hooks_and_every_generator_are_left_bit_identical() -> None:
    net, inputs = Noisy(), draw(40, 8)
    called: list[int] = []
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    net[0].register_forward_hook(lambda *_: called.append(2))
    net(inputs).sum().backward()
    optimizer.step()
    called.clear()
    net[1].eval()
    before, facts = state(net)
    first = trainability(net, inputs, optimizer, budget=12)
    after, facts_after = state(net)
    assert facts == facts_after and called == []
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    torch.manual_seed(99)
    again = trainability(net, inputs, optimizer, budget=12)
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_a_copy_has_no_hooks_and_shares_nothing() -> None:
    net = Noisy()
    kept = net[0].register_forward_hook(lambda *_: None)
    twin = plain_copy(net)
    assert not any(child._forward_hooks for child in twin.modules())
    assert len(net[0]._forward_hooks) == 1
    mine = {t.data_ptr() for t in net.state_dict().values()}
    assert not mine & {t.data_ptr() for t in twin.state_dict().values()}
    kept.remove()


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (partial(torch.optim.AdamW, lr=torch.tensor(3e-3), capturable=True), "betas"),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), "momentum"),
        (partial(torch.optim.RMSprop, lr=0.01, alpha=0.9), "alpha"),
    ],
)
def test_a_fresh_optimizer_has_the_settings_of_the_old_one(make: Any, key: str) -> None:
    net = Noisy()
    one, two = list(net[0].parameters()), list(net[4].parameters())
    old = make([{"params": one}, {"params": two, "weight_decay": 0.5}])
    twin = plain_copy(net)
    new = like(old, net)(twin)
    assert type(new) is type(old) and not new.state
    for before, after in zip(old.param_groups, new.param_groups, strict=True):
        assert after["lr"] == pytest.approx(float(before["lr"])) and after[key] == before[key]
        assert after["weight_decay"] == before["weight_decay"]
    assert [id(p) for p in new.param_groups[1]["params"]] == [id(p) for p in twin[4].parameters()]
