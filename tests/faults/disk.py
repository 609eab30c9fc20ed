"""A disk that can be filled: a small file system in memory, or a limit on the size of files.

The file system needs the right to mount (root's, or a user namespace); where there is none, every
process of the round is forbidden to write to files at all, which fails alike with another number.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterable
from pathlib import Path

import psutil

_NEW_USERS, _NEW_MOUNTS = 0x10000000, 0x00020000
_PRIVATE_ALL, _DETACH = (1 << 18) | (1 << 14), 2
SIZE = "64m"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def own_mounts() -> bool:
    """Give this process mounts that no other sees and that go with it; whether that was allowed."""
    flags = _NEW_MOUNTS | (_NEW_USERS if os.geteuid() else 0)
    try:
        libc = _libc()
        return not libc.unshare(flags) and not libc.mount(b"none", b"/", None, _PRIVATE_ALL, None)
    except (OSError, AttributeError):  # no Linux
        return False


class FileSystem:
    """A small file system of its own at `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.ballast = folder, folder / "ballast"
        place, size = os.fsencode(folder), f"size={SIZE}".encode()
        if _libc().mount(b"tmpfs", place, b"tmpfs", 0, size):
            raise OSError(ctypes.get_errno(), "cannot mount")

    def fill(self, processes: Iterable[psutil.Process]) -> None:
        """Take all the space there is."""
        with contextlib.suppress(OSError), self.ballast.open("ab", buffering=0) as file:
            while file.write(b"0" * 2**16):
                pass

    def free(self, processes: Iterable[psutil.Process]) -> None:
        """Give it back."""
        self.ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the file system with all that it holds."""
        _libc().umount2(os.fsencode(self.folder), _DETACH)


class SizeLimit:
    """No file of `processes` can grow, as if the disk were full."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)

    def fill(self, processes: Iterable[psutil.Process]) -> None:
        """Forbid them, and those that they start from now on, to write."""
        _limit(processes, 0)

    def free(self, processes: Iterable[psutil.Process]) -> None:
        """Allow it again."""
        _limit(processes, resource.RLIM_INFINITY)

    def close(self) -> None:
        """Nothing is left."""


def _limit(processes: Iterable[psutil.Process], size: int) -> None:
    for process in processes:
        with contextlib.suppress(OSError):  # it has ended
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))
