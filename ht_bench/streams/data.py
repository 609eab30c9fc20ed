"""Datasets by name: load, fetch, import, verify."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ht_bench.errors import UsageError, did_you_mean
from ht_bench.streams import cache, sources
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.sources import DatasetSource

DIGITS_SHA256 = "f3814f133cbe59dfafb468dfcf9d88bb0bd2f10c2282407e63e5723e201a877c"
ABSENT = "not on this machine"
_SOURCES: dict[str, DatasetSource] = {}


@dataclass(frozen=True)
class Known:
    """A dataset that `load` knows, and whether it is on this machine."""

    name: str
    description: str
    cached: bool


def register_dataset(source: DatasetSource) -> None:
    """Make a dataset known by name; raises UsageError when the name is taken."""
    if source.name == "digits" or _SOURCES.get(source.name, source) != source:
        raise UsageError(f"The dataset name '{source.name}' is taken; choose another.")
    _SOURCES[source.name] = source


for _source in (
    DatasetSource(
        "mnist",
        "60,000 + 10,000 handwritten digits, 1×28×28, 10 classes",
        "ylecun/mnist",
        "image",
        "label",
        (1, 28, 28),
        10,
        sha256="5ebb882eb66bd488450e415eb6e7f4defbaeceb59bc530b9962b704a18720eac",
    ),
    DatasetSource(
        "cifar10",
        "50,000 + 10,000 photographs, 3×32×32, 10 classes",
        "uoft-cs/cifar10",
        "img",
        "label",
        (3, 32, 32),
        10,
        sha256="01511f113e3534bc777a1bc37a918b870e262f6b1be4c3b501439c4ad0a8000a",
    ),
    DatasetSource(
        "cifar100",
        "50,000 + 10,000 photographs, 3×32×32, 100 classes",
        "uoft-cs/cifar100",
        "img",
        "fine_label",
        (3, 32, 32),
        100,
    ),
    DatasetSource(
        "tiny-imagenet",
        "100,000 + 10,000 photographs, 3×64×64, 200 classes",
        "zh-plus/tiny-imagenet",
        "image",
        "label",
        (3, 64, 64),
        200,
        "valid",
    ),
):
    register_dataset(_source)


def known() -> list[Known]:
    """Return every dataset that `load` knows; digits is always here."""
    embedded = Known("digits", "1,297 + 500 handwritten digits, 1×8×8, 10 classes, bundled", True)
    rest = [Known(s.name, s.description, cache.is_cached(s.name)) for s in _SOURCES.values()]
    return [embedded, *rest]


def classes(name: str) -> int:
    """Return how many classes a dataset has, whether or not it is on this machine."""
    return 10 if name == "digits" else _find(name).classes


def content_sha256(name: str) -> str | None:
    """Return the content hash that a dataset must have; None where that is not known."""
    return DIGITS_SHA256 if name == "digits" else _find(name).sha256


def load(name: str) -> Dataset:
    """Return a dataset, its content hash checked.

    Looks in the cache, then in the folder that HT_BENCH_DATA names (imported from there once).
    Raises UsageError for an unknown name, a changed cache, or data that are not on this machine.
    """
    if name == "digits":
        return _checked(sources.digits(), DIGITS_SHA256)
    source = _find(name)
    if cache.is_cached(name):
        return _cached(source)
    raw = os.environ.get("HT_BENCH_DATA")
    if raw and (Path(raw) / name).is_dir():
        print(f"Importing {name} from {Path(raw) / name} into the cache, once.", file=sys.stderr)
        return import_path(name, Path(raw) / name)
    raise UsageError(
        f"The dataset '{name}' is not on this machine; run `ht-bench data fetch {name}` (network) "
        f"or `ht-bench data import {name} PATH` (parquet files or image folders)."
    )


def fetch(name: str) -> Dataset:
    """Download a dataset from the hub into the cache; raises UsageError without a network."""
    return _keep(_find(name), sources.from_hub(_find(name)))


def import_path(name: str, path: Path) -> Dataset:
    """Read local files into the cache; raises UsageError for files that are not the dataset."""
    return _keep(_find(name), sources.from_path(_find(name), Path(path)))


def verify(name: str = "") -> list[tuple[str, str]]:
    """Check every dataset on this machine; returns (name, sentence) for each known one.

    name: check this one only; raises UsageError for an unknown name.
    """
    if name not in ("", "digits"):
        _find(name)
    return [(entry.name, _state(entry)) for entry in known() if name in ("", entry.name)]


def _state(entry: Known) -> str:
    if not entry.cached:
        return ABSENT
    try:
        return f"intact, sha256 {load(entry.name).sha256}"
    except UsageError as error:
        return str(error)


def _find(name: str) -> DatasetSource:
    if name == "digits":
        raise UsageError(
            "digits is bundled with scikit-learn; there is nothing to fetch or import."
        )
    if name not in _SOURCES:
        names = ["digits", *_SOURCES]
        raise UsageError(
            f"Unknown dataset '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}."
        )
    return _SOURCES[name]


def _cached(source: DatasetSource) -> Dataset:
    dataset = cache.read(source.name)
    form = (dataset.train_images.shape[1:], dataset.classes, dataset.sha256)
    if form != (source.shape, source.classes, source.sha256 or dataset.sha256):
        raise UsageError(
            f"The cached {source.name} is not the dataset of this name ({source.description}); "
            f"{cache.remake(source.name)}"
        )
    return dataset


def _keep(source: DatasetSource, dataset: Dataset) -> Dataset:
    _checked(dataset, source.sha256)
    cache.write(dataset)
    return dataset


def _checked(dataset: Dataset, expected: str | None) -> Dataset:
    if expected and dataset.sha256 != expected:
        raise UsageError(
            f"These files are not the whole, lossless {dataset.name}: "
            f"{len(dataset.train_labels)} + {len(dataset.test_labels)} images with content hash "
            f"{dataset.sha256[:12]}…, expected {expected[:12]}…; import the original files."
        )
    return dataset
