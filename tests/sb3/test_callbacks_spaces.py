"""DiagnosticsCallback on every space of observations that stable-baselines3 takes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from ht_bench.sb3 import DiagnosticsCallback

BUFFER = {"learning_starts": 10, "buffer_size": 100, "batch_size": 8}
SETTINGS: dict[Any, Any] = {DQN: BUFFER, SAC: BUFFER, PPO: {"n_steps": 16, "batch_size": 8}}
VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
PARTS: dict[str, spaces.Space[Any]] = {
    "box": VECTOR,
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "multi-binary": spaces.MultiBinary(4),
    "image": IMAGE,
}


class Samples(gymnasium.Env[Any, Any]):
    """Observations drawn from any space; 5 steps an episode."""

    def __init__(self, space: spaces.Space[Any], continuous: bool = False) -> None:
        self.observation_space = space
        self.action_space = spaces.Box(-1, 1, (2,)) if continuous else spaces.Discrete(3)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self.observation_space.sample(), 1.0, False, self.steps == 5, {}


def diagnosed(cls: Any, env: Any, kind: str = "MultiInput", **settings: Any) -> dict[str, float]:
    """Return what an agent's diagnostics are, the method being Hare & Tortoise."""
    network = {"net_arch": [8], "plasticity_kwargs": {"decay": 0.9, "reset_every": 9}}
    if kind == "MultiInput":
        network["features_extractor_kwargs"] = {"cnn_output_dim": 8}
    settings = {**SETTINGS[cls], "policy_kwargs": network, "seed": 0, **settings}
    model = cls(f"HareTortoise{kind}Policy", env, **settings)
    found: dict[str, float] = {}
    callback = DiagnosticsCallback(every=32, observations=20)
    model.learn(64, callback=callback)
    assert model._n_updates > 0
    record = model.logger.record
    model.logger.record = lambda key, value, *a, **k: found.update({key: value})
    callback._act()
    model.logger.record = record
    return {k: v for k, v in found.items() if k.startswith(("plasticity", "weights"))}


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("cls", [DQN, PPO, SAC])
def test_a_dict_of_every_space(cls: Any, copies: int) -> None:
    env = DummyVecEnv([lambda: Samples(spaces.Dict(PARTS), cls is SAC)] * copies)
    values = diagnosed(cls, env)
    assert len(values) == 13 + (cls is not SAC) and all(
        np.isfinite(value) for value in values.values()
    )


@pytest.mark.parametrize("name", ["discrete", "multi-discrete", "multi-binary"])
@pytest.mark.parametrize("cls", [DQN, PPO])
def test_a_space_that_is_no_box(cls: Any, name: str) -> None:
    env = DummyVecEnv([lambda: Samples(PARTS[name])] * 2)
    assert len(diagnosed(cls, env, "Mlp")) == 13 + (cls is not SAC)


@pytest.mark.parametrize("cls", [DQN, PPO])
def test_stacked_and_normalised_dicts(cls: Any) -> None:
    space = spaces.Dict({"box": VECTOR, "image": IMAGE})
    stacked = VecFrameStack(DummyVecEnv([lambda: Samples(space)] * 2), 2)
    env = VecNormalize(VecTransposeImage(stacked), norm_obs_keys=["box"])
    assert len(diagnosed(cls, env)) == 13 + (cls is not SAC)


def test_goals() -> None:
    env = BitFlippingEnv(n_bits=4, continuous=False, max_steps=4)
    assert len(diagnosed(DQN, env, replay_buffer_class=HerReplayBuffer)) == 14
