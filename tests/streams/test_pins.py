"""Every released task's data are pinned: other images, counts and labels are refused by name."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams import cache, data, pins
from ht_bench.streams.bundled import BUNDLED
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.dataset import Dataset, DatasetSource, make_dataset
from ht_bench.streams.task import Task

from . import layouts

Patch = pytest.MonkeyPatch
COLOURED = DatasetSource("tiny", "made up", "nobody/tiny", "img", "label", (3, 8, 8), 3)


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HT_BENCH_DATA", raising=False)


def images(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each class of its own colour, with some noise."""
    draw = np.random.default_rng(seed)
    colours = np.array([[20, 90, 200], [120, 60, 30], [220, 180, 90]])
    parts = {}
    for part, count in (("train", 12), ("test", 6)):
        labels = np.arange(count) % 3
        noise = draw.integers(-9, 10, (count, 3, 8, 8))
        parts[part] = (colours[labels][..., None, None] + noise).astype(np.uint8), labels
    return parts


def dataset(parts: Any, name: str = "tiny") -> Dataset:
    return make_dataset(name, parts["train"], parts["test"], 3)


@pytest.fixture
def pinned(monkeypatch: Patch) -> DatasetSource:
    """Known by counts and colours, as Tiny-ImageNet is."""
    colours = b"".join(pins.class_colours(*part) for part in images().values())
    source = dataclasses.replace(
        COLOURED, train=12, tests=6, balanced=True, colours=base64.b85encode(colours).decode()
    )
    monkeypatch.setitem(data._SOURCES, "tiny", source)
    return source


@pytest.mark.parametrize("name", list(task_files()))
def test_the_data_of_every_released_task_are_pinned(name: str) -> None:
    task = get_task(name)
    if not isinstance(task, Task) or task.status == "draft":
        return
    assert data.is_pinned(task.data.name)
    if task.data.name not in BUNDLED:
        source = data._SOURCES[task.data.name]
        assert source.train and source.tests
        assert source.balanced or source.sha256


def test_the_pins_have_a_value_for_every_class() -> None:
    source = data._SOURCES["tiny-imagenet"]
    assert len(base64.b85decode(source.colours)) == 2 * source.classes * 3
    assert (source.train, source.tests) == (500 * 200, 50 * 200)
    cifar100 = data._SOURCES["cifar100"]
    assert (cifar100.train, cifar100.tests) == (500 * 100, 100 * 100)


def test_what_is_pinned_is_accepted(pinned: DatasetSource) -> None:
    pins.check_content(pinned, dataset(images()))
    decoded = images()
    decoded["train"][0][:] += 1  # another decoder
    pins.check_content(pinned, dataset(decoded))


def fewer(parts: Any) -> None:
    parts["train"] = tuple(values[:-1] for values in parts["train"])


def uneven(parts: Any) -> None:
    parts["test"][1][0] = 1


def permuted(parts: Any) -> None:
    for _, labels in parts.values():
        labels[:] = (labels + 1) % 3


def random_images(parts: Any) -> None:
    parts["test"][0][:] = np.random.default_rng(1).integers(0, 256, parts["test"][0].shape)


FAULTS: dict[Any, str] = {
    fewer: r"not the whole tiny: 11 \+ 6 images \(training \+ test\), expected 12 \+ 6",
    uneven: "class 0 has 1 test images, expected 2 of each class",
    permuted: "the mean colour of class . differs by .* among the training images",
    random_images: "the mean colour of class . differs by .* among the test images",
}


@pytest.mark.parametrize("change", FAULTS, ids=lambda change: change.__name__)
def test_other_data_are_refused_everywhere(
    change: Any, pinned: DatasetSource, tmp_path: Path
) -> None:
    """At import, and where an older cache holds them."""
    parts = images()
    change(parts)
    path = layouts.LAYOUTS["folders of images"](tmp_path / "data", parts, ("a", "b", "c"))
    with pytest.raises(UsageError, match=FAULTS[change]):
        data.import_path("tiny", path)
    assert not cache.is_cached("tiny")
    cache.write(dataset(parts))
    with pytest.raises(UsageError, match="cached tiny is not the dataset of this name"):
        data.load("tiny")
    assert "is not the dataset" in dict(data.verify("tiny"))["tiny"]


@pytest.mark.parametrize("name", ["cifar100", "tiny-imagenet", "cifar10", "mnist"])
def test_a_few_random_images_are_no_known_dataset(name: str, tmp_path: Path) -> None:
    source = data._SOURCES[name]
    count = 2 * source.classes
    draw = np.random.default_rng(0)
    part = draw.integers(0, 256, (count, *source.shape), dtype=np.uint8), np.arange(count) % 10
    np.savez(tmp_path / "a.npz", x_train=part[0], y_train=part[1], x_test=part[0], y_test=part[1])
    with pytest.raises(UsageError, match=rf"not the whole {name}: {count} \+ {count} images"):
        data.import_path(name, tmp_path / "a.npz")
