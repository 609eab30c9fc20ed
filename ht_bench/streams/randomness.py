"""Common random numbers: every draw has a key, so no draw shifts another (PROTOCOL).

A key is (task name, seed, purpose, phase, epoch); where epochs are drawn a block at a time, the
block's number. At one seed all methods therefore see the same data in the same order from the same
initial weights.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

Purpose = Literal[
    "split",
    "arrival",
    "kept",
    "wrong labels",
    "permutation",
    "initial weights",
    "fresh weights",
    "batch order",
    "augmentation",
    "dropout",
    "method",
    "agent",
    "evaluation",
]


def key(task: str, seed: int, purpose: Purpose, phase: int = 0, epoch: int = 0) -> int:
    """Return the 128-bit integer that starts the draws of this purpose, phase and epoch."""
    text = f"{task}|{seed}|{purpose}|{phase}|{epoch}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def generator(
    task: str, seed: int, purpose: Purpose, phase: int = 0, epoch: int = 0
) -> np.random.Generator:
    """Return a fresh NumPy generator for this key; equal keys give equal draws anywhere."""
    return np.random.Generator(np.random.Philox(key=key(task, seed, purpose, phase, epoch)))


def torch_seed(task: str, seed: int, purpose: Purpose, phase: int = 0, epoch: int = 0) -> int:
    """Return the key shortened to the 63 bits that `torch.Generator.manual_seed` takes."""
    return key(task, seed, purpose, phase, epoch) & (2**63 - 1)
