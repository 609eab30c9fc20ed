"""Files that hold whole arrays: keras' .npz, MNIST's idx files, plain or compressed."""

from __future__ import annotations

import gzip
import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ht_bench.errors import UsageError, reason, shown
from ht_bench.streams.dataset import DatasetSource, Part
from ht_bench.streams.folders import missing_part
from ht_bench.streams.pictures import check_array, check_count, check_labels

LARGEST = 8 * 2**30
"""Bytes of one array at most; more is no dataset of this benchmark, but a damaged header."""
IDX = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
KEYS = (("x", "y"), ("images", "labels"))
# NumPy's header reader parses text, hence the last line.
DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile, MemoryError),
    *(NotImplementedError, RuntimeError, IndexError, struct.error),
    *(SyntaxError, tokenize.TokenError, TypeError, OverflowError, AttributeError, RecursionError),
)


# ---- .npz ----


def npz_file(path: Path) -> Path | None:
    """Return the one .npz file that `path` is or holds."""
    if path.is_file():
        return path if path.suffix == ".npz" else None
    files = [file for file in sorted(path.glob("*.npz")) if not file.name.startswith(".")]
    return files[0] if len(files) == 1 else None


def holds_npz(path: Path, source: DatasetSource) -> bool:
    """Whether there is one .npz file."""
    return npz_file(path) is not None


def read_npz(path: Path, source: DatasetSource) -> dict[str, Part]:
    """Return both parts of an .npz file with x_train, y_train, x_test, y_test; no pickles.

    train_images, train_labels and so on are read too. Raises UsageError for anything else.
    """
    file = npz_file(path)
    assert file is not None
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            parts = {}
            for part in ("train", "test"):
                keys = _keys(names, part, file)
                images, labels = (
                    _member(archive, key, source, part, f"{file}, {key}") for key in keys
                )
                if labels.ndim == 2 and labels.shape[1] == 1:  # keras' CIFAR
                    labels = labels[:, 0]
                parts[part] = (
                    check_array(source, images, f"{file}, {keys[0]}"),
                    check_labels(source, labels, f"{file}, {keys[1]}"),
                )
    except UsageError:
        raise
    except DAMAGED as error:
        raise UsageError(f"{file} cannot be read ({reason(error)}); fetch it again.") from error
    check_lengths(parts, str(file))
    return parts


def _keys(names: set[str], part: str, file: Path) -> tuple[str, str]:
    for images, labels in ((f"{x}_{part}", f"{y}_{part}") for x, y in KEYS):
        if {images, labels} <= names:
            return images, labels
    if {f"{part}_images", f"{part}_labels"} <= names:
        return f"{part}_images", f"{part}_labels"
    there = ", ".join(map(shown, sorted(names)[:8])) or "nothing"
    raise UsageError(
        f"{file} has no arrays x_{part} and y_{part}; it has {there}. Save them under these names."
    )


def _member(
    archive: zipfile.ZipFile, key: str, source: DatasetSource, part: str, where: str
) -> npt.NDArray[Any]:
    """One array, its header checked before anything is allocated for it."""
    with archive.open(f"{key}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise UsageError(f"{where} is of NumPy's format {version}; save it again.")
        shape, fortran, dtype = read(stream)
        if dtype.hasobject or dtype.kind not in "iu":
            raise UsageError(f"{where} holds {dtype}, not whole numbers; save it as such.")
        check_count(source, part, shape[0] if shape else 0, where)
        content = _read_exactly(stream, math.prod(shape) * dtype.itemsize, where)
    values: npt.NDArray[Any] = np.frombuffer(content, dtype=dtype)
    return values.reshape(shape, order="F" if fortran else "C")


# ---- idx ----


def _idx_files(path: Path) -> dict[tuple[str, str], Path]:
    """(part, what) → file, the plain one before the compressed one."""
    files: dict[tuple[str, str], Path] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else []:
        match = IDX.fullmatch(file.name)
        if match and file.is_file():
            files.setdefault(("train" if match[1] == "train" else "test", match[2]), file)
    return files


def holds_idx(path: Path, source: DatasetSource) -> bool:
    """Whether `path` has one of MNIST's files: train-images-idx3-ubyte and the like."""
    return bool(_idx_files(path))


def read_idx(path: Path, source: DatasetSource) -> dict[str, Part]:
    """Return both parts of MNIST's four files, plain or .gz, each name with - or . before idx."""
    files = _idx_files(path)
    parts = {}
    for part in ("train", "test"):
        for what in ("images", "labels"):
            if (part, what) not in files:
                name = f"{'train' if part == 'train' else 't10k'}-{what}-idx"
                raise UsageError(f"{missing_part(path, part, source)} No {name}… file is there.")
        images, labels = (
            _idx_array(files[part, what], source, part) for what in ("images", "labels")
        )
        parts[part] = (
            check_array(source, images, str(files[part, "images"])),
            check_labels(source, labels, str(files[part, "labels"])),
        )
    check_lengths(parts, str(path))
    return parts


def _idx_array(file: Path, source: DatasetSource, part: str) -> npt.NDArray[np.uint8]:
    """One file: two zero bytes, 8 for unsigned bytes, the count of dimensions, they, the data."""
    opener: Callable[..., Any] = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rb") as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08" or head[3] not in (1, 3):
                raise UsageError(f"{file} is no idx file of unsigned bytes; fetch it again.")
            shape = tuple(np.frombuffer(stream.read(4 * head[3]), dtype=">u4").tolist())
            if len(shape) != head[3]:
                raise EOFError("it ends in its header")
            check_count(source, part, shape[0], str(file))
            content = _read_exactly(stream, math.prod(shape), str(file))
            if stream.read(1):
                raise UsageError(f"{file} is longer than its header says; fetch it again.")
    except UsageError:
        raise
    except DAMAGED as error:
        raise UsageError(f"{file} cannot be read ({reason(error)}); fetch it again.") from error
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


# ---- both ----


def _read_exactly(stream: IO[bytes], size: int, where: str) -> bytearray:
    """Read `size` bytes, memory growing only with what is really there."""
    if size > LARGEST:
        raise UsageError(
            f"{where} claims {size:,} bytes; at most {LARGEST:,} are read. Fetch it again."
        )
    content = bytearray()
    while len(content) < size:
        piece = stream.read(min(2**24, size - len(content)))
        if not piece:
            raise UsageError(
                f"{where} ends after {len(content):,} of {size:,} bytes; fetch it again."
            )
        content += piece
    return content


def check_lengths(parts: dict[str, Part], where: str) -> None:
    """Raise UsageError where a part has another number of labels than of images."""
    for part, (images, labels) in parts.items():
        if len(images) != len(labels):
            raise UsageError(
                f"{where}: {len(images):,} {part} images but {len(labels):,} labels; fetch the "
                "files again."
            )
