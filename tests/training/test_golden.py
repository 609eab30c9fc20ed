"""Golden curves: numbers of two tiny runs, which decide the comparability epoch."""

from __future__ import annotations

import pytest

from ht_bench.doctor.golden import GOLDEN, SEEDS, TOLERANCE, golden_job, largest_difference
from ht_bench.running.job import run_stack


@pytest.mark.parametrize("method", GOLDEN)
def test_golden_curves(method: str) -> None:
    """Numbers of two tiny runs, to 1e-4: they decide the comparability epoch.

    When this fails, a change has moved what runs produce. If that is not what you want, undo it.
    If it is, move the epoch deliberately: raise `major.minor` in ht_bench/version.py, say so in
    CHANGELOG.md, and only then write the new numbers into ht_bench/doctor/golden.py.
    """
    [record, _] = run_stack(golden_job(method))
    assert record["seed"] == SEEDS[0]
    away, key = largest_difference(method, record)
    assert away <= TOLERANCE, key


@pytest.mark.parametrize("key", ["test/loss", "train/loss", "test/accuracy"])
@pytest.mark.parametrize("place", [1, 9, 11])
def test_every_number_counts(key: str, place: int) -> None:
    [record, _] = run_stack(golden_job("none"))
    record["curve"][key][place] += 2e-4
    assert largest_difference("none", record)[0] > TOLERANCE
    record["curve"][key][place] = None
    assert largest_difference("none", record) == (float("inf"), key)
