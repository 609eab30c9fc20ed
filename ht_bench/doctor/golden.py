"""The golden curves: two tiny runs whose numbers decide the comparability epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ht_bench.streams.task import parse_task

if TYPE_CHECKING:
    from ht_bench.records.record import Record
    from ht_bench.running.job import StackJob
    from ht_bench.training.device import Compute

TOLERANCE = 1e-4
"""By which a number may differ; rounding on another processor stays far below."""
SEEDS = (100, 101)
TASK: dict[str, Any] = {
    "name": "tiny",
    "family": "warm-start",
    "data": {"name": "digits", "train": 60},
    "net": {"name": "mlp", "hidden": [16, 12]},
    "optimizer": {"lr": 1e-2, "clip": 0.5},
    "training": {"batch": 16, "points": 3, "stack": 2},
    "phases": [
        {"new": 0.5, "wrong": 0.5, "updates": 12},
        {"new": 0.25, "wrong": 0.25, "updates": 7},
        {"new": 0.25, "epochs": 2},
    ],
}
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "none": {},
    "hare-tortoise": {"reset_every": 5, "decay": 0.9},
}
STARTS = (4, 8)
"""Points at the start of a phase, which the curves leave out."""
NAN = float("nan")  # nothing is trained at the first point

# When a change moves these, and that is what was wanted: raise `major.minor` in
# ht_bench/version.py, say so in CHANGELOG.md, and only then write the new numbers here.
# fmt: off
GOLDEN: dict[str, dict[str, list[float]]] = {
    "none": {
        "test/accuracy": [0.108, 0.158, 0.164, 0.144, 0.286, 0.324, 0.356, 0.412, 0.456, 0.438],
        "test/loss": [
            2.31255, 2.274155, 2.224548, 2.173628, 2.118216,
            2.071666, 2.008592, 1.930465, 1.795642, 1.689578,
        ],
        "train/loss": [
            NAN, 2.271411, 2.180856, 2.058953, 2.208055,
            2.068982, 1.978628, 1.971471, 1.769979, 1.633643,
        ],
    },
    "hare-tortoise": {
        "test/accuracy": [0.108, 0.12, 0.16, 0.188, 0.194, 0.192, 0.184, 0.204, 0.222, 0.234],
        "test/loss": [
            2.31255, 2.301271, 2.288592, 2.275765, 2.268379,
            2.261298, 2.245791, 2.232391, 2.206746, 2.184924,
        ],
        "hare/accuracy": [0.108, 0.158, 0.206, 0.206, 0.192, 0.186, 0.226, 0.234, 0.258, 0.224],
        "train/loss": [
            NAN, 2.271411, 2.219481, 2.195348, 2.265886,
            2.195296, 2.19652, 2.154577, 2.126906, 2.064512,
        ],
    },
}
# fmt: on


def golden_job(
    method: str, compute: Compute | None = None, net: Mapping[str, Any] | None = None
) -> StackJob:
    """Return the job of a method of GOLDEN, kept in memory, computed as said (fp32 on the CPU).

    net: another network's `[net]` table, for which there are no golden numbers.
    """
    from ht_bench.methods.resolve import resolve
    from ht_bench.running.job import StackJob
    from ht_bench.training.device import Compute

    task = parse_task({**TASK, "net": dict(net or TASK["net"])}, "the golden task")
    spec = resolve(method, "", HYPERPARAMETERS[method])
    return StackJob(task, spec, SEEDS, compute=compute or Compute(), tensorboard=False)


def largest_difference(method: str, record: Record) -> tuple[float, str]:
    """Return by how much a record's curves differ from the golden ones at most, and in which.

    record: of the first of SEEDS. A number that is missing differs by infinity.
    """
    worst = (0.0, "test/accuracy")
    for key, expected in GOLDEN[method].items():
        column = [v for index, v in enumerate(record["curve"][key]) if index not in STARTS]
        for value, should in zip(column, expected, strict=True):
            if should == should:
                away = abs(value - should) if value is not None else float("inf")
                worst = max(worst, (away, key))
            elif value is not None:
                worst = max(worst, (float("inf"), key))
    return worst
