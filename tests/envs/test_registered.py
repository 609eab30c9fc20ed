"""Both checkers on every environment that importing the package registers, warnings as errors.

But for Gymnasium's of infinite bounds, which it raises at its own CartPole as well.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec, registry
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_agents

import ht_bench  # noqa: F401 (registers the ids)
from ht_bench.streams.catalog import get_task
from ht_bench.streams.reinforcement import ReinforcementTask

from .conftest import INFINITE, extras

GENERIC = {"ht_bench/DataStream-v1", "ht_bench/EnvironmentStream-v1"}
IDS = sorted(name for name in registry if name.startswith("ht_bench/") and name not in GENERIC)
GAMES = ("ht_bench/Atari100k", "ht_bench/Modes", "ht_bench/Games5")
NO_IMAGES = "ignore:.*(space +is an image but|minimal resolution for an image)"
"""What stable-baselines3's checker warns of at boards, which its CnnPolicy cannot read."""
NOT_HERE = ("CIFAR100", "TinyImageNet")
"""Data that the tests have no copy of."""


def case(name: str) -> Any:
    spec = get_task(registry[name].kwargs["task"])
    marks = extras(spec) if isinstance(spec, ReinforcementTask) else []
    if name.startswith(GAMES):
        marks.append(pytest.mark.evidence)
    if "MinAtar" in name:
        marks.append(pytest.mark.filterwarnings(NO_IMAGES))
    if any(data in name for data in NOT_HERE):
        marks.append(pytest.mark.skip(reason=f"the data of {name} are not here"))
    return pytest.param(name, marks=marks)


def test_every_task_is_registered() -> None:
    assert len(IDS) > 40
    assert set(registry) > GENERIC


@pytest.mark.filterwarnings("error", INFINITE, "ignore:.*v1 is out of date:DeprecationWarning")
@pytest.mark.parametrize("name", map(case, IDS))
def test_checkers_are_silent(name: str, request: pytest.FixtureRequest) -> None:
    if any(data in name for data in ("MNIST", "CIFAR")):
        request.getfixturevalue("real_data_cache")
    environment = gymnasium.make(name)
    again = EnvSpec.from_json(environment.spec.to_json())
    assert again.kwargs == environment.spec.kwargs and again.id == name
    check_env(environment.unwrapped, skip_render_check=True)
    check_env_for_agents(environment.unwrapped, skip_render_check=True)
    environment.close()
