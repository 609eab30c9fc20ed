"""Gradual shifts: a permutation of which only a share changes from phase to phase."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams.data import load
from ht_bench.streams.stream import Stream
from ht_bench.streams.task import Task, parse_task


def task(phases: list[dict[str, Any]], family: str) -> Task:
    table = {
        "name": "gradual-v1",
        "family": family,
        "data": {"name": "digits"},
        "net": {"name": "mlp"},
        "optimizer": {"lr": 1e-3},
        "phases": [{"updates": 1, **phase} for phase in phases],
    }
    return parse_task(table, "gradual")


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_gradual_shift_moves_its_share_of_the_pixels(split: Any) -> None:
    """From the order of the phase before, the true one at first; the test images move alike."""
    phases = [{"new": 1.0, "inputs": "permuted", "change": 0.25}]
    phases += [{"inputs": "permuted", "change": share} for share in (0.25, 1.0, 0.25)]
    phases += [{"inputs": "true"}, {"inputs": "permuted", "change": 0.25}]
    stream = Stream(task(phases, "permuted"), load("digits"), 0, split)
    before = np.arange(64)
    for index, share in enumerate((0.25, 0.25, 1.0, 0.25)):
        order = stream.phase(index).permutation
        assert order is not None
        np.testing.assert_array_equal(np.sort(order), np.arange(64))
        np.testing.assert_array_equal(order, stream.test(index).permutation)
        moved = int((order != before).sum())
        assert moved <= 64 * share and moved > 64 * share / 2
        before = order
    after_the_true_order = stream.phase(5).permutation
    assert after_the_true_order is not None
    assert (after_the_true_order == np.arange(64)).sum() >= 48


def test_a_gradual_shift_renames_its_share_of_the_classes() -> None:
    data = load("digits")
    phases = [{"new": 1.0, "labels": "permuted", "change": 0.4}] + 5 * [
        {"labels": "permuted", "change": 0.4}
    ]
    stream = Stream(task(phases, "permuted"), data, 0)
    before = np.arange(10)
    for index in range(6):
        names = dict(zip(data.test_labels, stream.test(index).labels, strict=True))
        order = np.array([names[label] for label in range(10)])
        assert sorted(order) == list(range(10)) and (order != before).sum() <= 4
        before = order
    assert (before != np.arange(10)).any()


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ({"inputs": "permuted", "change": 0.0}, "'change' is 0; it lies above 0"),
        ({"inputs": "permuted", "change": 1.5}, "'change' is 1.5; it lies above 0, 1 at most"),
        ({"change": 0.5}, "nothing is permuted; leave it out"),
        ({"labels": "random", "change": 0.5}, "nothing is permuted; leave it out"),
    ],
)
def test_a_change_that_means_nothing_is_refused(phase: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        task([{"new": 1.0, **phase}], "permuted")


@pytest.mark.parametrize("phase", [{"inputs": "permuted", "change": 0.02}, {"labels": "permuted"}])
def test_a_change_that_moves_nothing_is_refused(phase: dict[str, Any]) -> None:
    """One pixel of 64, or one class of ten, has nowhere to go."""
    asked = task([{"new": 1.0, "change": 0.1, **phase}], "permuted")
    with pytest.raises(UsageError, match="moves none of them .phase 0.; raise it to 0"):
        Stream(asked, load("digits"), 0)
