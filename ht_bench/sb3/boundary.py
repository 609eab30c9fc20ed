"""PROTOCOL's boundary rule: what every method's agent starts anew when the environment changes.

The replay buffer is emptied; exploration, warm-up and learning-rate schedules restart. What an
agent carries over is its network and its optimizers' state alone, and that is the method's part.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm


def restart(model: BaseAlgorithm, seed: int) -> None:
    """Restart all of `model` but its policy's weights and optimizer state.

    The next `learn(steps)` then runs its schedules over `steps`, warms up again, and draws from
    `seed`. SAC's entropy coefficient steers exploration, so it starts over too.
    """
    model.set_random_seed(seed)
    model.num_timesteps = 0
    model._current_progress_remaining = 1.0
    model._n_updates = 0  # TD3 counts its delayed policy updates with it
    model._last_obs = None
    if isinstance(model, OffPolicyAlgorithm):
        forget_experience(model)
        if model.action_noise is not None:
            model.action_noise.reset()
    if hasattr(model, "exploration_schedule"):
        _restart_exploration(model)
    if getattr(model, "ent_coef_optimizer", None) is not None:
        _restart_entropy(model)


def forget_experience(model: OffPolicyAlgorithm) -> None:
    """Empty the replay buffer."""
    if model.replay_buffer is not None:
        model.replay_buffer.reset()


def _restart_exploration(model: Any) -> None:
    model._n_calls = 0
    model.exploration_rate = model.exploration_schedule(1.0)


def _restart_entropy(model: Any) -> None:
    initial = model.ent_coef.partition("_")[2] or 1.0  # "auto" or "auto_0.1"
    with torch.no_grad():
        model.log_ent_coef.fill_(math.log(float(initial)))
    model.ent_coef_optimizer.state.clear()
