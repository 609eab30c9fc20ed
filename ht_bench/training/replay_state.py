"""A replay buffer, as a checkpoint holds it: rows in use, and frames of images once.

A stack of frames has all but its newest in common with the stack before it, and what an
observation leads to is the next one: of 8 frames in a row of Atari's 7 are elsewhere too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ht_bench.training.encoding import decode, encode

Rows = np.ndarray[Any, Any]
_BLOCK = 512
"""Rows that are compared at a time."""
_NOW, _NEXT = "observations", "next_observations"


def buffer_state(buffer: Any) -> dict[str, Any]:
    """Return a ReplayBuffer's state: tensors, numbers, lists; it shares the buffer's memory."""
    # The row after the last one may hold the last next observation (optimize_memory_usage).
    rows = buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)
    kept: dict[str, Any] = {}
    frames = None
    for name, value in vars(buffer).items():
        if _is_rows(value, buffer):
            if name in (_NOW, _NEXT) and _is_frames(value):
                frames = frames or _encode_frames(buffer, rows)
            else:
                kept[name] = _encode_rows(value[:rows])
        elif isinstance(value, dict) and value and all(_is_rows(v, buffer) for v in value.values()):
            kept[name] = {key: _encode_rows(part[:rows]) for key, part in value.items()}
        elif isinstance(value, torch.Generator):
            kept[name] = value.get_state()
    return {"pos": buffer.pos, "full": buffer.full, "rows": rows, "kept": kept, "frames": frames}


def restore_buffer(buffer: Any, state: Mapping[str, Any]) -> None:
    """Take over what `buffer_state` returned, in an empty buffer of the same class and size."""
    buffer.pos, buffer.full = state["pos"], state["full"]
    for name, saved in state["kept"].items():
        value = getattr(buffer, name)
        if isinstance(value, torch.Generator):
            value.set_state(saved.cpu())
        elif isinstance(value, dict):
            for key, part in saved.items():
                value[key][: state["rows"]] = _decode_rows(part, value[key])
        else:
            value[: state["rows"]] = _decode_rows(saved, value)
    if state["frames"]:
        _restore_frames(buffer, state["rows"], decode(state["frames"]))


def _is_rows(value: Any, buffer: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.shape[:1] == (buffer.buffer_size,)


def _encode_rows(rows: Any) -> Any:
    return rows.cpu() if isinstance(rows, Tensor) else encode(rows)


def _decode_rows(saved: Any, into: Any) -> Any:
    """Return rows for an array or a tensor, whichever they were saved from."""
    rows = saved.cpu() if isinstance(saved, Tensor) else torch.from_numpy(decode(saved))
    return rows if isinstance(into, Tensor) else rows.numpy()


# ---- frames ----


def _is_frames(value: Any) -> bool:
    """Whether rows are stacks of images: [row, environment, frame, height, width] of bytes."""
    return value.ndim == 5 and value.shape[2] > 1 and str(value.dtype).endswith("uint8")


def _encode_frames(buffer: Any, rows: int) -> Any:
    """Return every stack's newest frame, and whole the stacks that do not follow from another."""
    now, later = getattr(buffer, _NOW), getattr(buffer, _NEXT, None)
    state = {"newest": _host(now[:rows, :, -1]), _NOW: _strays(now, rows, _not_following(now))}
    if later is not None:
        state[_NEXT] = _strays(later, rows, _not_the_next(now, later, rows))
    return encode(state)


def _restore_frames(buffer: Any, rows: int, state: Mapping[str, Any]) -> None:
    now, later = getattr(buffer, _NOW), getattr(buffer, _NEXT, None)
    now[:rows, :, -1] = _like(now, state["newest"])
    places, stacks = state[_NOW]
    for frame in reversed(range(now.shape[2] - 1)):
        now[1:rows, :, frame] = now[: rows - 1, :, frame + 1]
        now[(*places, frame)] = _like(now, stacks[:, frame])
    if later is not None:
        places, stacks = state[_NEXT]
        later[: rows - 1] = now[1:rows]
        later[tuple(places)] = _like(later, stacks)


def _strays(array: Any, rows: int, are_strays: Callable[[int, int], Rows]) -> list[Any]:
    """Return (rows, environments) and stacks; are_strays(start, end): bool [rows, environments]."""
    starts = range(0, rows, _BLOCK)
    marks = np.concatenate([are_strays(k, min(k + _BLOCK, rows)) for k in starts])
    places = np.nonzero(marks)
    return [list(places), _host(array[places])]


def _not_following(now: Any) -> Callable[[int, int], Rows]:
    def are_strays(start: int, end: int) -> Rows:
        stacks = _host(now[max(start - 1, 0) : end])
        differ = (stacks[1:, :, :-1] != stacks[:-1, :, 1:]).any(axis=(2, 3, 4))
        return differ if start else np.concatenate([np.ones((1, *differ.shape[1:]), bool), differ])

    return are_strays


def _not_the_next(now: Any, later: Any, rows: int) -> Callable[[int, int], Rows]:
    def are_strays(start: int, end: int) -> Rows:
        following, stacks = _host(now[start + 1 : min(end + 1, rows)]), _host(later[start:end])
        differ = np.ones(stacks.shape[:2], bool)
        differ[: len(following)] = (stacks[: len(following)] != following).any(axis=(2, 3, 4))
        return differ

    return are_strays


def _host(part: Any) -> Rows:
    return part.cpu().numpy() if isinstance(part, Tensor) else part


def _like(array: Any, values: Rows) -> Any:
    return torch.from_numpy(values) if isinstance(array, Tensor) else values
