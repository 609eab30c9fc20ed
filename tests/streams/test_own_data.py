"""Datasets from outside: what a function may return, and the sentence for what it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ht_bench
from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.streams import data
from ht_bench.streams.dataset import content_hash

PIXELS = np.arange(2 * 3 * 4 * 4).reshape(6, 4, 4).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.datasets, "_entries", dict(registry.datasets._entries))


def load(images: Any = PIXELS, labels: Any = LABELS, *more: Any) -> Any:
    name = f"mine-{len(registry.datasets._entries)}"
    ht_bench.register_dataset(name)(lambda: ((images, labels), (images, labels), *more))
    return data.load(name)


def test_arrays_become_a_dataset_with_its_hash() -> None:
    found = load()
    assert found.train_images.shape == (6, 1, 4, 4) and found.train_images.dtype == np.uint8
    assert found.classes == 3 and found.max_value == 255
    assert found.sha256 == content_hash(
        found.train_images, found.train_labels, found.test_images, found.test_labels
    )
    order = [3, 0, 5, 1, 4, 2]
    assert load(PIXELS[order], LABELS[order]).sha256 == found.sha256  # the order says nothing
    assert load(PIXELS, LABELS[order]).sha256 != found.sha256
    assert load(PIXELS, LABELS, 7).classes == 7


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (PIXELS.reshape(6, 16), (1, 1, 16)),
        (PIXELS.reshape(6, 1, 4, 4).astype(np.int64), (1, 4, 4)),
        (np.repeat(PIXELS[:, None], 3, 1), (3, 4, 4)),
    ],
)
def test_shapes(images: Any, shape: tuple[int, ...]) -> None:
    assert load(images).train_images.shape[1:] == shape


def test_floating_pixels_keep_256_levels() -> None:
    levels = np.linspace(0, 1, 96, dtype=np.float32).reshape(6, 16)
    found = load(levels).train_images.ravel()
    assert sorted(found) == sorted(np.rint(levels.ravel() * 255))
    assert np.array_equal(load(PIXELS / 255).train_images, load(PIXELS).train_images)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (PIXELS / 10.0, LABELS, "pixels of 0 to 9.5 as float64; scale them to 0 … 1"),
        (PIXELS * np.nan, LABELS, "scale them to 0 … 1"),
        (PIXELS.astype(int) * 9, LABELS, "scale them to 0 … 255"),
        (PIXELS.astype(complex), LABELS, "images of complex128; give uint8"),
        (np.zeros((6, 8, 8, 3), np.uint8), LABELS, "channels come first"),
        (np.zeros(6, np.uint8), LABELS, "give .N, C, H, W."),
        ([[1], [1, 2]], LABELS, "of uneven arrays"),
        (PIXELS, LABELS[:5], "6 images and labels of shape .5,."),
        (PIXELS, LABELS[:, None], "labels of shape .6, 1."),
        (PIXELS, LABELS / 2, "labels of float64"),
        (PIXELS, LABELS - 1, "the least -1; classes are whole numbers from 0"),
    ],
)
def test_refused_arrays(images: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load(images, labels)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda: None, "returns NoneType, not .*train images"),
        (lambda: (PIXELS, LABELS), "returns ndarrays, not"),
        (lambda: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (lambda: ((PIXELS, LABELS), (PIXELS[:, :2], LABELS)), "make them alike"),
        (lambda: ((PIXELS, LABELS), (PIXELS, LABELS), 2), "labels up to 2 for 2 classes"),
        (3, "is int, not a function"),
    ],
)
def test_refused_functions(function: Any, sentence: str) -> None:
    registry.datasets._entries["mine"] = function
    with pytest.raises(UsageError, match=sentence):
        data.load("mine")


def test_a_function_is_known_by_name_and_is_asked_once() -> None:
    calls = []

    @ht_bench.register_dataset("mine")
    def mine() -> Any:
        """Six pictures of nothing.

        More words.
        """
        calls.append(1)
        return (PIXELS, LABELS), (PIXELS, LABELS)

    entry = next(entry for entry in data.known() if entry.name == "mine")
    assert (entry.description, entry.cached) == ("Six pictures of nothing.", True)
    assert data.classes("mine") == 3 and data.content_sha256("mine") == data.load("mine").sha256
    assert data.verify("mine") == [("mine", f"intact, sha256 {data.load('mine').sha256}")]
    assert len(calls) == 1
    with pytest.raises(UsageError, match="is a function; there is nothing to fetch"):
        data.fetch("mine")
    with pytest.raises(UsageError, match="Unknown dataset 'mina'.*Did you mean 'mine'"):
        data.load("mina")
    with pytest.raises(UsageError, match="taken"):
        ht_bench.register_dataset("mnist")(mine)


def test_one_that_cannot_be_imported_hides_no_other() -> None:
    registry.datasets._entries |= {"broken": "no_such_module:load", "mine": lambda: None}
    names = {entry.name: entry for entry in data.known()}
    assert names["broken"].description.startswith("not to be had: Could not import")
    assert not names["broken"].cached and "mine" in names and "digits" in names


SOURCE = """\
import numpy as np


def load():
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8))
    return (images[:100], np.arange(100) % 10), (images[100:], np.arange(20) % 10)
"""


def test_a_task_s_file_names_one_beside_it(
    write_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_task(data=('name = "digits"', 'name = "my_data.py:load"'))
    (tmp_path / "my_data.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = ht_bench.evaluate("none", path, progress=False)
    assert len(result.final) == 4
    assert result.records[0]["data_sha256"] == data.load(f"{tmp_path}/my_data.py:load").sha256
    assert data.load(f"{tmp_path}/my_data.py:load").name == "my_data.py:load"
