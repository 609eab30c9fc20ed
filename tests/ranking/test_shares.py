"""Which task a suite's ranking follows."""

from __future__ import annotations

import numpy as np
import pytest

from ht_bench.ranking.shares import swamping, task_shares


def entries(spreads: dict[str, float], count: int = 12, seeds: int = 20) -> list[dict]:
    """Entries whose levels differ by a spread of their own on each task, with little noise."""
    draw = np.random.default_rng(0)
    return [
        {t: s * draw.normal() + 0.01 * draw.normal(size=seeds) for t, s in spreads.items()}
        for _ in range(count)
    ]


def test_shares_add_up_and_follow_the_spread() -> None:
    shares = task_shares(entries({"a": 1.0, "b": 1.0, "c": 0.1}))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["c"] < 0.15 < min(shares["a"], shares["b"])


def test_equal_tasks_bring_equal_parts() -> None:
    draw = np.random.default_rng(1)
    levels = draw.normal(size=8)
    same = [{"a": np.full(5, x), "b": np.full(5, x)} for x in levels]
    assert task_shares(same) == pytest.approx({"a": 0.5, "b": 0.5})


def test_one_run_far_out_does_not_decide() -> None:
    """Winsorized: a run at a thousand counts as the quartile of the entry's runs."""
    calm = entries({"a": 1.0, "b": 0.1})
    calm[0]["b"][0] = 1_000
    assert task_shares(calm)["a"] > 0.8
    assert swamping(task_shares(calm)) == ["a"]


def test_of_two_tasks_one_always_brings_half() -> None:
    assert swamping({"a": 0.55, "b": 0.45}) == [] and swamping({"a": 0.8, "b": 0.2}) == ["a"]
    assert swamping({"a": 0.55, "b": 0.25, "c": 0.2}) == ["a"] and swamping({}) == []


def test_too_few_or_equal_entries_have_none() -> None:
    assert task_shares(entries({"a": 1.0})[:2]) == {}
    assert task_shares([{"a": np.ones(4), "b": np.ones(4)}] * 5) == {}
