"""One process trains a run at a time: a lock that the system drops when its holder dies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ht_bench.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: no advisory locks; runs there are not protected from each other
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(folders: Iterable[Path]) -> Iterator[None]:
    """Hold the lock file of every folder; raises UsageError if another process holds one."""
    descriptors: list[int] = []
    try:
        for folder in folders:
            descriptors.append(_lock(folder))
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be written ({error.strerror or error}); "
            "name another with --out."
        ) from error
    if fcntl is None:
        return descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"Another process is training {folder}; wait for it to end, or name another --out."
        ) from error
    return descriptor
