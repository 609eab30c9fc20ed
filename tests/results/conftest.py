"""Records as the runner writes them, small enough to check by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make_record() -> Make:
    """Build a record from the accuracies of its phases, e.g. [[0.1, 0.5], [0.9]].

    The first number is the untrained network's; the points stand 10 steps apart.
    """

    def make(
        phases: Sequence[Sequence[float]], method: str = "none", seed: int = 100, **changes: Any
    ) -> dict[str, Any]:
        phase = [index for index, values in enumerate(phases) for _ in values]
        accuracy = [value for values in phases for value in values]
        record = {
            "schema": 1,
            "benchmark": "0.1",
            "task": "digits-v1",
            "task_sha256": "a" * 64,
            "data_sha256": "b" * 64,
            "method": method,
            "hyperparameters": {},
            "source_sha256": "c" * 64,
            "seed": seed,
            "split": "test",
            "precision": "fp32",
            "device": "cpu",
            "stack": 10,
            "classes": 10,
            "status": "finished",
            "curve": {
                "phase": phase,
                "step": [10 * index for index in range(len(phase))],
                "test/accuracy": accuracy,
                "train/accuracy": [value / 2 for value in accuracy],
            },
            "diagnostics": {},
            "retention": None,
            "steps": 10 * (len(phase) - 1),
            "extra_parameters": 0,
            "cost": {"seconds": 2.0, "peak_memory_bytes": 1000},
            "software": {"torch": "2.13.0"},
            "hardware": {"cpu": "one"},
        }
        return record | changes

    return make
