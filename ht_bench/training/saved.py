"""What torch saved, read as tensors and plain values alone."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import torch
from torch import _weights_only_unpickler as _unpickler

from ht_bench.streams.programs import check_program

OLD_PICKLES = 5
"""In a row, in what torch saved before it wrote zip files."""
MOST_UNPACKED = 10
"""Bytes that one byte of a zip file may stand for; torch compresses nothing."""
LONGEST_REFUSAL = 1_000


class _BriefError(pickle.UnpicklingError):
    """Says why something is not loaded.

    torch quotes what it refuses, whole, and searches the sentence by patterns in time that grows
    with the square of its length: a file of 100 kB took minutes to refuse.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(str(sentence)[:LONGEST_REFUSAL])


@contextlib.contextmanager
def _brief() -> Iterator[None]:
    module: Any = _unpickler
    before = module.UnpicklingError
    module.UnpicklingError = _BriefError
    try:
        yield
    finally:
        module.UnpicklingError = before


def load_tensors(content: BinaryIO, places: str | Callable[[Any, str], Any] = "cpu") -> Any:
    """Return what `torch.save` wrote into an open file; no code of the file's runs.

    places: where tensors go, as `torch.load`'s map_location. Raises pickle.UnpicklingError for
    more than plain values, ValueError for pickles that ask for too much, and what torch raises for
    other files.
    """
    size = content.seek(0, io.SEEK_END)
    content.seek(0)
    if zipfile.is_zipfile(content):
        with zipfile.ZipFile(content) as archive:
            check_sizes(archive, size)
            for member in archive.infolist():
                if member.filename.endswith(".pkl"):
                    _look_at_pickles(io.BytesIO(archive.read(member)), member.file_size)
    else:
        content.seek(0)
        _look_at_pickles(content, size, OLD_PICKLES)
    content.seek(0)
    with _brief():
        return torch.load(content, map_location=places, weights_only=True)


def check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError for an archive of `size` bytes that claims to be much larger."""
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MOST_UNPACKED * (size + 2**16):
        raise ValueError(f"it claims to unpack to {unpacked:,} bytes")


def _look_at_pickles(stream: BinaryIO, size: int, count: int = 1) -> None:
    first = stream.read(1)
    stream.seek(-len(first), io.SEEK_CUR)
    if first != b"\x80":  # torch reads tar files, too
        raise ValueError("it is no file of torch.save")
    for _ in range(count):
        check_program(stream, size)
