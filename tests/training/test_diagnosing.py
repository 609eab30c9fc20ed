"""What a run measures beside its curve, when, and that no bit of training depends on it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.networks.change import Seen, effective_learning_rate, see
from ht_bench.records.keys import COSTLY, DIAGNOSTICS
from ht_bench.records.record import Record, without_cost
from ht_bench.running.job import StackJob, run_stack
from ht_bench.training import diagnosing
from ht_bench.training.diagnosing import Schedule
from ht_bench.training.history import Interrupted, Observer

MakeJob = Callable[..., StackJob]
Trained = Callable[..., list[Record]]
ALL = Schedule("all", 2)


@pytest.fixture(scope="module", autouse=True)
def _shortened() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosing, "trainability", partial(diagnosing.trainability, budget=10))
        patch.setattr(diagnosing, "curvature", partial(diagnosing.curvature, steps=5))
        yield


@pytest.fixture(scope="module")
def diagnosed() -> list[Record]:
    from .conftest import resolve, tiny

    job = StackJob(tiny(), resolve("none"), (100, 101), diagnostics=ALL)
    with torch.random.fork_rng(devices=[]):
        return run_stack(job)


# ---- when ----


@pytest.mark.parametrize(
    ("per_phase", "times"),
    [(1, {12}), (2, {8, 12}), (3, {4, 8, 12}), (9, {4, 8, 12})],
)
def test_times_are_spread_over_a_phases_points_and_end_with_it(
    per_phase: int, times: set[int]
) -> None:
    assert Schedule("basic", per_phase).times([4, 8, 12]) == times


@pytest.mark.parametrize("wrong", [("none", 1), ("all", 0)])
def test_a_wrong_schedule_is_told(wrong: tuple[str, int]) -> None:
    with pytest.raises(UsageError, match="choose basic or all|give 1 or more"):
        Schedule(*wrong)


def test_costly_diagnostics_change_no_bit_of_training(
    diagnosed: list[Record], trained: Trained
) -> None:
    for plain, record in zip(trained(), diagnosed, strict=True):
        same = [{k: v for k, v in r.items() if k != "diagnostics"} for r in (plain, record)]
        assert without_cost(same[0]) == without_cost(same[1])
        few, table = plain["diagnostics"], record["diagnostics"]
        assert not set(COSTLY) & set(few) and set(table) == {*DIAGNOSTICS, "phase", "step"}
        ends = [table["step"].index(step) for step in few["step"]]
        for key, values in few.items():
            assert [table[key][end] for end in ends] == values, key


def test_they_are_measured_on_schedule_and_are_numbers(diagnosed: list[Record]) -> None:
    for record in diagnosed:
        table = record["diagnostics"]
        assert table["phase"] == [0, 0, 1, 1, 2, 2] and table["step"][::-2] == [27, 19, 12]
        assert all(math.isfinite(value) for key in DIAGNOSTICS for value in table[key])
        tops, lows = table["curvature/top_eigenvalue"], table["curvature/lowest_eigenvalue"]
        assert all(top > low for top, low in zip(tops, lows, strict=True))
        assert all(0 < value <= 10 for value in table["plasticity/probe_steps"])


@pytest.mark.parametrize("steps", [6, 12, 13])
def test_a_resumed_run_has_the_same_diagnostics(
    steps: int, diagnosed: list[Record], make_job: MakeJob, tmp_path: Path
) -> None:
    job = dataclasses.replace(make_job(out=tmp_path), diagnostics=ALL)
    asked = iter(range(1, 1000))
    with pytest.raises(Interrupted):
        run_stack(job, Observer(stop=lambda: next(asked) == steps))
    for record, whole in zip(run_stack(job), diagnosed, strict=True):
        assert record["diagnostics"] == whole["diagnostics"]


def test_a_run_that_goes_on_with_more_leaves_out_what_was_not_measured(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job, asked = make_job(out=tmp_path), iter(range(1, 1000))
    with pytest.raises(Interrupted):
        run_stack(job, Observer(stop=lambda: next(asked) == 14))
    record = run_stack(dataclasses.replace(job, diagnostics=Schedule("all")))[0]
    eigenvalues = record["diagnostics"]["curvature/top_eigenvalue"]
    assert eigenvalues[0] is None and None not in eigenvalues[1:]
    assert None not in record["diagnostics"]["weights/norm"]


def test_every_key_is_explained_in_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`.*`) \| .+ \|$", text, re.MULTILINE)
    assert set(DIAGNOSTICS) <= set(re.findall(r"`([^`]+)`", " ".join(table)))


# ---- what ----


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    ],
)
def test_the_effective_learning_rate_is_that_of_the_step_taken(make: Any) -> None:
    module, inputs = net(), torch.randn(8, 4)
    optimizer = make(module.parameters())
    assert effective_learning_rate(module, optimizer).isnan().all()
    for _ in range(3):
        before = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
        optimizer.zero_grad()
        module(inputs).square().mean().backward()
        optimizer.step()
    after = nn.utils.parameters_to_vector(module.parameters()).detach()
    expected = (after - before).norm() / after.norm()
    found = effective_learning_rate(module, optimizer)
    torch.testing.assert_close(found, expected[None], rtol=1e-4, atol=0)


def test_decay_is_no_part_of_the_effective_learning_rate_and_other_optimizers_have_none() -> None:
    module = net()
    found = []
    for decay in (0.0, 10.0):
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.0, weight_decay=decay)
        module(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.1
        found.append(effective_learning_rate(module, optimizer))
    torch.testing.assert_close(found[0], found[1])
    other = torch.optim.Adagrad(module.parameters())
    other.step()
    assert effective_learning_rate(module, other).isnan().all()


def test_churn_by_hand() -> None:
    """‖(0, 3) − (4, 0)‖ / ‖(4, 0)‖ = 5/4; of two answers one is another."""
    before = Seen(torch.tensor([[[4.0], [0.0]]]), torch.tensor([[0, 1]]))
    after = Seen(torch.tensor([[[0.0], [3.0]]]), torch.tensor([[2, 1]]))
    churn = before.churn(after)
    assert churn["plasticity/feature_churn"].tolist() == [1.25]
    assert churn["plasticity/output_churn"].tolist() == [0.5]


def test_churn_is_of_the_last_hidden_features_and_of_nothing_without_training() -> None:
    module, inputs = net(), torch.randn(16, 4)
    first = see(module, inputs)
    assert torch.equal(first.features[0], module[1](module[0](inputs)))
    assert all(value.item() == 0 for value in first.churn(see(module, inputs)).values())
    with torch.no_grad():
        module[2].weight.mul_(-1)
        module[2].bias.mul_(-1)
    later: dict[str, Tensor] = first.churn(see(module, inputs))
    assert later["plasticity/feature_churn"].item() == 0
    assert later["plasticity/output_churn"].item() == 1
