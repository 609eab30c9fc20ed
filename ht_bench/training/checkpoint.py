"""Checkpoints: written atomically, read with `weights_only=True`, matched by fingerprint.

The file is the sha256 of the rest, 32 bytes, then what torch saved: a damaged pickle could raise
anything, or load as other numbers.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ht_bench.files import write_atomically

LAYOUT = 2
"""Of a run's state: a file of another layout is not read."""


@dataclass(frozen=True)
class CheckpointPlan:
    """Where the checkpoint lies (None: nowhere), whose it is, and the seconds between two."""

    path: Path | None = None
    fingerprint: str = ""
    seconds: float = 120.0


def save(path: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under the run's fingerprint.

    Raises UsageError, with the last checkpoint still in place, when the disk is full.
    """
    buffer = io.BytesIO()
    torch.save({"whose": [LAYOUT, fingerprint], "state": state}, buffer)
    content = buffer.getvalue()
    write_atomically(path, hashlib.sha256(content).digest() + content)


def load(path: Path, fingerprint: str, device: str = "cpu") -> dict[str, Any] | None:
    """Return the state saved for `fingerprint`, or None: no file, another run's, or a broken one.

    With device "cuda" each tensor comes back where it was, on the CPU or on the present CUDA
    device: an optimizer's `step` is on the host, save for fused steps, and stays there. A broken
    or foreign checkpoint is left out with a warning; the run then starts anew.
    """
    if not path.exists():
        return None
    try:
        content = io.BytesIO(_whole(path))
        saved = torch.load(content, weights_only=True, map_location=_places(device))
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError):
        warnings.warn(f"The checkpoint {path} is unreadable; this run starts anew.", stacklevel=2)
        return None
    if not isinstance(saved, dict) or saved.get("whose") != [LAYOUT, fingerprint]:
        warnings.warn(
            f"The checkpoint {path} is of another machine, of other software or settings; this run "
            "starts anew.",
            stacklevel=2,
        )
        return None
    state: dict[str, Any] = saved["state"]
    return state


def _places(device: str) -> str | Callable[[Any, str], Any]:
    """Return where tensors go, as `torch.load` takes it."""
    if device == "cpu":
        return "cpu"
    return lambda storage, place: storage if place == "cpu" else storage.cuda()


def _whole(path: Path) -> bytes:
    """Return what torch saved; raises EOFError unless every byte is as it was written."""
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise EOFError(f"{path} is damaged")
    return content[32:]
