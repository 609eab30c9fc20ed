"""A dataset as uint8 arrays in canonical order, with its content hash. No torch."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Part = tuple[Images, Labels]
"""Training or test: images uint8 [N, C, H, W] and labels int64 [N]."""


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [N, C, H, W] and labels int64 [N], for training and for test.

    mean and std are per channel over the training images, in units of `max_value`, the largest
    pixel value there can be (255; digits: 16). sha256 is over the content, see `content_hash`.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_value: int
    sha256: str

    @functools.cached_property
    def normalisation(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the mean and deviation, [C, 1, 1], to subtract from pixels and to divide by."""
        mean, deviation = np.array([self.mean, self.std], np.float32)[..., None, None]
        return mean * self.max_value, deviation * self.max_value


@dataclass(frozen=True)
class DatasetSource:
    """A known dataset: its place on the hub, its columns, its images' shape and its content.

    shape: (channels, height, width). sha256: the content hash it must have, if it is known.
    train, tests: how many examples it must have, if that is known; balanced: whether every class
    has as many as the next. colours: see `ht_bench.streams.pins`. folders, archives: what its
    files and folders are called as others unpack and download them.
    """

    name: str
    description: str
    hub: str
    image: str
    label: str
    shape: tuple[int, int, int]
    classes: int
    test: str = "test"
    sha256: str | None = None
    train: int | None = None
    tests: int | None = None
    balanced: bool = False
    colours: str = ""
    folders: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()


def canonical_order(images: Images, labels: Labels) -> npt.NDArray[np.int64]:
    """Return the order of examples by (pixels, label): the same from whatever file they came."""
    flat = np.ascontiguousarray(images.reshape(len(images), -1))
    pixels = flat.view(np.dtype((np.void, flat.shape[1]))).ravel()
    return np.lexsort((labels, np.unique(pixels, return_inverse=True)[1]))


def content_hash(
    train_images: Images, train_labels: Labels, test_images: Images, test_labels: Labels
) -> str:
    """Return the sha256 over shapes, pixels and labels, training then test."""
    digest = hashlib.sha256()
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        digest.update(repr(tuple(int(n) for n in images.shape)).encode())
        digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def make_dataset(
    name: str,
    train: Part,
    test: Part,
    classes: int,
    max_value: int = 255,
) -> Dataset:
    """Sort both parts canonically, measure and hash them."""
    (x, y), (test_x, test_y) = _in_order(*train), _in_order(*test)
    mean, std = channel_statistics(x, max_value)
    sha256 = content_hash(x, y, test_x, test_y)
    return Dataset(name, x, y, test_x, test_y, classes, mean, std, max_value, sha256)


def _in_order(images: Images, labels: Labels) -> Part:
    order = canonical_order(images, labels)
    return np.ascontiguousarray(images[order]), labels[order].astype(np.int64)


def channel_statistics(
    images: Images, max_value: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation, exact, in units of `max_value`."""
    values = np.arange(256) / max_value
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        mean = float((counts * values).sum() / counts.sum())
        means.append(mean)
        deviations.append(float((counts * (values - mean) ** 2).sum() / counts.sum()) ** 0.5)
    return tuple(means), tuple(deviations)
