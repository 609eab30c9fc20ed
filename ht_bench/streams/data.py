"""Datasets by name: load, fetch, import, verify; those from outside are functions (`own_data`)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.streams import cache, own_data, pins, sources
from ht_bench.streams.bundled import BUNDLED, CLASSES, load_bundled
from ht_bench.streams.dataset import Dataset, DatasetSource

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
    if source.name in BUNDLED or _SOURCES.get(source.name, source) != source:
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
        train=60_000,
        tests=10_000,
        folders=("MNIST/raw", "MNIST"),
        archives=("mnist.npz",),
    ),
    DatasetSource(
        "fashion-mnist",
        "60,000 + 10,000 photographs of clothes, 1×28×28, 10 classes",
        "zalando-datasets/fashion_mnist",
        "image",
        "label",
        (1, 28, 28),
        10,
        sha256="fb14c5f6fcaa20faf0379fbccb910e3a6a528c6ea9b706e59285249fabcf1e7d",
        train=60_000,
        tests=10_000,
        balanced=True,
        folders=("FashionMNIST/raw", "FashionMNIST", "dataset-fashion-mnist"),
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
        train=50_000,
        tests=10_000,
        balanced=True,
        folders=("cifar-10-batches-py",),
        archives=("cifar-10-python.tar.gz",),
    ),
    DatasetSource(
        "cifar100",
        "50,000 + 10,000 photographs, 3×32×32, 100 classes",
        "uoft-cs/cifar100",
        "img",
        "fine_label",
        (3, 32, 32),
        100,
        sha256="ecab1c58d85c6b821f91d76c32c30ff6e14f2f8ba0a900abfa153c927d5b7014",
        train=50_000,
        tests=10_000,
        balanced=True,
        folders=("cifar-100-python",),
        archives=("cifar-100-python.tar.gz",),
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
        train=100_000,
        tests=10_000,
        balanced=True,
        colours=pins.TINY_IMAGENET_COLOURS,
        folders=("tiny-imagenet-200",),
        archives=("tiny-imagenet-200.zip",),
    ),
):
    register_dataset(_source)


_MADE = {name: each.make for name, each in BUNDLED.items()}
registry.datasets.provide(lambda: {**_MADE, **_SOURCES})


def known() -> list[Known]:
    """Return every dataset that `load` knows; bundled ones, and functions, are always here."""
    bundled = [Known(name, each.description, True) for name, each in BUNDLED.items()]
    rest = [Known(s.name, s.description, cache.is_cached(s.name)) for s in _SOURCES.values()]
    return [*bundled, *rest, *map(_known_outside, filter(is_outside, registry.datasets.names()))]


def _known_outside(name: str) -> Known:
    try:
        return Known(name, own_data.description(own_data.find(name)), True)
    except UsageError as error:  # a package that cannot be imported hides no other's dataset
        return Known(name, f"not to be had: {error}", False)


def is_outside(name: str) -> bool:
    """Whether a name or reference stands for a function of a user's or a package's own."""
    return registry.datasets.is_from_outside(name)


def classes(name: str) -> int:
    """Return how many classes a dataset has, whether or not it is on this machine."""
    if is_outside(name):
        return load(name).classes
    return CLASSES if name in BUNDLED else _find(name).classes


def content_sha256(name: str) -> str | None:
    """Return the content hash that a dataset must have; None where that is not known."""
    if is_outside(name):
        return load(name).sha256
    return BUNDLED[name].sha256 if name in BUNDLED else _find(name).sha256


def load(name: str) -> Dataset:
    """Return a dataset, its content hash checked.

    Looks in the cache, then in the folder that HT_BENCH_DATA names (imported from there once).
    One from outside ("my_data.py:load", or a registered name) is made by its function, once in a
    process. Raises UsageError for an unknown name, a changed cache, data that are not on this
    machine, and a function that fails.
    """
    if name in BUNDLED:
        return load_bundled(name)
    if is_outside(name):
        return own_data.call(own_data.find(name), own_data.short(name))
    source = _find(name)
    if cache.is_cached(name):
        return _cached(source)
    if (place := raw_place(name)) is not None:
        print(f"Importing {name} from {place} into the cache, once.", file=sys.stderr)
        return import_path(name, place)
    raise UsageError(
        f"The dataset '{name}' is not on this machine; run `ht-bench data fetch {name}` (network) "
        f"or `ht-bench data import {name} PATH` (parquet files, image folders, or the files as "
        "downloaded)."
    )


def raw_place(name: str) -> Path | None:
    """Return where a named dataset's files lie in the folder that HT_BENCH_DATA names, or None."""
    raw = os.environ.get("HT_BENCH_DATA")
    places = sources.raw_places(_find(name), Path(raw).expanduser()) if raw else []
    return places[0] if places else None


def is_pinned(name: str) -> bool:
    """Whether the content that a dataset must have is known: other data are refused."""
    return name in BUNDLED or is_outside(name) or pins.is_pinned(_find(name))


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
    if name not in ("", *BUNDLED) and name not in registry.datasets.names():
        raise UsageError(registry.datasets.unknown(name))
    return [(entry.name, _state(entry)) for entry in known() if name in ("", entry.name)]


def _state(entry: Known) -> str:
    if not entry.cached:
        return ABSENT
    try:
        return f"intact, sha256 {load(entry.name).sha256}"
    except UsageError as error:
        return str(error)


def _find(name: str) -> DatasetSource:
    if name in BUNDLED:
        raise UsageError(
            f"{name} is bundled with {BUNDLED[name].origin}; there is nothing to fetch or import."
        )
    if name in _SOURCES:
        return _SOURCES[name]
    own_data.find(name)
    raise UsageError(f"The dataset '{name}' is a function; there is nothing to fetch or import.")


def _cached(source: DatasetSource) -> Dataset:
    dataset = cache.read(source.name)
    form = (dataset.train_images.shape[1:], dataset.test_images.shape[1:], dataset.classes)
    try:
        if form != (source.shape, source.shape, source.classes):
            raise UsageError(f"its images are {form[0]}, its classes {form[2]}")
        pins.check_content(source, dataset)
    except UsageError as error:
        raise UsageError(
            f"The cached {source.name} is not the dataset of this name ({source.description}); "
            f"{cache.remake(source.name)}"
        ) from error
    return dataset


def _keep(source: DatasetSource, dataset: Dataset) -> Dataset:
    pins.check_content(source, dataset)
    cache.write(dataset)
    return dataset
