"""What `ht-bench tune` says of a choice that is not sure."""

from __future__ import annotations

from typing import Any

import pytest

from ht_bench.commands.tune import remarks
from ht_bench.running.tune import Search, Trial
from ht_bench.streams.catalog import get_task

LARGEST = "factor = 0.5 is the largest tried; a larger one may be better."


def said(*trials: tuple[float, dict[str, Any]], sampler: str = "grid") -> list[str]:
    tried = tuple(Trial(values, mean, 0.1) for mean, values in trials)
    return remarks(Search("m", get_task("warm-start-digits-v1"), (0, 1), tried, sampler=sampler))


def factors(*means: float, values: Any = (0.1, 0.3, 0.5), **named: Any) -> list[str]:
    return said(*((m, {"factor": v}) for m, v in zip(means, values, strict=True)), **named)


def test_the_edge_of_a_grid() -> None:
    assert factors(0.1, 0.2, 0.3) == [LARGEST]
    smallest = "factor = 0.1 is the smallest tried; a smaller one may be better."
    assert factors(0.3, 0.2, 0.1) == [smallest]
    assert factors(0.1, 0.2, 0.3, sampler="random subset of a grid") == [LARGEST]


@pytest.mark.parametrize(
    ("means", "named"),
    [
        ((0.1, 0.3, 0.2), {}),
        ((0.1, 0.2, 0.3), {"sampler": "TPE"}),
        ((0.1, 0.3), {"values": (0.1, 0.5)}),
        ((0.3, 0.2, 0.1), {"values": (0.0, 0.1, 0.5)}),
        ((0.1, 0.2, 0.3), {"values": (0.1, 0.3, "auto")}),
        ((0.1, 0.2, 0.3), {"values": (False, 0.3, True)}),
        ((0.1, 0.2, 0.3), {"values": ([1], [2], [3])}),
    ],
)
def test_nothing_to_say(means: Any, named: Any) -> None:
    assert factors(*means, **named) == []


def test_others_with_the_same_mean() -> None:
    """An edge is none where a value within does as well."""
    assert factors(0.1, 0.3, 0.3) == ["factor = 0.5 has the same mean."]
    assert factors(0.3, 0.3, 0.3) == ["2 others have the same mean."]
    grid = [
        (v / 10 * (w != 2), {"factor": v / 10, "every": w}) for v in (1, 3, 5) for w in (1, 2, 3)
    ]
    assert said(*grid) == ["factor = 0.5, every = 3 has the same mean.", LARGEST]
    assert said((0.5, {})) == []
