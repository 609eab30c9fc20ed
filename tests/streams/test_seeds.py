"""Seeds as text and back; what is no seed gets a sentence."""

from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams.seeds import LARGEST_RANGE, format_seeds, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", (3,)),
        (" 100-103 , 7", (100, 101, 102, 103, 7)),
        ("-5", (-5,)),
        ("-3--1", (-3, -2, -1)),
        ("-2-1", (-2, -1, 0, 1)),
        (4, (4,)),
        (range(2), (0, 1)),
        ([5, 5, 6], (5, 6)),
        ("2,1-3", (2, 1, 3)),
        (np.arange(2), (0, 1)),
        (2**70, (2**70,)),
        (np.int64(3), (3,)),
        ([np.int64(3), 4], (3, 4)),
    ],
)
def test_seeds_are_read_in_order_and_once(text: Any, seeds: tuple[int, ...]) -> None:
    found = parse_seeds(text)
    assert found == seeds
    assert {type(seed) for seed in found} == {int}
    assert parse_seeds(format_seeds(seeds)) == seeds


@pytest.mark.parametrize(
    ("seeds", "text"),
    [((100, 101, 102, 7), "100-102,7"), ((3, 2, 1), "3,2,1"), ((-2, -1), "-2--1"), ((), "")],
)
def test_seeds_are_written_shortly(seeds: tuple[int, ...], text: str) -> None:
    assert format_seeds(seeds) == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a seed; write e.g. 100-119"),
        ("a", "'a' is not a seed"),
        ("1-", "'1-' is not a seed"),
        ("1,,2", "'' is not a seed"),
        ("1.5", "'1.5' is not a seed"),
        ("5-3", "the range '5-3' runs backwards; write 3-5"),
        (None, "None is not a list of seeds"),
        (True, "True is not a list of seeds"),
        ([], "no seeds were given"),
        (["1"], "'1' is not a seed; give integers"),
        ([1.5], "1.5 is not a seed; give integers"),
    ],
)
def test_what_is_no_seed_is_named(text: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=f"here: {sentence}"):
        parse_seeds(text, "here")


def test_a_range_too_long_to_be_meant_is_refused() -> None:
    assert len(parse_seeds(f"1-{LARGEST_RANGE}")) == LARGEST_RANGE
    with pytest.raises(UsageError, match=r"'0-100000' has 100,001 seeds; at most 100,000"):
        parse_seeds(f"0-{LARGEST_RANGE}")
    with pytest.raises(UsageError, match="'0-999999999999' has"):
        parse_seeds("0-999999999999")
