"""What PhaseCallback's boundary empties and restarts, and that no setting of the model changes."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import DQN, SAC, HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import CheckpointCallback, ConvertCallback
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from ht_bench.sb3 import PhaseCallback

from .conftest import Sights

SETTINGS = {"learning_starts": 20, "buffer_size": 200, "batch_size": 8, "train_freq": 1, "seed": 0}
PHASE = 60


class Phased(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A phase changes after so many steps, in the middle of an episode if need be."""

    steps = 0

    def step(self, action: Any) -> Any:
        *rest, info = self.env.step(action)
        self.steps += 1
        return *rest, {**info, "phase": (self.steps - 1) // PHASE}

    def compute_reward(self, *given: Any) -> Any:
        return self.env.unwrapped.compute_reward(*given)  # type: ignore[attr-defined]


def flips(continuous: bool = False) -> Any:
    return Phased(BitFlippingEnv(n_bits=3, continuous=continuous, max_steps=9))


def cartpole() -> Any:
    return Phased(gymnasium.make("CartPole-v1"))


def agent(env: Any = None, cls: Any = DQN, policy: str = "Mlp", **settings: Any) -> Any:
    env = cartpole() if env is None else env
    arguments = {**SETTINGS, "policy_kwargs": {"net_arch": [8]}, **settings}
    return cls(f"Plastic{policy}Policy", env, **arguments)


# ---- the buffer ----


@pytest.mark.parametrize(
    ("continuous", "copies", "strategy"),
    [(False, 1, "future"), (False, 2, "episode"), (True, 2, "final")],
)
def test_a_hindsight_buffer_forgets_its_episodes(
    continuous: bool, copies: int, strategy: str
) -> None:
    settings: dict[str, Any] = {"replay_buffer_class": HerReplayBuffer, "learning_starts": 20}
    settings["replay_buffer_kwargs"] = {
        "n_sampled_goal": 2,
        "goal_selection_strategy": strategy,
        "copy_info_dict": True,
    }
    env = DummyVecEnv([lambda: flips(continuous)] * copies)
    model = agent(env, SAC if continuous else DQN, "MultiInput", **settings)
    buffer, seen = model.replay_buffer, []

    def look(*_: Any) -> bool:
        if model.num_timesteps in range((PHASE + 1) * copies, (PHASE + 2) * copies):
            seen.append((buffer.size(), int(buffer.ep_length.sum()), int(buffer.ep_start.sum())))
            assert not any(buffer.infos.ravel()) and buffer.env is model.env
        return True

    model.learn(3 * PHASE * copies, callback=[PhaseCallback(), ConvertCallback(look)])
    assert model.replay_buffer is buffer and seen[0] == (0, 0, 0)
    assert model._n_updates > 0


class Counting(ReplayBuffer):
    """Stores more than stable-baselines3's, and does not say how to empty it."""

    def __init__(self, *args: Any, start: int = 5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.priorities = [start]

    def add(self, *args: Any) -> None:
        super().add(*args)
        self.priorities.append(1)


class Emptied(Counting):
    """The same, and does say so."""

    def reset(self) -> None:
        super().reset()
        self.priorities = ["emptied"]


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, None),
        ({"n_steps": 3}, None),
        ({"replay_buffer_class": NStepReplayBuffer}, None),
        (
            {
                "optimize_memory_usage": True,
                "replay_buffer_kwargs": {"handle_timeout_termination": False},
            },
            None,
        ),
        ({"replay_buffer_class": Counting, "replay_buffer_kwargs": {"start": 7}}, [7]),
        ({"replay_buffer_class": Emptied}, ["emptied"]),
    ],
)
def test_every_buffer_is_empty_at_a_boundary(settings: dict[str, Any], left: Any) -> None:
    model, seen = agent(**settings), []
    buffer = model.replay_buffer

    def look(*_: Any) -> bool:
        if model.num_timesteps == PHASE + 1:
            seen.append((buffer.size(), copy.copy(getattr(buffer, "priorities", None))))
        return True

    model.learn(PHASE + 40, callback=[PhaseCallback(), ConvertCallback(look)])
    assert seen == [(0, left)] and model.replay_buffer is buffer
    assert buffer.size() == 40


def test_a_dict_buffer_is_emptied_too() -> None:
    model = agent(Phased(Sights(False, False)), policy="MultiInput")
    model.learn(PHASE + 40, callback=PhaseCallback())
    assert model.replay_buffer.size() == 40


# ---- the warm-up ----


def test_actions_of_the_warm_up_are_drawn_and_nothing_is_updated() -> None:
    model = agent(exploration_fraction=1e-6, exploration_final_eps=0.0)
    acted, updates = [], []
    predict = model.policy.predict
    model.policy.predict = lambda *a, **k: acted.append(model.num_timesteps) or predict(*a, **k)
    count = ConvertCallback(lambda *_: updates.append(model._n_updates) is None)
    model.learn(2 * PHASE, callback=[PhaseCallback(), count])
    assert acted == [*range(20, PHASE + 1), *range(PHASE + 21, 2 * PHASE)]
    idle = [step for step, more in enumerate(np.diff(updates), 1) if more == 0]
    assert idle == [*range(1, 21), *range(PHASE + 1, PHASE + 22)]


def test_hindsight_waits_for_an_episode() -> None:
    """Longer than the warm-up: stable-baselines3 raises when it samples before."""
    env = Phased(BitFlippingEnv(n_bits=3, continuous=False, max_steps=30))
    settings = {"replay_buffer_class": HerReplayBuffer, "learning_starts": 31}
    model = agent(env, policy="MultiInput", **settings)
    model.learning_starts = 31
    model.learn(40, callback=PhaseCallback())
    model.learning_starts = 2
    model.learn(3 * PHASE, callback=PhaseCallback(), reset_num_timesteps=False)
    assert model._n_updates > 60


def test_a_count_that_begins_anew_ends_the_warm_up() -> None:
    model = agent()
    model.learn(PHASE + 5, callback=PhaseCallback())
    assert type(model) is not DQN and type(model).__name__ == "DQN"
    updates = model._n_updates
    model.learn(40)
    assert type(model) is DQN and model._n_updates == updates + 20


# ---- settings ----


class Stop(Exception):
    pass


def stopping(model: Any, step: int, error: type[BaseException]) -> ConvertCallback:
    def stop(*_: Any) -> bool:
        if model.num_timesteps == step:
            raise error
        return True

    return ConvertCallback(stop)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("step", [PHASE + 5, PHASE + 40])
def test_an_interrupted_model_is_as_constructed(error: type[BaseException], step: int) -> None:
    model = agent()
    before = {k: v for k, v in vars(agent()).items() if isinstance(v, int | float | str | tuple)}
    with pytest.raises(error):
        model.learn(3 * PHASE, callback=[PhaseCallback(), stopping(model, step, error)])
    kept = ("learning_starts", "batch_size", "gradient_steps", "train_freq", "buffer_size")
    assert {name: vars(model)[name] for name in kept} == {name: before[name] for name in kept}
    saved = io.BytesIO()
    model.save(saved)
    assert DQN.load(io.BytesIO(saved.getvalue())).learning_starts == 20


def test_an_interrupted_warm_up_goes_on_where_the_count_does() -> None:
    model = agent()
    with pytest.raises(Stop):
        model.learn(3 * PHASE, callback=[PhaseCallback(), stopping(model, PHASE + 5, Stop)])
    updates = model._n_updates
    model.learn(14, reset_num_timesteps=False)
    assert model._n_updates == updates
    model.learn(16, reset_num_timesteps=False)
    assert model._n_updates > updates and type(model) is DQN


def test_every_checkpoint_holds_the_settings_and_trains_on(tmp_path: Path) -> None:
    model = agent()
    callbacks = [PhaseCallback(), CheckpointCallback(10, str(tmp_path))]
    model.learn(PHASE + 50, callback=callbacks)
    for step in range(10, PHASE + 51, 10):
        loaded = DQN.load(tmp_path / f"rl_model_{step}_steps.zip", env=cartpole())
        assert loaded.learning_starts == 20 and type(loaded) is DQN
    loaded.learn(30)
    assert loaded._n_updates > model._n_updates


def test_no_attribute_of_the_model_is_added() -> None:
    names = vars(agent().learn(PHASE + 5)).keys()
    assert vars(agent().learn(PHASE + 5, callback=PhaseCallback())).keys() == names
