"""An environment that was saved goes on as itself: games and simulations too, bit for bit."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from ht_bench.envs.phase_environment import make_phase
from ht_bench.streams.reinforcement import ReinforcementTask, parse_reinforcement
from ht_bench.training.environment_state import (
    can_be_saved,
    environment_state,
    restore_environment,
)

from .test_reinforcement import table

MUJOCO = ("Ant-v5", "Hopper-v5", "Humanoid-v5", "Reacher-v5", "InvertedDoublePendulum-v5")
BOARDS = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
MINATAR = tuple(f"MinAtar/{name}-v0" for name in BOARDS)
GAMES = {"ALE/Pong-v5": {}, "ALE/Breakout-v5": {"repeat_action_probability": 0.25, "mode": 4}}


def task_of(environment: str, wrapped: bool = True, **changes: Any) -> ReinforcementTask:
    asked = table("ppo", observations="true")
    kwargs: dict[str, Any] = {}
    if environment in GAMES:
        kwargs = {"frameskip": 1, **GAMES[environment]}
    asked["environment"] = {"id": environment, "kwargs": kwargs, **changes}
    if environment in GAMES and wrapped:
        asked["environment"]["wrappers"] = [{"name": "atari"}]
    if environment in MINATAR:
        asked["environment"]["wrappers"] = [{"name": "minatar"}]
    asked["phases"] = [{"repeat": 2, "steps": 160}]
    asked.pop("observations")
    return parse_reinforcement(asked, "tiny")


def same(one: Any, other: Any) -> bool:
    return pickle.dumps(one) == pickle.dumps(other)


def step(environment: Any, action: Any) -> list[Any]:
    """What a step shows, and a reset's observation after an episode."""
    shown = list(environment.step(action))
    return [*shown, environment.reset() if shown[2] or shown[3] else None]


@pytest.mark.parametrize("name", [*MUJOCO, *GAMES, *MINATAR, "CartPole-v1", "FrozenLake-v1"])
def test_goes_on_bit_for_bit(name: str) -> None:
    if name in MUJOCO:
        pytest.importorskip("mujoco")
    if name in MINATAR:
        pytest.importorskip("minatar")
    task = task_of(name)
    assert can_be_saved(task)
    whole, again = make_phase(task, 100, 1), make_phase(task, 100, 1)
    draw = np.random.default_rng(0)
    whole.action_space.seed(0)
    whole.reset(seed=3)
    for _ in range(int(draw.integers(30, 90))):
        step(whole, whole.action_space.sample())
    restore_environment(again, environment_state(whole))
    rewards = set()
    for _ in range(120):
        action = whole.action_space.sample()
        one, other = step(whole, action), step(again, action)
        assert same(one, other)
        rewards.add(float(one[1]))
    for environment in (whole, again):
        environment.close()
    assert len(rewards) > 1 or name not in MUJOCO
