"""Checkpoints: written atomically, read with `weights_only=True`, matched by fingerprint."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from ht_bench.files import write_atomically


def save(path: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under the run's fingerprint.

    Raises UsageError, with the last checkpoint still in place, when the disk is full.
    """
    buffer = io.BytesIO()
    torch.save({"fingerprint": fingerprint, "state": state}, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, fingerprint: str, device: str = "cpu") -> dict[str, Any] | None:
    """Return the state saved for `fingerprint`, or None: no file, another run's, or a broken one.

    A broken or foreign checkpoint is left out with a warning; the run then starts anew.
    """
    if not path.exists():
        return None
    try:
        saved = torch.load(path, weights_only=True, map_location=device)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError):
        warnings.warn(f"The checkpoint {path} is unreadable; this run starts anew.", stacklevel=2)
        return None
    if not isinstance(saved, dict) or saved.get("fingerprint") != fingerprint:
        warnings.warn(
            f"The checkpoint {path} is of other software or settings; this run starts anew.",
            stacklevel=2,
        )
        return None
    state: dict[str, Any] = saved["state"]
    return state
