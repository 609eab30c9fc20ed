"""Datasets that come with the package's own dependencies: nothing is fetched for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.streams.dataset import Dataset, make_dataset
from ht_bench.streams.randomness import generator

EXAMPLES, TEST, CLASSES, BRIGHTEST = 1_797, 500, 10, 16


@dataclass(frozen=True)
class Bundled:
    """A dataset made here, and the content hash that it must have. origin: where it comes from."""

    make: Callable[[], Dataset]
    description: str
    sha256: str
    origin: str


def digits() -> Dataset:
    """Return scikit-learn's bundled digits: 1,797 images 1×8×8, values 0 to 16, 500 for test."""
    table = _digits_table()
    images = table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, -1].astype(np.int64)
    everything = make_dataset("digits", (images, labels), (images[:1], labels[:1]), 10, BRIGHTEST)
    order = generator("digits", 0, "split").permutation(len(labels))
    test, train = np.sort(order[:TEST]), np.sort(order[TEST:])
    x, y = everything.train_images, everything.train_labels
    return make_dataset("digits", (x[train], y[train]), (x[test], y[test]), CLASSES, BRIGHTEST)


def _digits_table() -> np.ndarray:
    """Return 64 pixels and the label of each digit, from the file where scikit-learn has it.

    Importing scikit-learn, and pandas with it, takes longer than many a run.
    """
    package = importlib.util.find_spec("sklearn")
    for place in (package.submodule_search_locations or ()) if package else ():
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def noise() -> Dataset:
    """Return images and labels drawn uniformly, in digits' shapes: nothing that generalizes."""
    draw = generator("noise", 0, "split")
    images = draw.integers(0, BRIGHTEST + 1, (EXAMPLES, 1, 8, 8), np.uint8)
    labels = draw.integers(0, CLASSES, EXAMPLES)
    train, test = (images[TEST:], labels[TEST:]), (images[:TEST], labels[:TEST])
    return make_dataset("noise", train, test, CLASSES, BRIGHTEST)


BUNDLED = {
    "digits": Bundled(
        digits,
        "1,297 + 500 handwritten digits, 1×8×8, 10 classes, bundled",
        "f3814f133cbe59dfafb468dfcf9d88bb0bd2f10c2282407e63e5723e201a877c",
        "scikit-learn",
    ),
    "noise": Bundled(
        noise,
        "1,297 + 500 images of uniform noise, 1×8×8, 10 classes drawn at random, bundled",
        "54ee1bfd6fd80fa91cd95b4e70fcbb091ed25d0d824ddd6e89b75929d6c6998e",
        "NumPy",
    ),
}


def load_bundled(name: str) -> Dataset:
    """Return a bundled dataset; raises UsageError where its content is another."""
    expected = BUNDLED[name]
    dataset = expected.make()
    if dataset.sha256 != expected.sha256:
        raise UsageError(
            f"{expected.origin}'s {name} have content hash {dataset.sha256[:12]}…, expected "
            f"{expected.sha256[:12]}…; install {expected.origin} again."
        )
    return dataset
