"""A replay buffer comes back as it was, and frames of images are saved once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor

from ht_bench.sb3.device_replay import move_to_device
from ht_bench.training.replay_state import buffer_state, restore_buffer

SIZE, FRAMES = 1300, 4
PICTURES = spaces.Box(0, 255, (FRAMES, 6, 5), np.uint8)


def play(buffer: Any, steps: int, copies: int) -> None:
    """Add stacks of random frames; episodes end at random, each copy's at its own times."""
    draw = np.random.default_rng(0)
    frame = (copies, 6, 5)
    stacks = np.repeat(draw.integers(0, 256, frame, np.uint8)[:, None], FRAMES, 1)
    for _ in range(steps):
        new = np.concatenate([stacks[:, 1:], draw.integers(0, 256, frame, np.uint8)[:, None]], 1)
        done = draw.random(copies) < 0.05
        buffer.add(stacks, new, draw.integers(0, 3, (copies, 1)), draw.random(copies), done, [{}])
        first = np.repeat(draw.integers(0, 256, frame, np.uint8)[:, None], FRAMES, 1)
        stacks = np.where(done[:, None, None, None], first, new)


def as_tensors(buffer: Any) -> None:
    """Hold rows as a CUDA device does: tensors."""
    for name, value in vars(buffer).items():
        if isinstance(value, np.ndarray):
            setattr(buffer, name, torch.from_numpy(value))


KINDS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "stock": ({}, lambda buffer: None),
    "memory": (
        {"optimize_memory_usage": True, "handle_timeout_termination": False},
        lambda buffer: None,
    ),
    "fast": ({}, lambda buffer: move_to_device(buffer) and buffer.rows),
    "tensors": ({}, as_tensors),
}


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("steps", [1, 511, 512, 1299, 1300, 2000])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_comes_back(kind: str, steps: int, copies: int) -> None:
    options, change = KINDS[kind]

    def made() -> Any:
        return ReplayBuffer(SIZE * copies, PICTURES, spaces.Discrete(3), n_envs=copies, **options)

    buffer, other = made(), made()
    play(buffer, steps, copies)
    for each in (buffer, other):
        change(each)
    state = buffer_state(buffer)
    restore_buffer(other, state)
    assert (other.pos, other.full) == (buffer.pos, buffer.full)
    for name, value in vars(buffer).items():
        if isinstance(value, np.ndarray | Tensor):
            assert bool((getattr(other, name) == value).all()), name
    if steps > 600:  # of a short episode's twenty frames one stack is whole, and another next one
        assert held(state["frames"]) < 0.5 * buffer.observations.nbytes


def held(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state
    return sum(map(held, parts)) if isinstance(state, dict | list) else 0
