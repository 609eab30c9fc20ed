"""Spaces of hyperparameters: read from tables, refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.methods.space import Range, combinations, is_grid, read_space


def test_lists_and_ranges() -> None:
    space = read_space(
        {"a": [1, "x"], "b": {"low": 1, "high": 9}, "c": {"low": 0.1, "high": 1, "log": True}}, "f"
    )
    assert space == {"a": (1, "x"), "b": Range(1, 9), "c": Range(0.1, 1, log=True)}
    assert Range(1, 9).is_whole and not Range(1, 9.0).is_whole
    assert not is_grid(space) and is_grid({"a": (1,)}) and is_grid({})


def test_combinations_in_order() -> None:
    assert combinations({"a": (1, 2), "b": (3, 4)}) == [
        {"a": a, "b": b} for a, b in [(1, 3), (1, 4), (2, 3), (2, 4)]
    ]
    assert combinations({}) == [{}]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (3, "f: 'a' is 3; write a list of values, or a range"),
        ([], "f: 'a' is \\[\\]; write a list"),
        ({"low": 1}, "a range has two finite numbers"),
        ({"low": 2, "high": 1}, "'low' not above"),
        ({"low": True, "high": 1}, "two finite numbers"),
        ({"low": 1, "high": float("inf")}, "two finite numbers"),
        ({"low": 1, "high": 2, "log": "yes"}, "'log' is true or false"),
        ({"low": 0, "high": 2, "log": True}, "begins above 0, not at 0"),
        ({"low": 1, "hihg": 2}, "unknown key 'hihg'. Did you mean 'high'"),
    ],
)
def test_what_is_no_space_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_space({"a": value}, "f")
