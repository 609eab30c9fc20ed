"""One dataset from every layout others keep it in: one content; a sentence for what is not whole.

`pytest --evidence` writes all of MNIST and CIFAR-10 in each.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams import cache, data, sources
from ht_bench.streams.dataset import DatasetSource, make_dataset

from . import layouts
from .layouts import FINE, GREY, LAYOUTS, Parts, Writer

pytest.importorskip("datasets")

NAMES = ("bird", "cat", "dog")
COLOUR = DatasetSource("tiny", "made up", "nobody/tiny", "img", "label", (3, 8, 8), 3)
SOURCES = {
    "colour": dataclasses.replace(COLOUR, folders=("cifar-10-batches-py", "tiny-imagenet-200")),
    "grey": dataclasses.replace(COLOUR, shape=(1, 8, 8), folders=("MNIST/raw",)),
    "fine": dataclasses.replace(COLOUR, label="fine_label"),
}
KINDS = [
    *(("colour", name) for name in LAYOUTS),
    *(("grey", name) for name in GREY),
    *(("fine", name) for name in FINE),
]
WRITERS: dict[str, dict[str, Writer]] = {"colour": LAYOUTS, "grey": GREY, "fine": FINE}
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HT_BENCH_DATA", raising=False)


def parts_of(channels: int) -> Parts:
    draw = np.random.default_rng(channels)
    return {
        part: (draw.integers(0, 256, (n, channels, 8, 8), dtype=np.uint8), np.arange(n) % 3)
        for part, n in (("train", 18), ("test", 6))
    }


def sha256(parts: Parts) -> str:
    return make_dataset("tiny", parts["train"], parts["test"], 3).sha256


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_one_content_from_every_layout(kind: str, name: str, tmp_path: Path) -> None:
    source = SOURCES[kind]
    parts = parts_of(source.shape[0])
    path = WRITERS[kind][name](tmp_path / "data", parts, NAMES)
    assert sources.from_path(source, path).sha256 == sha256(parts)


@pytest.mark.parametrize("place", ["tiny", "cifar-10-batches-py"])
def test_a_folder_of_datasets_may_be_torchvisions(
    place: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(data._SOURCES, "tiny", SOURCES["colour"])
    parts = parts_of(3)
    folder = layouts.batches(True, 2, tmp_path / "all", parts, NAMES)
    folder.rename(folder.with_name(place))
    monkeypatch.setenv("HT_BENCH_DATA", str(tmp_path / "all"))
    assert data.load("tiny").sha256 == sha256(parts)


# ---- what is not whole ----


def shards(path: Path) -> Path:
    return LAYOUTS["the hub's data folder"](path, parts_of(3), NAMES)


def converted(path: Path) -> Path:
    layouts.shards("{part}/{index:04}.parquet", 3, path, parts_of(3), NAMES)
    return path


def tiny(path: Path) -> Path:
    return layouts.tiny_imagenet(path, parts_of(3), NAMES)


def pickles(path: Path) -> Path:
    return layouts.batches(True, 2, path, parts_of(3), NAMES)


def grey(path: Path) -> Path:
    return layouts.idx("-", "", path, parts_of(1), NAMES)


def arrays(path: Path, **changes: Any) -> Path:
    file = layouts.npz("keras", path, parts_of(3), NAMES)
    whole = {**np.load(file), **changes}
    np.savez(file, **{key: value for key, value in whole.items() if value is not None})
    return file


def without(path: Path, file: str) -> Path:
    (path / file).unlink()
    return path


def with_bytes(path: Path, file: str, change: Callable[[bytes], bytes]) -> Path:
    (path / file).write_bytes(change((path / file).read_bytes()))
    return path


def second_set(path: Path) -> Path:
    return layouts.shards("data/{part}-{index:05}-of-{count:05}.parquet", 2, path, parts_of(3), "")


LINE = "val_0.JPEG\tn00000000\t0\t0\t62\t62\n"
LABELS = "t10k-labels-idx1-ubyte"
PIXELS = "t10k-images-idx3-ubyte"
FAULTS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "a middle shard": (
        "colour",
        lambda p: without(shards(p), "data/train-00001-of-00003.parquet"),
        "shard 1 of 3 is missing beside train-00000-of-00003.parquet",
    ),
    "the last shard": (
        "colour",
        lambda p: without(shards(p), "data/test-00002-of-00003.parquet"),
        "shard 2 of 3 is missing",
    ),
    "two sets": ("colour", lambda p: second_set(shards(p)), "are of different sets"),
    "a converted shard": (
        "colour",
        lambda p: without(converted(p), "train/0001.parquet"),
        "shard 1 of 3 is missing beside 0000.parquet",
    ),
    "a batch": ("colour", lambda p: without(pickles(p), "data_batch_4"), "file 'data_batch_4'"),
    "a cut batch": (
        "colour",
        lambda p: with_bytes(pickles(p), "test_batch", lambda b: b[:-30]),
        "test_batch is no pickle of plain arrays",
    ),
    "the other CIFAR": (
        "colour",
        lambda p: layouts.batches(False, 2, p, parts_of(3), NAMES),
        "train has no 'labels' for tiny; it has batch_label, data, filenames, fine_labels",
    ),
    "a class missing from a table": (
        "colour",
        lambda p: with_bytes(tiny(p), "val/val_annotations.txt", lambda b: b[b.index(b"\n") + 1 :]),
        "val_annotations.txt does not name .*val_0.JPEG",
    ),
    "an image missing from a table": (
        "colour",
        lambda p: without(tiny(p), "val/images/val_3.JPEG"),
        r"names val_3\.JPEG, which is not in images/",
    ),
    "no table": (
        "colour",
        lambda p: without(tiny(p), "val/val_annotations.txt"),
        "has no test images",
    ),
    "half a line": (
        "colour",
        lambda p: with_bytes(tiny(p), "val/val_annotations.txt", lambda b: b"val_0.JPEG\n" + b),
        "line 1: not an image's name and its class",
    ),
    "fewer labels": (
        "grey",
        lambda p: with_bytes(grey(p), LABELS, lambda b: b[:7] + b"\5" + b[8:-1]),
        "6 test images but 5 labels",
    ),
    "a cut idx file": (
        "grey",
        lambda p: with_bytes(grey(p), PIXELS, lambda b: b[:-1]),
        "ends after 383 of 384 bytes",
    ),
    "a longer idx file": (
        "grey",
        lambda p: with_bytes(grey(p), PIXELS, lambda b: b + b"x"),
        "is longer than its header says",
    ),
    "an endless idx file": (
        "grey",
        lambda p: with_bytes(grey(p), PIXELS, lambda b: b[:4] + b"\xff" * 12 + b[16:]),
        "claims 4,294,967,295 .* images, but",
    ),
    "another kind of idx file": (
        "grey",
        lambda p: with_bytes(grey(p), PIXELS, lambda b: b"\0\0\x0d" + b[3:]),
        "no idx file of unsigned bytes",
    ),
    "no idx labels": ("grey", lambda p: without(grey(p), LABELS), "No t10k-labels-idx… file"),
    "no array": ("colour", lambda p: arrays(p, y_test=None), "no arrays x_test and y_test; it has"),
    "an array with a strange name": (
        "colour",
        lambda p: arrays(p, **{"x_test": None, "a\n\x1b[2J": np.zeros(1)}),
        r"it has 'a\\n\\x1b\[2J', 'x_train', 'y_test', 'y_train'\. Save",
    ),
    "floats": ("colour", lambda p: arrays(p, x_train=np.zeros((2, 8, 8, 3))), "holds float64"),
    "another shape": (
        "colour",
        lambda p: arrays(p, x_train=np.zeros((2, 8, 9, 3), np.uint8)),
        r"x_train holds uint8 of shape \[2, 8, 9, 3\]",
    ),
    "objects": (
        "colour",
        lambda p: arrays(p, y_train=np.array([{}], dtype=object)),
        "y_train holds object",
    ),
    "fewer labels in an array": (
        "colour",
        lambda p: arrays(p, y_train=np.zeros(3, np.uint8)),
        "18 train images but 3 labels",
    ),
    "a cut .npz": (
        "colour",
        lambda p: with_bytes(arrays(p).parent, "data.npz", lambda b: b[:-40]) / "data.npz",
        "data.npz cannot be read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_whole_is_named(fault: str, tmp_path: Path) -> None:
    kind, make, sentence = FAULTS[fault]
    path = make(tmp_path / "data")
    with pytest.raises(UsageError, match=sentence) as caught:
        sources.from_path(SOURCES[kind], path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.npz", "a.txt", "a.tgz"])
@pytest.mark.parametrize("content", [b"", b"PK\3\4junk", b"\x1f\x8b\x08junk"])
def test_a_file_that_is_no_archive(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} (cannot be|is no archive)") as caught:
        sources.from_path(COLOUR, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path: Path) -> None:
    parts = parts_of(3)
    root = LAYOUTS["folders of images"](tmp_path / "data", parts, NAMES)
    (root / "train" / "cat" / "again").symlink_to(root / "train", target_is_directory=True)
    assert sources.from_path(COLOUR, root).sha256 == sha256(parts)
    (root / "train" / "cow").symlink_to(tmp_path / "unplugged", target_is_directory=True)
    with pytest.raises(UsageError, match="train/cow is a link to nothing"):
        sources.from_path(COLOUR, root)


def test_an_image_beside_the_classes_is_not_dropped(tmp_path: Path) -> None:
    root = LAYOUTS["folders of images"](tmp_path / "data", parts_of(3), NAMES)
    (root / "train" / "cat" / "1.png").rename(root / "train" / "1.png")
    with pytest.raises(UsageError, match=r"train/1\.png lies in no class's folder"):
        sources.from_path(COLOUR, root)


def test_nothing_of_an_archive_lands_outside(tmp_path: Path, monkeypatch: Patch) -> None:
    """Nor stays behind."""
    import tarfile

    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    for name, kind in (("../outside", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret")
            archive.addfile(member)
        with pytest.raises(UsageError, match=r"a\.tar"):
            sources.from_path(COLOUR, tmp_path / "a.tar")
        assert not (tmp_path / "outside").exists()
        assert list((tmp_path / "temporary").iterdir()) == []


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    for name in ("cifar-10-python.tar.gz", "tiny-imagenet-200.zip"):
        path = LAYOUTS[name](tmp_path / name, parts_of(3), NAMES)
        for limit in ("LARGEST", "MOST_FILES"):
            with monkeypatch.context() as patch:
                patch.setattr(f"ht_bench.streams.archives.{limit}", 3)
                with pytest.raises(UsageError, match="holds more than"):
                    sources.from_path(SOURCES["colour"], path)


# ---- all of the real data ----


REAL = (
    "the hub's data folder",
    "the hub's converted files",
    "folders of images",
    "tiny-imagenet-200",
    "keras",
    "cifar-10-batches-py",
    "pickles of today",
    "cifar-10-python.tar.gz",
)
"""Of CIFAR-10: one of each reader, or two."""


@pytest.mark.evidence
@pytest.mark.usefixtures("real_data_cache")
@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_the_real_data_from_every_layout(
    dataset: str, tmp_path: Path, monkeypatch: Patch, real_data_cache: Path
) -> None:
    monkeypatch.setenv("HT_BENCH_CACHE", str(real_data_cache))
    whole, source = data.load(dataset), data._SOURCES[dataset]
    parts = {
        "train": (np.asarray(whole.train_images), np.asarray(whole.train_labels)),
        "test": (np.asarray(whole.test_images), np.asarray(whole.test_labels)),
    }
    draw = np.random.default_rng(0)
    for part, (images, labels) in parts.items():
        order = draw.permutation(len(labels))
        parts[part] = images[order], labels[order]
    names = [f"class {number}" for number in range(10)]
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "cache"))
    chosen = {name: LAYOUTS[name] for name in REAL}
    writers = GREY if dataset == "mnist" else chosen
    read = dataclasses.replace(source, image="img", folders=(*source.folders, "tiny-imagenet-200"))
    monkeypatch.setitem(data._SOURCES, dataset, read)
    for name, write in writers.items():
        folder = tmp_path / "data"
        found = data.import_path(dataset, write(folder, parts, names))
        assert found.sha256 == whole.sha256 == source.sha256, name
        shutil.rmtree(folder)
        for left in tmp_path.glob("data-*"):
            shutil.rmtree(left)
    assert cache.is_cached(dataset)
