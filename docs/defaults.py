"""What defaults that scale give on short phases: `python docs/defaults.py` (a minute).

A digits warm start of 400 updates a phase, half the labels wrong at first; final test accuracy with
the paper's settings, which are for 20,000 updates a phase, and with those derived from the length.
"""

from __future__ import annotations

from typing import Any

import ht_bench
from ht_bench.streams.task import parse_task

TASK = parse_task(
    {
        "name": "short-warm-start",
        "family": "warm-start",
        "seeds": "0-9",
        "data": {"name": "digits", "train": 1000},
        "net": {"name": "mlp", "hidden": [128, 128]},
        "optimizer": {"lr": 3e-3},
        "training": {"batch": 64, "stack": 10, "points": 2},
        "phases": [{"new": 0.5, "wrong": 0.5, "updates": 400}, {"new": 0.5, "updates": 400}],
    },
    "short-warm-start",
)
PAPER: dict[str, dict[str, Any]] = {
    "none": {},
    "full-reset": {},
    "ema": {"decay": 0.999},
    "hare-tortoise": {"decay": 0.999, "reset_every": 1000},
    "self-distillation": {"decay": 0.999},
}


def main() -> None:
    """Print a row for each method."""
    print(f"Final test accuracy, mean of {len(TASK.seeds)} seeds")
    print(f"{'':20}{'paper':>10}{'derived':>10}")
    for method, values in PAPER.items():
        finals = [
            ht_bench.evaluate(method, TASK, progress=False, **settings).final.mean()
            for settings in (values, {})
        ]
        print(f"{method:20}{finals[0]:10.3f}{finals[1]:10.3f}", flush=True)


if __name__ == "__main__":
    main()
