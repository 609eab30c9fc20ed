"""Mutations of task files: values of other types and sizes, keys lost, added and exchanged."""

from __future__ import annotations

import copy
import datetime
import random
from collections.abc import Iterator
from typing import Any

JUNK: list[Any] = [
    *(None, True, 0, 1, -1, 2, 7, 0.5, -0.5, 1e-30, 1e30, 10**6, 10**9, 10**12, 10**18, 10**400),
    *(float("nan"), float("inf"), "", "x", "1", "mlp", "epoch", "é\n", "a" * 300, "../../x"),
    *([], [1], [0], ["x"], [[1]], [10**9, 10**9], [4] * 2_000, [1.5], {}, {"a": 1}, {"name": "x"}),
    *({"linear": [1, 2]}, {"linear": ["a", 0]}, {"size": "x", "normal": 1}),
    *(datetime.date(1979, 5, 27), datetime.time(7, 32), datetime.datetime(1979, 5, 27, 7, 32)),
]
KEYS = [
    *("repeat", "keep", "wrong", "inputs", "labels", "augment", "epochs", "updates", "classes"),
    *("clip", "betas", "warmup", "stack", "points", "activation", "linear_norm", "channels"),
    *("hidden", "replay_ratio", "settings", "network", "kwargs", "wrappers", "copies", "physics"),
    *("net_arch", "n_steps", "batch_size", "buffer_size", "train_freq", "gradient_steps", "gamma"),
    *("learning_rate", "action_noise", "activation_fn", "optimizer_kwargs", "human", "episodes"),
    *("observations", "actions", "id", "seeds", "tolerance", "minutes_per_stack", "family", "zz"),
]
FAMILIES = ["warm-start", "continual", "class-incremental", "permuted", "shuffled", "swap", "drift"]
Place = tuple[str | int, ...]


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def mutate(table: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return a changed copy of a task's table."""
    table = copy.deepcopy(table)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        every = list(places(table))
        if not every:
            break
        *above, key = draw.choice(every)
        holder: Any = table
        for part in above:
            holder = holder[part]
        kind = draw.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(KEYS)] = copy.deepcopy(draw.choice(JUNK))
        elif kind == 2:
            table["family"] = draw.choice(FAMILIES)
        elif kind == 3 and type(holder[key]) in (int, float):
            holder[key] = holder[key] * draw.choice([0, -1, 2, 3, 1000, 10**9, 0.5])
        elif kind == 4 and isinstance(holder[key], dict):
            holder[key][draw.choice(KEYS)] = copy.deepcopy(draw.choice(JUNK))
        else:
            holder[key] = copy.deepcopy(draw.choice(JUNK))
    return table
