"""Class-incremental streams of data whose classes are unequal: each seed's own plan, or a sentence.

Without it, the stack of seeds failed inside a method that had nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.streams import cache, data
from ht_bench.streams.dataset import Dataset, DatasetSource, make_dataset
from ht_bench.streams.stream import Stream
from ht_bench.streams.task import Task, parse_task
from ht_bench.testing import check_task

EQUAL, TEST = [0, 1, 2] * 20, [0, 1, 2] * 4


def made(train: Sequence[int], test: Sequence[int]) -> Dataset:
    draw = np.random.default_rng(0)

    def part(labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(labels), 1, 4, 4)
        return draw.integers(0, 256, shape, dtype=np.uint8), np.array(labels)

    return make_dataset("uneven", part(train), part(test), 3)


def task(classes: Sequence[int] = (1, 2), stack: int = 1, **phase: Any) -> Task:
    table = {
        "name": "uneven-v1",
        "family": "class-incremental",
        "seeds": "100-103",
        "data": {"name": "uneven"},
        "net": {"name": "mlp", "hidden": [4]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 8, "stack": stack, "points": 2},
        "phases": [{"classes": count, "epochs": 1, **phase} for count in classes],
    }
    made = parse_task(table, "uneven")
    assert isinstance(made, Task)
    return made


@pytest.mark.parametrize(
    ("train", "test", "classes", "stack", "split", "sentence"),
    [
        ([0] * 3 + [1] * 9 + [2], TEST, (1, 2), 2, "test", "have 1 to 9 training .* set stack = 1"),
        (EQUAL, [0, 1, 1, 2], (1, 2), 2, "test", "have 1 to 2 test examples"),
        (EQUAL, TEST, (1, 2), 2, "validation", "training examples, so that seeds"),
        ([0, 1] * 9, TEST, (1, 2), 1, "test", r"class 2 …\) have no training examples"),
        ([0, 1] * 9, TEST, (2, 1), 1, "test", "have no training examples"),
        (EQUAL, [0, 1], (1, 2), 1, "test", r"class 2 …\) have no test examples"),
        ([0] * 20 + [1, 2], TEST, (1, 2), 1, "validation", "have no (training|validation) exam"),
    ],
)
def test_what_no_seed_could_train_is_a_sentence_about_the_task(
    train: list[int], test: list[int], classes: Any, stack: int, split: Any, sentence: str
) -> None:
    with pytest.raises(UsageError, match=f"Task uneven-v1: .*{sentence}"):
        Stream(task(classes, stack), made(train, test), 100, split)


@pytest.mark.parametrize(
    ("train", "test", "classes", "stack", "split"),
    [
        (EQUAL, TEST, (1, 2), 2, "test"),
        ([0] * 3 + [1] * 9 + [2], TEST, (1, 2), 1, "test"),
        ([0] * 3 + [1] * 9 + [2], [0, 1, 1, 2], (3,), 2, "test"),
        ([0, 1] * 9, [0, 1], (2,), 1, "test"),
        ([0, 1, 2], TEST, (1, 2), 2, "test"),
    ],
)
def test_what_every_seed_can_train_is_run(
    train: list[int], test: list[int], classes: Any, stack: int, split: Any, monkeypatch: Any
) -> None:
    """Also one example a class, and a class that nobody has, where a phase brings others too."""
    source = DatasetSource("uneven", "", "", "", "", (1, 4, 4), 3)
    monkeypatch.setitem(data._SOURCES, "uneven", source)
    monkeypatch.setattr("ht_bench.running.kinds.dataset", data.load)
    cache.write(made(train, test))
    check_task(task(classes, stack))
    result = ht_bench.evaluate("none", task(classes, stack), split=split, progress=False)
    assert [record["status"] for record in result.records] == ["finished"] * 4


def test_a_wrong_label_needs_another_class() -> None:
    one = made([0] * 9, [0] * 3)
    alone = make_dataset(
        "uneven", (one.train_images, one.train_labels), (one.test_images, one.test_labels), 1
    )
    wrong = task((1,), wrong=0.5)
    with pytest.raises(UsageError, match="has one class, so that no label can be a wrong one"):
        Stream(wrong, alone, 100)
