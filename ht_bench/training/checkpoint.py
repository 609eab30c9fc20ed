"""Checkpoints: written atomically, read with `weights_only=True`, matched by fingerprint.

The file is the sha256 of the rest, 32 bytes, then what torch saved: a damaged pickle could raise
anything, or load as other numbers. The one before is kept beside it, as `NAME.old`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ht_bench.files import atomic_file, remove_leftovers
from ht_bench.training.saved import load_tensors

LAYOUT = 3
"""Of a run's state: a file of another layout is not read."""
HASH = 32
"""Bytes of a sha256."""
_OLD = ".old"


@dataclass(frozen=True)
class CheckpointPlan:
    """Where the checkpoint lies (None: nowhere), whose it is, and the seconds between two."""

    path: Path | None = None
    fingerprint: str = ""
    seconds: float = 120.0


def save(path: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under the run's fingerprint.

    The last checkpoint becomes the one before, and that of before goes: at every instant one of
    them is whole. Raises UsageError, with the last one still in place, when the disk is
    full, or would be half as empty as it is.
    """
    with atomic_file(path, keep=before(path)) as file:
        file.write(bytes(HASH))
        # Half of what is free stays free: results have to find room.
        content: Any = _Hashing(file, shutil.disk_usage(path.parent).free // 2)
        torch.save({"whose": [LAYOUT, fingerprint], "state": state}, content)
        digest = content.digest()
        file.seek(0)
        file.write(digest)


def load(path: Path, fingerprint: str, device: str = "cpu") -> dict[str, Any] | None:
    """Return the newest whole state saved for `fingerprint`, or None where there is none.

    With device "cuda" each tensor comes back where it was, on the CPU or on the present CUDA
    device: an optimizer's `step` is on the host, save for fused steps, and stays there. A broken
    or foreign checkpoint is left out with a warning; the run then goes on from the one before, or
    starts anew. No other process may be saving to `path`.
    """
    remove_leftovers(path)
    faults: list[str] = []
    for file in _generations(path):
        state, fault = _read(file, fingerprint, device)
        if state is not None:
            if faults:
                _tell(f"{faults[0]}; this run goes on from the one before.")
            if file != path:  # or saving would put what is of no use in the place of this one
                with contextlib.suppress(OSError):
                    os.replace(file, path)
            return state
        faults.append(f"The checkpoint {file} {fault}" if not faults else f"the one before {fault}")
    if faults:
        _tell(f"{', '.join(faults)}; this run starts anew.")
    return None


def before(path: Path) -> Path:
    """Return where the checkpoint before the one at `path` lies."""
    return path.with_name(path.name + _OLD)


def exists(path: Path) -> bool:
    """Whether a checkpoint is there, or the one before."""
    return bool(_generations(path))


def remove(path: Path) -> None:
    """Delete the checkpoint, the one before, and what a killed process left in writing them."""
    path.unlink(missing_ok=True)
    before(path).unlink(missing_ok=True)
    remove_leftovers(path)


def find(folder: Path) -> list[Path]:
    """Return the stacks' checkpoints in a folder, also those of which only the one before is there.

    Whether they can be read is not looked at.
    """
    found = [*folder.glob("stack-*.pt"), *folder.glob(f"stack-*.pt{_OLD}")]
    files = {file.with_name(file.name.removesuffix(_OLD)) for file in found}
    return sorted(files, key=lambda file: file.stem)


def _generations(path: Path) -> list[Path]:
    """Return the files that are there, the newest first."""
    return [file for file in (path, before(path)) if file.exists()]


def _read(file: Path, fingerprint: str, device: str) -> tuple[dict[str, Any] | None, str]:
    """Return the state in a file; or None, and what is wrong with it."""
    try:
        with _whole(file) as content:
            saved = load_tensors(content, _places(device))
        if saved["whose"] == [LAYOUT, fingerprint]:
            return dict(saved["state"]), ""
    except Exception:  # a pickle may raise anything
        return None, "is unreadable"
    return None, f"is of {_difference(saved['whose'], fingerprint)}"


_FOREIGN = "another machine, of other software, code or settings"
_PARTS = {
    "hardware": "another machine",
    "software": "other software",
    "version": "other software",
    "source": "other code of the method",
    "task": "another task",
    "data": "other data",
}
"""Parts of a fingerprint in words; what is not here is a setting."""


def _difference(whose: Any, fingerprint: str) -> str:
    """Say in what another's fingerprint differs, as far as both can be read."""
    try:
        layout, text = whose
        theirs, mine = json.loads(text), json.loads(fingerprint)
        keys = [key for key in mine if mine[key] != theirs[key]]
    except (TypeError, ValueError, KeyError):  # whatever a file holds
        return _FOREIGN
    if layout != LAYOUT or not keys:
        return _FOREIGN
    return " and ".join(dict.fromkeys(_PARTS.get(key, "other settings") for key in keys))


def _places(device: str) -> str | Callable[[Any, str], Any]:
    """Return where tensors go, as `torch.load` takes it."""
    if device == "cpu":
        return "cpu"
    return lambda storage, place: storage if place == "cpu" else storage.cuda()


class _Hashing(io.RawIOBase):
    """Passes bytes on to a file, and hashes them: a replay buffer is not copied in memory.

    torch turns an error of a full disk into another one, so it is put off to `digest()`.
    """

    def __init__(self, file: BinaryIO, room: int) -> None:
        self._file, self._hash, self._room = file, hashlib.sha256(), room
        self._error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            if self._error is None:
                self._room -= len(content)
                if self._room < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._hash.update(content)
                self._file.write(content)
        except OSError as error:
            self._error = error
        return len(content)

    def digest(self) -> bytes:
        if self._error is not None:
            raise self._error
        return self._hash.digest()


class _AfterHash(io.FileIO):
    """A checkpoint's file, which to torch begins after the hash."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(offset + HASH * (whence == os.SEEK_SET), whence) - HASH

    def tell(self) -> int:
        return super().tell() - HASH


def _whole(path: Path) -> _AfterHash:
    """Open what torch saved; raises EOFError unless every byte is as it was written."""
    with path.open("rb") as file:
        digest = file.read(HASH)
        if hashlib.file_digest(file, "sha256").digest() != digest:
            raise EOFError(f"{path} is damaged")
    content = _AfterHash(path)
    content.seek(0)
    return content


def _tell(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)
