"""Datasets: one content whatever file it came from, a checked cache, sentences for bad files."""

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams import bundled, cache, data
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.sources import DatasetSource

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")
datasets = pytest.importorskip("datasets")

NAMES = ["bird", "cat", "dog"]
SOURCE = DatasetSource("tiny", "made up", "nobody/tiny", "img", "label", (3, 8, 8), 3)
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HT_BENCH_DATA", raising=False)
    monkeypatch.setitem(data._SOURCES, "tiny", SOURCE)


@pytest.fixture
def arrays() -> Arrays:
    draw = np.random.default_rng(0)
    return {
        part: (draw.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), np.arange(n) % 3)
        for part, n in (("train", 12), ("test", 6))
    }


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(
    folder: Path, arrays: Arrays, reverse: bool = False, image: str = "img", label: str = "label"
) -> Path:
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    features = {image: {"_type": "Image"}, label: {"dtype": "int64", "_type": "Value"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in arrays.items():
        order = range(len(labels))[:: -1 if reverse else 1]
        rows = [{"bytes": png(images[i]), "path": None} for i in order]
        columns = {image: pyarrow.array(rows, kind), label: [int(labels[i]) for i in order]}
        table = pyarrow.table(columns).replace_schema_metadata(meta)
        parquet.write_table(table, folder / f"{part}-00000-of-00001.parquet", row_group_size=5)
    return folder


def write_folders(folder: Path, arrays: Arrays) -> Path:
    for part, (images, labels) in arrays.items():
        for index, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / part / NAMES[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index}.png").write_bytes(png(pixels))
    return folder


def test_noise_is_bundled_pinned_and_without_structure() -> None:
    noise = data.load("noise")
    assert (noise.train_images.shape, noise.test_images.shape) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    assert noise.sha256 == bundled.BUNDLED["noise"].sha256 and noise.max_value == 16
    counts = np.bincount(noise.train_images.ravel(), minlength=17)
    assert np.abs(counts / noise.train_images.size * 17 - 1).max() < 0.05
    assert np.bincount(noise.train_labels, minlength=10).min() > 90
    pixels = noise.train_images.reshape(1297, 64).astype(float)
    assert np.abs(np.corrcoef(pixels.T)[~np.eye(64, dtype=bool)]).max() < 0.15


def test_digits_are_bundled_and_pinned() -> None:
    digits = data.load("digits")
    images = digits.train_images / 16
    assert (images.shape, digits.test_images.shape) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    assert digits.train_images.max() == digits.max_value == 16
    assert digits.sha256 == bundled.BUNDLED["digits"].sha256
    assert (*digits.mean, *digits.std) == pytest.approx((images.mean(), images.std()))


def take(source: Path) -> Dataset:
    return data.import_path("tiny", source)


def test_one_content_from_parquet_shuffled_rows_and_folders(tmp_path: Path, arrays: Arrays) -> None:
    made = take(write_parquet(tmp_path / "a", arrays))
    turned = take(write_parquet(tmp_path / "b", arrays, reverse=True))
    folders = take(write_folders(tmp_path / "c", arrays))
    cached = data.load("tiny")
    assert turned.sha256 == folders.sha256 == cached.sha256 == made.sha256
    assert made.train_images.shape == (12, 3, 8, 8)
    pixels, label = arrays["train"][0][4], arrays["train"][1][4]
    [place] = [i for i, x in enumerate(made.train_images) if (x == pixels.transpose(2, 0, 1)).all()]
    assert made.train_labels[place] == label
    np.testing.assert_array_equal(cached.test_labels, made.test_labels)


def test_what_systems_leave_beside_images_is_no_data(tmp_path: Path, arrays: Arrays) -> None:
    clean = take(write_folders(tmp_path / "a", arrays)).sha256
    root = write_folders(tmp_path / "b", arrays)
    image = next((root / "train").rglob("*.png"))
    for junk in (f"{image.parent.name}/._0.png", ".ipynb_checkpoints/0.png", "__MACOSX/x/._0.png"):
        (root / "train" / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / "train" / junk).write_bytes(b"\0" * 80)
    (root / "._train.parquet").write_bytes(b"\0" * 80)
    assert take(root).sha256 == clean


def test_another_pixel_or_label_is_another_content(tmp_path: Path, arrays: Arrays) -> None:
    before = take(write_parquet(tmp_path / "a", arrays)).sha256
    arrays["train"][0][0, 0, 0, 0] ^= 1
    pixel = take(write_parquet(tmp_path / "b", arrays)).sha256
    arrays["test"][1][0] = 2
    label = take(write_parquet(tmp_path / "c", arrays)).sha256
    assert len({before, pixel, label}) == 3


@pytest.mark.parametrize(("file", "content"), [("train_images.npy", "short"), ("meta.json", "{")])
def test_a_damaged_cache_is_refused(
    tmp_path: Path, arrays: Arrays, file: str, content: str
) -> None:
    """All other damage: tests/streams/test_cache.py."""
    take(write_parquet(tmp_path / "a", arrays))
    (cache.cache_folder() / "tiny" / file).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"cache/tiny .*delete .*ht-bench data import tiny PATH"):
        data.load("tiny")
    assert "cache" in dict(data.verify())["tiny"]


def test_data_that_are_not_here_get_a_sentence() -> None:
    with pytest.raises(UsageError, match="'tiny' is not on this machine; run `ht-bench data fetch"):
        data.load("tiny")
    with pytest.raises(UsageError, match="Did you mean 'cifar10'"):
        data.load("cifar1")


def test_the_offline_variable_is_honoured(tmp_path: Path, monkeypatch: Patch) -> None:
    """HF_HUB_OFFLINE is read when the library is imported: in a process of its own."""
    program = "from ht_bench.streams import data; data.fetch('mnist')"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "UsageError: Could not fetch mnist from the hub" in last
    assert "ht-bench data import mnist PATH" in last
    assert not cache.cache_folder().exists()


def test_a_missing_library_is_named(tmp_path: Path, arrays: Arrays, monkeypatch: Patch) -> None:
    source = write_parquet(tmp_path / "a", arrays)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'ht-bench\[data\]'"):
        take(source)


def test_a_raw_folder_is_imported_when_first_needed(
    tmp_path: Path, arrays: Arrays, monkeypatch: Patch
) -> None:
    write_parquet(tmp_path / "raw" / "tiny", arrays)
    monkeypatch.setenv("HT_BENCH_DATA", str(tmp_path / "raw"))
    first = data.load("tiny")
    monkeypatch.delenv("HT_BENCH_DATA")
    assert data.load("tiny").sha256 == first.sha256


def test_files_of_another_dataset_are_refused(
    tmp_path: Path, arrays: Arrays, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(data._SOURCES, "tiny", dataclasses.replace(SOURCE, sha256="0" * 64))
    with pytest.raises(UsageError, match="not the whole, lossless tiny: 12 \\+ 6 images"):
        take(write_parquet(tmp_path / "a", arrays))
    assert not cache.is_cached("tiny")


def truncated(arrays: Arrays) -> dict[str, Any]:
    return {"bytes": png(arrays["train"][0][0])[:80], "path": None}


def spoil_png(folder: Path, content: bytes) -> Path:
    next((folder / "train").rglob("*.png")).write_bytes(content)
    return folder


def spoil_parquet(folder: Path, **values: Any) -> Path:
    """Put a value into row 1 of a column, or a text into all of them."""
    [path] = folder.glob("train*")
    table = parquet.read_table(path)
    for name, value in values.items():
        rows = table[name].to_pylist()
        rows = [value] * len(rows) if value == "text" else [*rows[:1], value, *rows[2:]]
        kinds = {str: pyarrow.string(), float: pyarrow.float64()}
        kind = kinds.get(type(value), table[name].type)
        column = table.column_names.index(name)
        table = table.set_column(column, name, pyarrow.array(rows).cast(kind))
    parquet.write_table(table, path)
    return folder


def test_valid_files_serve_for_a_test_only_where_there_is_none(
    tmp_path: Path, arrays: Arrays
) -> None:
    train, test = arrays["train"], arrays["test"]
    expected = take(write_parquet(tmp_path / "a", arrays)).sha256
    both = {"train": train, "test": test, "valid": train}
    for name, parts in {"b": both, "c": {"train": train, "valid": test}}.items():
        for write in (write_parquet, write_folders):
            found = take(write(tmp_path / f"{name}-{write.__name__}", parts))
            assert found.sha256 == expected


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda p, a: p / "absent", "There is no folder"),
        (lambda p, a: write_parquet(p, {"train": a["train"]}), "has no test images"),
        (lambda p, a: write_folders(p, {"test": a["test"]}), "has no train images"),
        (lambda p, a: spoil_png(write_folders(p, a), b"no image"), "cannot be decoded .*png"),
        (lambda p, a: spoil_parquet(write_parquet(p, a), img=truncated(a)), "1 cannot be decoded"),
        (lambda p, a: spoil_parquet(write_parquet(p, a), img="text"), "image 0 is no image"),
        (lambda p, a: spoil_parquet(write_parquet(p, a), img=None), "image 1 is no image"),
        (lambda p, a: spoil_parquet(write_parquet(p, a), label=None), "must be whole numbers"),
        (lambda p, a: spoil_parquet(write_parquet(p, a), label=0.5), "must be whole numbers"),
        (lambda p, a: spoil_parquet(write_parquet(p, a), label=-1), "lie in 0 … 2"),
        (lambda p, a: write_parquet(p, a, image="picture"), "no column 'img'; they have 'pict"),
        (lambda p, a: write_parquet(p, a, label="class"), "no column 'label'"),
        (lambda p, a: write_parquet(p, {k: (x[:, :4], y) for k, (x, y) in a.items()}), "8×4"),
        (lambda p, a: write_parquet(p, {k: (x, y + 1) for k, (x, y) in a.items()}), "0 … 2"),
    ],
)
def test_wrong_files_are_named(
    tmp_path: Path, arrays: Arrays, spoil: Callable[..., Path], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        take(spoil(tmp_path / "a", arrays))
    assert not cache.is_cached("tiny")


def test_names_are_taken_once() -> None:
    data.register_dataset(SOURCE)  # the same again is no clash
    for name in ("digits", "mnist"):
        with pytest.raises(UsageError, match="taken"):
            data.register_dataset(DatasetSource(name, "other", "x/y", "a", "b", (1, 2, 2), 2))
    with pytest.raises(UsageError, match="bundled"):
        data.fetch("digits")


@pytest.mark.usefixtures("real_data_cache")
def test_real_mnist_is_whole() -> None:
    found = data.load("mnist")
    assert found.train_images.shape == (60_000, 1, 28, 28)
    assert found.test_images.shape == (10_000, 1, 28, 28)
    assert [round(x, 4) for x in (*found.mean, *found.std)] == [0.1307, 0.3081]
    assert np.bincount(found.train_labels, minlength=10).min() == 5421
    assert found.sha256 == data._SOURCES["mnist"].sha256


@pytest.mark.usefixtures("real_data_cache")
def test_real_cifar10_is_whole() -> None:
    found = data.load("cifar10")
    assert found.train_images.shape == (50_000, 3, 32, 32)
    assert [round(x, 4) for x in found.mean] == [0.4914, 0.4822, 0.4465]
    assert [round(x, 4) for x in found.std] == [0.2470, 0.2435, 0.2616]
    assert np.bincount(found.test_labels).tolist() == [1000] * 10
    assert found.sha256 == data._SOURCES["cifar10"].sha256
    assert data.load("digits").sha256 != found.sha256
