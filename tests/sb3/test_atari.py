"""Hare & Tortoise trains DQN on a real game of the ALE: five resets, both networks' returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ale_py
import gymnasium
import pytest
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ht_bench.sb3 import EvaluationCallback

pytest.importorskip("cv2")
RESETS = 5


def pong(episode_steps: int, seed: int) -> VecEnv:
    """Pong as stable-baselines3 prepares it; an episode ends after so many agent steps."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    settings = {"frameskip": 1, "repeat_action_probability": 0.0}
    settings["max_num_frames_per_episode"] = 4 * episode_steps
    return VecFrameStack(make_atari_env("ALE/Pong-v5", seed=seed, env_kwargs=settings), 4)


def check(steps: int, warm_up: int, episode_steps: int, batch: int, logs: Path) -> None:
    """Train; hare and tortoise are equal after the updates that reset, and both are evaluated."""
    every = (steps - warm_up) // 4 // RESETS
    model = DQN(
        "HareTortoiseCnnPolicy",
        pong(episode_steps, 0),
        seed=0,
        device="cpu",
        batch_size=batch,
        buffer_size=min(steps, 10_000),
        learning_starts=warm_up,
        train_freq=4,
        exploration_fraction=0.5,
        policy_kwargs={"plasticity_kwargs": {"decay": 0.99, "reset_every": every}},
    )
    model.set_logger(configure(str(logs), ["tensorboard"]))
    method, equal = model.policy.methods["q_net"], []

    def compare(*_: Any) -> None:
        hare, tortoise = method.tensors(), method.tortoise.tensors()
        assert all(hare[k].data_ptr() != tortoise[k].data_ptr() for k in hare)
        equal.append(all(torch.equal(hare[k], tortoise[k]) for k in hare))

    model.policy.optimizer.register_step_post_hook(compare)  # after the method's own hook
    evaluation = EvaluationCallback(pong(episode_steps, 1), every=steps // 2, episodes=1)
    model.learn(steps, callback=evaluation)
    resets = [update for update, same in enumerate(equal, 1) if same]
    assert resets == [every * k for k in range(1, RESETS + 1)]
    events = EventAccumulator(str(logs), size_guidance={"scalars": 0}).Reload()
    for key in ("eval/return", "hare/return", "tortoise/return"):
        points = [(point.step, round(point.value, 3)) for point in events.Scalars(key)]
        print(key, points)
        assert [step for step, _ in points] == [steps // 2, steps]
        assert all(-21 <= value <= 21 for _, value in points)


def test_hare_and_tortoise_meet_at_five_resets_on_pong(tmp_path: Path) -> None:
    check(240, 40, 20, 4, tmp_path)


@pytest.mark.evidence
def test_hare_and_tortoise_train_on_pong_for_20_000_steps(tmp_path: Path) -> None:
    check(20_000, 1_000, 1_000, 32, tmp_path)
