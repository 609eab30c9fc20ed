"""Both checkers on every environment that importing the package registers, warnings as errors."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec, registry
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_agents

import ht_bench  # noqa: F401 (registers the ids)
from ht_bench.streams.catalog import get_task
from ht_bench.streams.reinforcement import ReinforcementTask

GENERIC = {"ht_bench/DataStream-v1", "ht_bench/EnvironmentStream-v1"}
IDS = sorted(name for name in registry if name.startswith("ht_bench/") and name not in GENERIC)
GAMES = [
    name
    for name in IDS
    if name.startswith(("ht_bench/Atari100k", "ht_bench/Modes", "ht_bench/Games"))
]
NOT_HERE = ("CIFAR100", "TinyImageNet")
"""Data that the tests have no copy of."""


def lacking(name: str) -> str:
    """Return why an environment cannot be made on this machine, or ""."""
    task = get_task(registry[name].kwargs["task"])
    if isinstance(task, ReinforcementTask):
        needed = {"Ant": "mujoco", "ALE": "cv2"}
        for beginning, module in needed.items():
            made = task.environment.id.startswith(beginning)
            if made and importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
        return ""
    if any(word in name for word in NOT_HERE):
        return f"the data of {name} are not here"
    raw = os.environ.get("HT_BENCH_DATA", "")
    real = task.data.name != "digits" and not (Path(raw) / task.data.name).is_dir()
    return f"HT_BENCH_DATA names no {task.data.name}" if real or (real and not raw) else ""


def check(name: str, request: pytest.FixtureRequest) -> None:
    if reason := lacking(name):
        pytest.skip(reason)
    if any(word in name for word in ("MNIST", "CIFAR")):
        request.getfixturevalue("real_data_cache")
    environment = gymnasium.make(name)
    again = EnvSpec.from_json(environment.spec.to_json())
    assert again.kwargs == environment.spec.kwargs and again.id == name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(environment.unwrapped, skip_render_check=True)
        check_env_for_agents(environment.unwrapped, skip_render_check=True)
    environment.close()


def test_every_task_is_registered() -> None:
    assert len(IDS) > 40
    assert set(registry) > GENERIC


@pytest.mark.parametrize("name", [name for name in IDS if name not in GAMES])
def test_checkers_are_silent(name: str, request: pytest.FixtureRequest) -> None:
    check(name, request)


@pytest.mark.evidence
@pytest.mark.parametrize("name", GAMES)
def test_checkers_are_silent_on_every_game(name: str, request: pytest.FixtureRequest) -> None:
    check(name, request)
