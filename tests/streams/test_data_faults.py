"""Faults that would give other data without a word: damaged metadata, wrong modes, class orders."""

import dataclasses
import io
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams import cache, data
from ht_bench.streams.dataset import Dataset, make_dataset
from ht_bench.streams.sources import DatasetSource

Image = pytest.importorskip("PIL.Image")
datasets = pytest.importorskip("datasets")

Patch = pytest.MonkeyPatch
SOURCE = DatasetSource("tiny", "24 + 12 images", "nobody/tiny", "img", "label", (3, 4, 4), 12)


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HT_BENCH_DATA", raising=False)
    monkeypatch.setitem(data._SOURCES, "tiny", SOURCE)
    monkeypatch.setitem(data._SOURCES, "one", dataclasses.replace(SOURCE, name="one", classes=1))


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (4, 4, 3)).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def folders(path: Path, name: str = "class {:02}", classes: int = 12, test: str = "test") -> None:
    """Two training images and one of test in each class; image i of a class has seed i."""
    for part, count in (("train", 2), (test, 1)):
        for label in range(classes):
            for index in range(count):
                file = path / part / name.format(label) / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(png(pixels(1000 * len(part) + 10 * label + index)))


def made() -> Dataset:
    images = np.stack([pixels(i, 3, 4, 4) for i in range(24)])
    return make_dataset("tiny", (images, np.arange(24) % 12), (images[:12], np.arange(12)), 12)


# ---- the cache ----


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("mean", [0.5, 0.5, 0.5]), ("std", [1.0, 1.0, 1.0]), ("classes", 13)),
        *(("max_value", 16), ("sha256", "0" * 64), ("meta_sha256", None)),
    ],
)
def test_changed_metadata_are_refused(key: str, value: object) -> None:
    cache.write(made())
    file = cache.cache_folder() / "tiny" / "meta.json"
    meta = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**meta, key: value}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"cache/tiny is unreadable \(meta\.json has been changed"):
        cache.read("tiny")


@pytest.mark.parametrize(
    "other", [{"sha256": "0" * 64}, {"classes": 13}, {"shape": (3, 2, 8)}], ids=str
)
def test_an_intact_cache_of_something_else_is_refused(
    other: dict[str, Any], monkeypatch: Patch
) -> None:
    cache.write(made())
    assert data.load("tiny").sha256 == made().sha256
    monkeypatch.setitem(data._SOURCES, "tiny", dataclasses.replace(SOURCE, **other))
    with pytest.raises(
        UsageError, match=r"is not the dataset of this name .*; delete .*cache/tiny"
    ):
        data.load("tiny")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_the_system_says_of_a_file_that_finds_no_room_is_told() -> None:
    images = np.zeros((30_000, 3, 4, 4), dtype=np.uint8)  # 1.4 MB
    large = dataclasses.replace(made(), train_images=images)
    with largest_file(1_000_000), pytest.raises(UsageError, match="tiny: File too large; free"):
        cache.write(large)
    assert list(cache.cache_folder().iterdir()) == []


def test_a_shared_cache_is_as_open_as_the_umask_lets_it_be() -> None:
    before = os.umask(0o002)
    try:
        cache.write(made())
    finally:
        os.umask(before)
    assert (cache.cache_folder() / "tiny").stat().st_mode & 0o777 == 0o775


# ---- image folders ----


def test_numbers_that_sort_otherwise_as_text_are_refused(tmp_path: Path) -> None:
    """As `datasets` sorts them, folder 10 would become class 2."""
    folders(tmp_path / "padded", "{:02}")
    folders(tmp_path / "bare", "{}")
    folders(tmp_path / "named")
    found = [data.import_path("tiny", tmp_path / name).sha256 for name in ("padded", "named")]
    assert found[0] == found[1]
    with pytest.raises(UsageError, match=r"would permute the labels; write them with leading zero"):
        data.import_path("tiny", tmp_path / "bare")


def test_class_folders_are_counted(tmp_path: Path) -> None:
    folders(tmp_path / "few", classes=1)
    folders(tmp_path / "more", classes=13)
    for name, count in (("few", 1), ("more", 13)):
        with pytest.raises(UsageError, match=f"class folders found: {count}, but tiny has 12"):
            data.import_path("tiny", tmp_path / name)
    assert data.import_path("one", tmp_path / "few").train_labels.tolist() == [0, 0]


@pytest.mark.parametrize("test", ["test", "valid"])
def test_a_source_says_which_of_test_and_valid_it_means(
    test: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(data._SOURCES, "tiny", dataclasses.replace(SOURCE, test=test))
    folders(tmp_path / "both", test="test")
    folders(tmp_path / "both", test="valid")
    folders(tmp_path / "alone", test=test)
    found = [data.import_path("tiny", tmp_path / name).sha256 for name in ("both", "alone")]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("image", "mode"),
    [(pixels(0, 4, 4, 4), "RGBA"), (pixels(0, 4, 4).astype(np.uint16) * 257, "I;16")],
)
def test_an_image_that_would_lose_something_is_refused(
    image: np.ndarray, mode: str, tmp_path: Path
) -> None:
    folders(tmp_path)
    (tmp_path / "train" / "class 03" / "0.png").write_bytes(png(image))
    with pytest.raises(UsageError, match=f"is of mode {mode}, but tiny's are of 8 bits"):
        data.import_path("tiny", tmp_path)


# ---- errors of the library ----


def errors() -> dict[str, Exception]:
    from huggingface_hub.errors import HfHubHTTPError

    return {
        "no network": ConnectionError("Couldn't reach the Hub"),
        "full disk": OSError(28, "No space left on device"),
        "broken files": datasets.exceptions.DatasetGenerationError("An error\noccurred"),
        "offline": ValueError("Couldn't find cache"),
        "transport": HfHubHTTPError.__bases__[0]("timed out"),
    }


def raising(error: Exception) -> Callable[..., None]:
    def load(*_: object, **__: object) -> None:
        raise error

    return load


@pytest.mark.parametrize("kind", errors())
def test_a_fetch_that_fails_in_any_way_is_one_sentence(kind: str, monkeypatch: Patch) -> None:
    error = errors()[kind]
    monkeypatch.setattr(datasets, "load_dataset", raising(error))
    with pytest.raises(UsageError, match="run `ht-bench data import mnist PATH`") as caught:
        data.fetch("mnist")
    assert f"fetch mnist from the hub ({type(error).__name__}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_reason_is_one_short_line(tmp_path: Path, monkeypatch: Patch) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(parquet, "read_metadata", raising(ValueError("Couldn't\n cast\n" * 100)))
    for name in ("train", "test"):
        (tmp_path / f"{name}.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match=r"could not be read as tiny: Couldn't cast Couldn't") as e:
        data.import_path("tiny", tmp_path)
    assert "\n" not in str(e.value) and len(str(e.value)) < 400 + len(str(tmp_path))


def test_rows_that_no_part_has_are_not_made_room_for(tmp_path: Path, monkeypatch: Patch) -> None:
    """A row that is repeated takes no bytes: the count is looked at before anything is decoded."""
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setitem(data._SOURCES, "tiny", dataclasses.replace(SOURCE, train=24, tests=12))
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    picture = pyarrow.array([{"bytes": png(pixels(0, 4, 4, 3)), "path": None}], kind)
    for name, count in (("train", 49), ("test", 12)):
        rows = {"img": pyarrow.concat_arrays([picture] * count), "label": [0] * count}
        parquet.write_table(pyarrow.table(rows), tmp_path / f"{name}.parquet")
    with pytest.raises(UsageError, match=r"train.parquet claims 49 train images, .* tiny has 24"):
        data.import_path("tiny", tmp_path)
