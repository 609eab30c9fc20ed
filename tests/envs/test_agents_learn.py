"""Agents and classifiers that learn from streams of data through `step` alone; chance is 0.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from torch import Tensor, nn

import ht_bench.sb3  # noqa: F401 (registers ids and policies)

STREAM = 100


def accuracy(name: str, phase: int, answer: Callable[[Any], Any]) -> float:
    """Judge a classifier, observations [B, 64] → classes [B], by one pass of the test form."""
    env = gymnasium.make(f"ht_bench/{name}-v1", examples="test")
    observation, _ = env.reset(seed=STREAM, options={"phase": phase})
    rewards, over = [], False
    while not over:
        observation, reward, _, over, _ = env.step(answer(observation[None])[0])
        rewards.append(reward)
    assert len(rewards) == 500
    return float(np.mean(rewards))


def test_a_classifier_learns_through_step_alone() -> None:
    """Through both phases: half of the first one's labels are wrong."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    env = gymnasium.make_vec("ht_bench/WarmStartDigits-v1", num_envs=None)
    seen, infos = env.reset(seed=STREAM)
    for _ in range(sum(env.unwrapped.phase_lengths)):
        valid = infos["valid"]
        outputs: Tensor = net(torch.from_numpy(seen[valid]))
        actions = np.zeros(env.num_envs, np.int64)
        actions[valid] = outputs.argmax(1).numpy()
        seen, _, _, _, infos = env.step(actions)
        optimizer.zero_grad()
        labels = torch.from_numpy(infos["label"][valid])
        nn.functional.cross_entropy(outputs, labels).backward()
        optimizer.step()
    assert (infos["phase"] == 1).all()
    answer = lambda rows: net(torch.from_numpy(rows)).argmax(1).numpy()  # noqa: E731
    assert accuracy("WarmStartDigits", 1, answer) > 0.8


@pytest.mark.parametrize(
    ("name", "phase", "steps", "judged"),
    [
        ("WarmStartDigits", 1, 4_096, 0.5),
        pytest.param("ContinualDigits", 9, 8_192, 0.5, marks=pytest.mark.evidence),
        pytest.param("PermutedDigits", 0, 8_192, 0.5, marks=pytest.mark.evidence),
        # random labels say nothing of test images: the rewards alone judge
        pytest.param("ShuffledDigits", 0, 12_288, 0.0, marks=pytest.mark.evidence),
    ],
)
def test_an_agent_learns(name: str, phase: int, steps: int, judged: float) -> None:
    """PPO with Hare & Tortoise is told 1 or 0 after each answer, never the label."""
    env = make_vec_env(f"ht_bench/{name}-v1", seed=STREAM)
    env.set_options({"phase": phase})
    plasticity = {"plasticity_kwargs": {"decay": 0.98, "reset_every": 200}}
    agent = PPO(
        "HareTortoiseMlpPolicy",
        env,
        gamma=0.0,
        gae_lambda=0.0,
        n_steps=1024,
        learning_rate=3e-3,
        seed=STREAM,  # stable-baselines3 hands its seed to the environment: it is the stream
        device="cpu",
        policy_kwargs={"net_arch": [128, 128], **plasticity},
    )
    rewards: list[float] = []
    agent.learn(steps, callback=lambda here, _: rewards.extend(here["rewards"]) is None)
    assert np.mean(rewards[:512]) < 0.2
    assert np.mean(rewards[-1024:]) > 0.4
    answer = lambda rows: agent.predict(rows, deterministic=True)[0]  # noqa: E731
    assert accuracy(name, phase, answer) >= judged
