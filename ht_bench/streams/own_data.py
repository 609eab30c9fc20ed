"""Datasets from outside: a function that returns arrays, registered, installed or in a file.

The function takes no argument and returns ((train images, labels), (test images, labels)) and, if
it likes, the number of classes. Images are [N, C, H, W]; [N, H, W] is one channel, [N, F] rows of
numbers. Pixels are whole numbers of 0 to 255. Floating ones of 0 to 1 are rounded to 256 levels,
round(255 x), since everything here is bytes; other ranges are refused, not guessed at.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ht_bench import registry
from ht_bench.errors import UsageError, reason, telling
from ht_bench.streams.dataset import Dataset, Part, make_dataset

FORM = "((train images, labels), (test images, labels)), with the number of classes behind or not"
LARGEST = 255


@functools.lru_cache(maxsize=4)
def call(function: Callable[[], Any], name: str) -> Dataset:
    """Return the dataset that a function makes, called once in a process.

    Raises UsageError where the function fails, or returns other than images and labels.
    """
    with telling(f"The dataset '{name}' failed"):
        answer = function()
    if not isinstance(answer, tuple | list) or len(answer) not in (2, 3):
        raise UsageError(f"The dataset '{name}' returns {type(answer).__name__}, not {FORM}.")
    train, test = (_part(part, name) for part in answer[:2])
    if train[0].shape[1:] != test[0].shape[1:]:
        raise UsageError(
            f"The dataset '{name}' has training images of shape {train[0].shape[1:]} and test "
            f"images of {test[0].shape[1:]}; make them alike."
        )
    most = int(max(train[1].max(), test[1].max())) + 1
    classes = int(answer[2]) if len(answer) == 3 else most
    if classes < most:
        raise UsageError(f"The dataset '{name}' has labels up to {most - 1} for {classes} classes.")
    return make_dataset(name, train, test, classes)


def find(name: str) -> Callable[[], Any]:
    """Return the function that a name or reference stands for; raises UsageError otherwise."""
    function = registry.datasets.find(name)
    if not callable(function):
        raise UsageError(f"The dataset '{name}' is {type(function).__name__}, not a function.")
    return function  # type: ignore[no-any-return]


def short(name: str) -> str:
    """Return a dataset's name without the folders of its file: the same on every machine."""
    return Path(name).name if ".py:" in name else name


def description(function: Callable[[], Any]) -> str:
    """Return the first line of what a function says of itself."""
    return (function.__doc__ or "").strip().partition("\n")[0]


def _part(part: Any, name: str) -> Part:
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise UsageError(f"The dataset '{name}' returns {type(part).__name__}s, not {FORM}.")
    try:
        images, labels = _images(np.asarray(part[0]), name), np.asarray(part[1])
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"The dataset '{name}' is of uneven arrays: {reason(error)}.") from error
    if labels.ndim != 1 or len(labels) != len(images) or not len(labels):
        raise UsageError(
            f"The dataset '{name}' has {len(images)} images and labels of shape {labels.shape}; "
            "give each image a label."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise UsageError(
            f"The dataset '{name}' has labels of {labels.dtype}, the least {labels.min()}; classes "
            "are whole numbers from 0."
        )
    return images, labels.astype(np.int64)


def _images(images: np.ndarray, name: str) -> np.ndarray:
    if images.ndim not in (2, 3, 4) or not images.size:
        raise UsageError(
            f"The dataset '{name}' has images of shape {images.shape}; give [N, C, H, W]."
        )
    if images.ndim == 4 and images.shape[1] > 4 >= images.shape[3]:
        raise UsageError(
            f"The dataset '{name}' has images of shape {images.shape}; channels come first, "
            "[N, C, H, W]."
        )
    shape = {2: (len(images), 1, 1, -1), 3: (len(images), 1, *images.shape[1:])}
    return _bytes(images, name).reshape(shape.get(images.ndim, images.shape))


def _bytes(images: np.ndarray, name: str) -> np.ndarray:
    is_floating = np.issubdtype(images.dtype, np.floating)
    if not is_floating and not np.issubdtype(images.dtype, np.integer):
        raise UsageError(f"The dataset '{name}' has images of {images.dtype}; give uint8.")
    low, high, most = images.min(), images.max(), 1 if is_floating else LARGEST
    if not (low >= 0 and high <= most):  # nan neither
        raise UsageError(
            f"The dataset '{name}' has pixels of {low:g} to {high:g} as {images.dtype}; scale them "
            f"to 0 … {most}{', of which 256 levels are kept' if is_floating else ''}."
        )
    return (np.rint(images * LARGEST) if is_floating else images).astype(np.uint8)
