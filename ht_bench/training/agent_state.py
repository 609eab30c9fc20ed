"""An agent and its environment in the middle of a phase, as a checkpoint holds them.

What an exact continuation needs beside the policy: counters, replay buffer (`replay_state`), all
random states, and the environment (`environment_state`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.training.encoding import decode, encode
from ht_bench.training.environment_state import (
    can_be_saved,
    environment_state,
    restore_environment,
)
from ht_bench.training.replay_state import buffer_state, restore_buffer

_COUNTERS = (
    *("num_timesteps", "_episode_num", "_n_updates", "_n_calls"),
    *("exploration_rate", "_current_progress_remaining", "_last_obs", "_last_episode_starts"),
)


def is_resumed_inside_phases(task: ReinforcementTask) -> bool:
    """Whether a run of the task can be saved in the middle of a phase, and not at its end alone."""
    # A noise matrix of gSDE is drawn before a rollout, and so would be drawn twice.
    return can_be_saved(task) and not task.agent.settings.get("use_sde", False)


def agent_state(model: Any, env: DummyVecEnv) -> dict[str, Any]:
    """Return the state of agent and environment at a rollout's start: tensors, numbers, lists."""
    state = {
        "counters": {name: encode(vars(model)[name]) for name in _COUNTERS if name in vars(model)},
        "environments": [environment_state(single) for single in env.envs],
        "random": _random_states(model),
    }
    if getattr(model, "replay_buffer", None) is not None:
        state["buffer"] = buffer_state(model.replay_buffer)
    if getattr(model, "ent_coef_optimizer", None) is not None:
        state["entropy"] = [model.log_ent_coef.detach(), model.ent_coef_optimizer.state_dict()]
    return state


def restore_agent(model: Any, env: DummyVecEnv, state: Mapping[str, Any]) -> None:
    """Take over what `agent_state` returned, in a new environment of the same phase."""
    for name, value in state["counters"].items():
        setattr(model, name, decode(value))
    for single, saved in zip(env.envs, state["environments"], strict=True):
        restore_environment(single, saved)
    if "buffer" in state:
        restore_buffer(model.replay_buffer, state["buffer"])
    if "entropy" in state:
        with torch.no_grad():
            model.log_ent_coef.copy_(state["entropy"][0])
        model.ent_coef_optimizer.load_state_dict(state["entropy"][1])
    _restore_random_states(model, state["random"])


# ---- random states ----


def _random_states(model: Any) -> dict[str, Any]:
    device = torch.device(model.device)
    return {
        "python": encode(random.getstate()),
        "numpy": encode(np.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        "actions": encode(model.action_space.np_random),
    }


def _restore_random_states(model: Any, states: Mapping[str, Any]) -> None:
    random.setstate(decode(states["python"]))
    np.random.set_state(decode(states["numpy"]))
    torch.set_rng_state(states["torch"].cpu())
    for state in states["cuda"]:
        torch.cuda.set_rng_state(state.cpu(), torch.device(model.device))
    model.action_space._np_random = decode(states["actions"])
