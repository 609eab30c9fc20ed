"""Callbacks where training and evaluation stream phases: same phase, warm-up anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

from ht_bench.envs.phase_environment import make_phase
from ht_bench.envs.rl_stream import EnvironmentStream
from ht_bench.sb3 import EvaluationCallback, PhaseCallback
from ht_bench.streams.reinforcement import ReinforcementTask, parse_reinforcement

SETTINGS: dict[str, Any] = {"buffer_size": 500, "batch_size": 8, "train_freq": 1}


@pytest.fixture
def task() -> ReinforcementTask:
    """CartPole permuted anew in each of three phases of 60 steps."""
    swapped = {"steps": 60, "repeat": 3, "observations": "permuted", "actions": "permuted"}
    table = {
        "name": "made-up-v1",
        "family": "swap",
        "environment": {"id": "CartPole-v1"},
        "agent": {"algorithm": "dqn"},
        "evaluation": {"points": 1},
        "reference": {"random": 22.0},
        "phases": [swapped],
    }
    return parse_reinforcement(table, "made-up")


class Watched(EnvironmentStream):
    """A stream that keeps the phase of every reset."""

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**given)
        self.begun = [*getattr(self, "begun", []), info["phase"]]
        return observation, info


def test_evaluation_plays_the_phase_in_training(task: ReinforcementTask) -> None:
    watched = Watched(task, stream=7)
    callback = EvaluationCallback(watched, every=30, episodes=1)
    model = DQN("PlasticMlpPolicy", EnvironmentStream(task, stream=7), seed=0, **SETTINGS)
    model.learn(180, callback=callback)
    assert sorted(set(watched.begun)) == [0, 1, 2]
    assert watched.begun == sorted(watched.begun)


def test_evaluation_elsewhere_is_left_alone(task: ReinforcementTask) -> None:
    callback = EvaluationCallback(make_phase(task, 7, 0), every=60, episodes=1)
    model = DQN("PlasticMlpPolicy", EnvironmentStream(task, stream=7), seed=0, **SETTINGS)
    model.learn(120, callback=callback)
    assert [step for step, *_ in callback.returns] == [60, 120]


class Updates(BaseCallback):
    """Keeps the updates made before every step."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def _on_step(self) -> bool:
        self.made.append(self.model._n_updates)
        return True


def test_warm_up_begins_anew_at_a_boundary(task: ReinforcementTask) -> None:
    model = DQN(
        "PlasticMlpPolicy",
        EnvironmentStream(task, stream=7),
        learning_starts=20,
        seed=0,
        **SETTINGS,
    )
    updates = Updates()
    model.learn(180, callback=[PhaseCallback(), updates])
    idle = [i + 1 for i, gained in enumerate(np.diff([0, *updates.made])) if gained == 0]
    assert model.learning_starts == 20
    assert idle[:21] == list(range(1, 22))  # updates begin after the 21st step
    for boundary in (60, 120):
        later = [step for step in idle if boundary < step <= boundary + 60]
        assert len(later) >= 19 and later == list(range(later[0], later[0] + len(later)))


def test_without_forgetting_there_is_no_warm_up_anew(task: ReinforcementTask) -> None:
    env = EnvironmentStream(task, stream=7)
    model = DQN("PlasticMlpPolicy", env, learning_starts=20, seed=0, **SETTINGS)
    updates = Updates()
    model.learn(120, callback=[PhaseCallback(forget=False), updates])
    assert updates.made[-1] == 120 - 1 - 20
    assert model.replay_buffer is not None and model.replay_buffer.size() == 120
