"""Orders and augmentation of epochs: drawn in blocks, asked for in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ht_bench.streams.dataset import make_dataset
from ht_bench.streams.stream import Stream
from ht_bench.streams.task import Task, parse_task

AUGMENTED = [{"new": 1.0, "augment": True}]


def made_up(examples: int, phases: list[dict[str, Any]] = AUGMENTED) -> Stream:
    """A stream of seed 7 over so many training examples."""
    images, labels = np.zeros((examples, 1, 4, 4), np.uint8), np.arange(examples) % 5
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(examples) % 256, np.arange(examples) // 256
    data = make_dataset("made-up", (images, labels), (images[:10], labels[:10]), 5)
    table = {
        "name": "made-up-v1",
        "family": "warm-start",
        "data": {"name": "made-up"},
        "net": {"name": "mlp"},
        "optimizer": {"lr": 1e-3},
        "phases": [{"updates": 1, **phase} for phase in phases],
    }
    task = parse_task(table, "made-up")
    assert isinstance(task, Task)
    return Stream(task, data, 7)


@pytest.mark.parametrize(("train", "epochs"), [(30, 64), (2000, 32), (40_000, 1), (70_000, 1)])
def test_epochs_are_drawn_in_blocks_and_asked_for_in_any_order(train: int, epochs: int) -> None:
    """A block is as many epochs as make 65,536 examples, at most 64, at least one."""
    stream, again = made_up(train), made_up(train)
    assert stream.block_epochs(0) == epochs
    orders, draws = stream.orders(0, 1), stream.augmentations(0, 1)
    assert orders.shape == (epochs, train) and (orders.dtype, draws.dtype) == (np.int64, np.uint8)
    assert (np.sort(orders, axis=1) == np.arange(train)).all()
    assert len({row.tobytes() for row in orders} | {stream.orders(0, 0)[0].tobytes()}) == epochs + 1
    for row in {epochs - 1, 0}:
        again.order(0, 0), again.augmentation(0, 0)  # another block was held
        np.testing.assert_array_equal(again.order(0, epochs + row), orders[row])
        shifts, flips = again.augmentation(0, epochs + row)
        np.testing.assert_array_equal(np.c_[shifts, flips], draws[row])
    with pytest.raises(ValueError, match="read-only"):
        again.order(0, epochs)[0] = 0  # it would be another order when asked for again


def test_orders_are_the_same_on_every_machine() -> None:
    stream = made_up(200, [{"new": 0.03, "augment": True}, {"new": 0.01}])
    assert stream.orders(1, 2)[63].tolist() == [5, 7, 6, 1, 3, 4, 0, 2]
    assert stream.augmentations(0, 0)[1, :3].tolist() == [[5, 6, 0], [8, 4, 0], [1, 4, 0]]


def test_orders_and_augmentation_are_uniform() -> None:
    """Chi-square of where each of 30 examples stands, and of each shift and flip."""
    stream = made_up(30)
    orders = np.concatenate([stream.orders(0, block) for block in range(20)])
    draws = np.concatenate([stream.augmentations(0, block) for block in range(20)])
    counts = [np.bincount(place, minlength=30) for place in orders.T]
    counts += [np.bincount(draws[..., part].ravel(), minlength=9) for part in (0, 1)]
    counts += [np.bincount(draws[..., 2].ravel(), minlength=2)]
    for count in counts:
        expected, free = count.sum() / len(count), len(count) - 1
        statistic = ((count - expected) ** 2 / expected).sum()
        assert abs(statistic - free) < 5 * np.sqrt(2 * free)
