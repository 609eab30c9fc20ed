"""Early stopping, and the methods that only change the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ht_bench import networks
from ht_bench.methods.architecture import ConcatenatedReLU, LayerNorm
from ht_bench.methods.base import Method
from ht_bench.methods.early_stop import EarlyStop
from ht_bench.networks.mlp import StackedLayerNorm
from ht_bench.networks.parts import CReLU

from .conftest import assert_equal, copied, make_run

MLP = {"name": "mlp", "hidden": [16, 12]}
CNN = {"name": "cnn", "channels": [4], "hidden": [8]}


# ---- early stopping ----


def attached(fraction: float) -> EarlyStop:
    net = nn.Linear(1, 1)
    return EarlyStop(fraction).attach(net, torch.optim.SGD(net.parameters(), lr=1.0))


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.5, [50, 3, 9]), (0.25, [25, 1, 9]), (0.0, [0, 0, 9]), (1.0, [100, 7, 9])],
)
def test_every_phase_but_the_last_is_cut(fraction: float, expected: list[int]) -> None:
    method = attached(fraction)
    budgets = [100, 7, 9]
    assert [method.enter_phase(i, steps, 4, 3) for i, steps in enumerate(budgets)] == expected


def test_without_a_loop_that_tells_phases_nothing_is_cut() -> None:
    assert attached(0.5).phase_steps(0, 100) == 100


@pytest.mark.parametrize("net", [MLP, CNN])
def test_weights_stand_still_from_the_cut_to_the_end_of_the_phase(net: dict[str, Any]) -> None:
    """12 steps a phase, points after 4, 8 and 12: half of the first phase is 6 steps."""
    run, plain = make_run(EarlyStop(0.5), net), make_run(Method(), net)
    assert (run.steps_taken, plain.steps_taken) == (6 + 12, 24)
    points, whole = run.history.points, plain.history.points
    assert [p["step"] for p in points] == [0, 4, 8, 12, 12, 16, 20, 24]
    assert points[:2] == whole[:2]  # nothing differs before the cut
    still = ("test/accuracy", "test/loss", "train/loss")
    assert [points[3][key] for key in still] == [points[2][key] for key in still]
    assert points[2]["test/loss"] != whole[2]["test/loss"]
    assert points[6]["test/loss"] != points[5]["test/loss"]


def test_what_the_first_phase_trains_is_what_none_trains_in_that_many_steps() -> None:
    """The learning rate's warm-up keeps the whole phase's length."""
    optimizer = {"lr": 1e-2, "warmup": 0.0}
    phases = [{"new": 0.5, "wrong": 0.5, "updates": 6}, {"new": 0.5, "updates": 12}]
    stopped = make_run(EarlyStop(0.5), MLP, optimizer=optimizer)
    short = make_run(Method(), MLP, optimizer=optimizer, phases=phases)
    assert_equal(short.module.state_dict(), stopped.module.state_dict())


# ---- LayerNorm and CReLU ----


@pytest.mark.parametrize(
    ("method", "net", "kind", "count"),
    [
        (LayerNorm, MLP, StackedLayerNorm, 2),
        (LayerNorm, CNN, nn.LayerNorm, 1),
        (ConcatenatedReLU, MLP, CReLU, 2),
        (ConcatenatedReLU, CNN, CReLU, 2),
    ],
)
def test_the_loop_trains_the_network_that_the_method_asks_for(
    method: type[Method], net: dict[str, Any], kind: type[nn.Module], count: int
) -> None:
    run = make_run(method(), net, trained=False)
    assert sum(isinstance(child, kind) for child in run.module.modules()) == count
    owned = [id(p) for group in run.optimizer.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in run.module.parameters())
    start = copied(run.recorder.initial)
    run.train()
    assert all(not torch.equal(p, start[name]) for name, p in run.module.named_parameters())
    plain = make_run(Method(), net, trained=False)
    assert not any(isinstance(child, kind) for child in plain.module.modules())


def test_layer_norm_stands_between_each_hidden_linear_and_its_activation() -> None:
    module = make_run(LayerNorm(), MLP, trained=False).module
    names = [name for name, _ in module.named_children()]
    hidden = ["linear0", "norm0", "activation0", "linear1", "norm1", "activation1"]
    assert names == [*hidden, "output"]


def test_crelu_keeps_the_width_of_the_features_with_half_the_units() -> None:
    module = make_run(ConcatenatedReLU(), MLP, trained=False).module
    shapes = {name: tuple(module.get_parameter(f"{name}.weight").shape) for name in module.layers()}
    assert shapes == {"linear0": (2, 8, 64), "linear1": (2, 6, 16), "output": (2, 10, 12)}


def test_a_method_goes_with_the_networks_own_options() -> None:
    """`network` is merged into the table: what the task says otherwise stays."""
    table = {**CNN, "activation": "crelu", **LayerNorm.network}
    kinds = [type(child) for child in networks.build(table, (1, 8, 8), 10).modules()]
    assert CReLU in kinds and nn.LayerNorm in kinds


@pytest.mark.parametrize("method", [LayerNorm, ConcatenatedReLU])
def test_a_task_that_has_the_change_already_trains_as_none(method: type[Method]) -> None:
    """Beside the network the methods do nothing."""
    run, plain = make_run(method(), MLP), make_run(Method(), {**MLP, **method.network})
    assert run.history.points == plain.history.points
