"""At one seed every method sees the same weights, data and order; what a run says about itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from ht_bench.records.keys import BASIC
from ht_bench.records.record import Record
from ht_bench.running.job import StackJob, run_stack

MakeJob = Callable[..., StackJob]
Trained = Callable[..., list[Record]]
BOUNDARY = ("full-reset", "head-reset", "shrink-perturb")
OTHERS = ("hare-tortoise", "ema", "l2", "l2-init", "self-distillation", "early-stop")
DIAGNOSTICS = set(BASIC)


def points(record: Record, phase: int | None = None) -> dict[str, list[Any]]:
    """The curve's values before any step (None), or up to the end of a phase."""
    curve = record["curve"]
    kept = 1 if phase is None else curve["phase"].index(phase + 1)
    return {key: values[:kept] for key, values in curve.items()}


@pytest.mark.parametrize("method", BOUNDARY)
def test_methods_of_the_boundary_share_the_first_phase(method: str, trained: Trained) -> None:
    for plain, record in zip(trained(), trained(method), strict=True):
        assert points(record, 0) == points(plain, 0)
        assert record["curve"] != plain["curve"]


@pytest.mark.parametrize("method", OTHERS)
def test_all_methods_start_from_the_same_weights(method: str, trained: Trained) -> None:
    for plain, record in zip(trained(), trained(method), strict=True):
        start = points(record)
        assert {key: start[key] for key in points(plain)} == points(plain)
        assert record["curve"] != plain["curve"]


def test_resets_at_one_seed_draw_the_same_fresh_weights(trained: Trained) -> None:
    """Shrinking by all of the weights is a full reset, buffers included, save for moments."""
    changes = {"amount": 1.0, "toward": "fresh"}
    pairs = zip(trained("full-reset"), trained("shrink-perturb", changes), strict=True)
    for reset, shrunk in pairs:
        assert shrunk["curve"]["test/loss"] == pytest.approx(reset["curve"]["test/loss"], rel=1e-4)


def assert_diagnosed(record: Record) -> None:
    table = record["diagnostics"]
    assert set(table) == DIAGNOSTICS | {"phase", "step"}
    assert table["phase"] == [0, 1, 2] and table["step"] == [12, 19, record["curve"]["step"][-1]]
    for key in DIAGNOSTICS:
        assert all(math.isfinite(value) for value in table[key]), key
    assert all(0 <= value <= 1 for value in table["plasticity/dormant_fraction"])
    assert all(value >= 1 for value in table["plasticity/effective_rank"])
    assert all(value > 0 for value in table["weights/distance_from_init"])


def test_diagnostics_of_a_stack_are_whole(trained: Trained) -> None:
    first, second = trained()
    assert_diagnosed(first)
    assert_diagnosed(second)
    assert first["diagnostics"]["weights/norm"] != second["diagnostics"]["weights/norm"]


def test_diagnostics_of_a_lone_cnn_are_whole(
    make_job: MakeJob, cnn_changes: dict[str, Any]
) -> None:
    [record] = run_stack(make_job(seeds=(100,), **cnn_changes))
    assert_diagnosed(record)
