"""Pictures of any layout → uint8 arrays of the dataset's shape, or a sentence that names one."""

from __future__ import annotations

import struct
import sys
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ht_bench.errors import UsageError, reason
from ht_bench.streams.dataset import DatasetSource, Images, Labels

MODES = ("L", "RGB", "1", "P")
"""Pillow's modes that convert to grey or RGB of 8 bits; of the others something would be lost."""
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""Of files, whatever they are called: of the others Pillow hands some to a program (EPS)."""
MOST_IMAGES = 10**7
"""Of a part whose count is not known."""
# What Pillow's readers raise on damaged files, its error of too large a picture apart.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError),
    *(KeyError, IndexError, TypeError, AttributeError, struct.error, zlib.error),
)


def decode(
    source: DatasetSource, pictures: Iterable[tuple[Path | IO[bytes], str]], count: int
) -> Images:
    """Return `count` pictures, each a file and the words that name it, as [N, C, H, W].

    Raises UsageError naming the first that is damaged, of another size or of another kind.
    """
    from PIL.Image import DecompressionBombWarning
    from tqdm import tqdm

    images = np.empty((count, *source.shape), dtype=np.uint8)
    bar = tqdm(
        pictures,
        desc=f"decoding {source.name}",
        total=count,
        leave=False,
        mininterval=0.1 if sys.stderr.isatty() else 30,
        maxinterval=60,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DecompressionBombWarning)  # the size is checked first
        for index, (file, where) in enumerate(bar):
            images[index] = _decode_one(source, file, where)
    return images


def _decode_one(source: DatasetSource, file: Path | IO[bytes], where: str) -> Images:
    from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as picture:
            _check(source, picture, where)
            mode = "L" if source.shape[0] == 1 else "RGB"
            pixels = np.asarray(picture.convert(mode), dtype=np.uint8)
    except UsageError:
        raise
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise UsageError(
            f"{where} cannot be decoded ({reason(error)}); replace that file."
        ) from error
    return pixels[None] if source.shape[0] == 1 else pixels.transpose(2, 0, 1)


def _check(source: DatasetSource, picture: Any, where: str) -> None:
    _, height, width = source.shape
    if (picture.width, picture.height) != (width, height):
        raise UsageError(
            f"{where} is {picture.width}×{picture.height}, but {source.name}'s are "
            f"{width}×{height}."
        )
    if picture.mode not in MODES:
        raise UsageError(
            f"{where} is of mode {picture.mode}, but {source.name}'s are of 8 bits, grey or RGB."
        )


def check_labels(source: DatasetSource, values: Any, where: str) -> Labels:
    """Return labels as int64 [N]; raises UsageError unless each is the number of a class."""
    try:
        labels = np.asarray(values)
    except (ValueError, OverflowError):  # lists within lists
        labels = np.empty(0)
    whole = labels.ndim == 1 and len(labels) > 0 and labels.dtype.kind in "iu"
    if not whole or labels.min() < 0 or labels.max() >= source.classes:
        raise UsageError(
            f"{where}: labels must be whole numbers and lie in 0 … {source.classes - 1}."
        )
    return labels.astype(np.int64)


def check_count(source: DatasetSource, part: str, count: int, where: str) -> None:
    """Raise UsageError for a file that claims far more examples than the dataset's part has.

    Whoever reads it then makes room for no more than that; the exact counts are checked at the end.
    """
    known = source.train if part == "train" else source.tests
    most = MOST_IMAGES if known is None else 2 * known
    if not 0 <= count <= most:
        raise UsageError(
            f"{where} claims {count:,} {part} images, but {source.name} has "
            f"{'at most ' if known is None else ''}{known or most:,}; fetch it again."
        )


def check_array(source: DatasetSource, values: npt.NDArray[Any], where: str) -> Images:
    """Return an array of all images as [N, C, H, W], whichever side its channels stand on.

    Raises UsageError unless it holds unsigned bytes of the dataset's shape.
    """
    channels, height, width = source.shape
    shape = values.shape[1:]
    if values.dtype == np.uint8 and len(values):
        if shape == (height, width, channels) and channels != height:
            return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        flat = (channels * height * width,)
        if shape in (source.shape, flat) or (shape == (height, width) and channels == 1):
            return values.reshape(len(values), *source.shape)
    raise UsageError(
        f"{where} holds {values.dtype} of shape {list(values.shape)}; {source.name}'s images are "
        f"unsigned bytes (uint8), {channels} × {height} × {width} each."
    )
