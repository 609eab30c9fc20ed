"""Permutations of observations and actions, one per phase: what a `swap` stream changes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ht_bench.errors import UsageError
from ht_bench.streams.randomness import generator
from ht_bench.streams.reinforcement import ReinforcementTask

What = Literal["observations", "actions"]
Order = npt.NDArray[np.int64]
_EPOCH: dict[What, int] = {"observations": 0, "actions": 1}


def phase_order(task: ReinforcementTask, seed: int, index: int, what: What, count: int) -> Order:
    """Return the order, int64 [count], of observations or actions in phase `index`.

    The identity where the phase leaves them true. Else it is drawn for (task, seed, phase), and
    drawn again while it equals the order of the phase before; phase 0 may have any, the identity
    too. Two things alternate from phase to phase. Entry i of an observation, of a board channel
    i, is entry `order[i]` of the true one; action a does what `order[a]` truly does.
    Raises UsageError for a permutation of fewer than two things.
    """
    order = before = np.arange(count)
    for phase in range(index + 1):
        if getattr(task.phases[phase], what) == "permuted":
            order = _draw(task, seed, phase, what, before if phase else None, count)
        else:
            order = np.arange(count)
        before = order
    return order


def _draw(
    task: ReinforcementTask, seed: int, phase: int, what: What, before: Order | None, count: int
) -> Order:
    if count < 2:
        raise UsageError(
            f"Task {task.name}, phase {phase}: {count} of {what} cannot be permuted; "
            f'set {what} = "true".'
        )
    draw = generator(task.name, seed, "permutation", phase, _EPOCH[what])
    order: Order = draw.permutation(count)
    while before is not None and bool((order == before).all()):
        order = draw.permutation(count)
    return order
