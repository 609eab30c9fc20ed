"""Callbacks where training and evaluation stream phases: same phase, warm-up anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import ConvertCallback

from ht_bench.envs.phase_environment import make_phase
from ht_bench.envs.rl_stream import EnvironmentStream
from ht_bench.sb3 import EvaluationCallback, PhaseCallback

from .conftest import three_phases

TASK = three_phases(60)


class Watched(EnvironmentStream):
    """A stream that keeps the phase of every reset."""

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**given)
        self.begun = [*getattr(self, "begun", []), info["phase"]]
        return observation, info


def train(steps: int, *callbacks: Any, **settings: Any) -> tuple[Any, list[int]]:
    """Return an agent trained on the stream, and the updates made before every step."""
    settings = {"buffer_size": 500, "batch_size": 8, "train_freq": 1, "seed": 0, **settings}
    model = DQN("PlasticMlpPolicy", EnvironmentStream(TASK, stream=7), **settings)
    updates: list[int] = []
    count = ConvertCallback(lambda *_: updates.append(model._n_updates) is None)
    return model.learn(steps, callback=[*callbacks, count]), updates


def test_evaluation_plays_the_phase_in_training() -> None:
    watched = Watched(TASK, stream=7)
    train(180, EvaluationCallback(watched, every=30, episodes=1))
    assert sorted(set(watched.begun)) == [0, 1, 2]
    assert watched.begun == sorted(watched.begun)


def test_evaluation_elsewhere_is_left_alone() -> None:
    callback = EvaluationCallback(make_phase(TASK, 7, 0), every=60, episodes=1)
    train(120, callback)
    assert [step for step, *_ in callback.returns] == [60, 120]


def test_warm_up_begins_anew_at_a_boundary() -> None:
    model, updates = train(180, PhaseCallback(), learning_starts=20)
    idle = [i + 1 for i, gained in enumerate(np.diff([0, *updates])) if gained == 0]
    assert model.learning_starts == 20
    assert idle[:21] == list(range(1, 22))  # updates begin after the 21st step
    for boundary in (60, 120):
        later = [step for step in idle if boundary < step <= boundary + 60]
        assert len(later) >= 19 and later == list(range(later[0], later[0] + len(later)))


def test_without_forgetting_there_is_no_warm_up_anew() -> None:
    model, updates = train(120, PhaseCallback(forget=False), learning_starts=20)
    assert updates[-1] == 120 - 1 - 20
    assert model.replay_buffer.size() == 120
