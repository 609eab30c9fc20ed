"""A task of environments, made up of the phases that a test asks for."""

import importlib.util
from typing import Any

import pytest

from ht_bench.streams.reinforcement import ReinforcementTask, parse_reinforcement

SWAPPED = {"observations": "permuted", "actions": "permuted"}


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"needs the package {module}")


def task(
    phases: list[dict[str, Any]], identifier: str = "CartPole-v1", **environment: Any
) -> ReinforcementTask:
    table = {
        "name": "made-up-v1",
        "family": "drift",
        "environment": {"id": identifier, **environment},
        "agent": {"algorithm": "dqn"},
        "evaluation": {"points": 1},
        "reference": {"random": 0.0},
        "phases": [{"steps": 20, **phase} for phase in phases],
    }
    return parse_reinforcement(table, "made-up")
