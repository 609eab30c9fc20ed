"""Archives as downloaded (.tar.gz, .zip): unpacked for a moment, within bounds."""

from __future__ import annotations

import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ht_bench.errors import UsageError, reason

LARGEST = 8 * 2**30
"""Bytes that an archive may unpack to."""
MOST_FILES = 1_000_000
SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
DAMAGED = (
    *(OSError, EOFError, ValueError, zlib.error, tarfile.TarError, zipfile.BadZipFile),
    *(NotImplementedError, RuntimeError, MemoryError, OverflowError),
    *(IndexError, KeyError, TypeError, AttributeError, struct.error),  # of headers, by zipfile
)


def is_archive(path: Path) -> bool:
    """Whether a file is called as an archive that can be unpacked."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with an archive's files; raises UsageError for a damaged or huge one.

    Only files and folders inside it are made: no links, no devices, nothing outside.
    """
    folder = Path(tempfile.mkdtemp(prefix="ht-bench-"))
    try:
        try:
            (_unzip if path.name.lower().endswith(".zip") else _untar)(path, folder)
        except UsageError:
            raise
        except DAMAGED as error:
            raise UsageError(
                f"{path} cannot be unpacked ({reason(error)}); fetch it again."
            ) from error
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Bounds:
    """Counts files and bytes, and refuses an archive that goes beyond."""

    def __init__(self, path: Path) -> None:
        self.path, self.files, self.bytes = path, 0, 0

    def add(self, size: int) -> None:
        self.files, self.bytes = self.files + 1, self.bytes + size
        if self.files > MOST_FILES or self.bytes > LARGEST:
            raise UsageError(
                f"{self.path} holds more than {LARGEST:,} bytes or {MOST_FILES:,} files; it is "
                "no dataset of this benchmark."
            )


def _untar(path: Path, folder: Path) -> None:
    bounds = _Bounds(path)
    with tarfile.open(path) as archive:
        for member in archive:
            bounds.add(member.size)
            if member.isfile() or member.isdir():
                archive.extract(member, folder, filter="data")


def _unzip(path: Path, folder: Path) -> None:
    bounds = _Bounds(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            bounds.add(member.file_size)
        archive.extractall(folder)
