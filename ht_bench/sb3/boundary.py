"""PROTOCOL's boundary rule: what every method's agent starts anew when the environment changes.

The replay buffer is emptied; exploration, warm-up and learning-rate schedules restart. What an
agent carries over is its network and its optimizers' state alone, and that is the method's part.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

_EMPTIED_BY_RESET = (DictReplayBuffer, NStepReplayBuffer, ReplayBuffer)


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
    """Empty the replay buffer, which stays the same object.

    A class of buffers that stores more than stable-baselines3's, and has no `reset` for it, is
    constructed anew in place.
    """
    buffer = model.replay_buffer
    if buffer is None:
        return
    buffer.reset()
    if _stores_more_than_reset_empties(type(buffer)):
        fresh = _construct(model, type(buffer))
        vars(buffer).clear()
        vars(buffer).update(vars(fresh))


def warm_up(model: OffPolicyAlgorithm) -> None:
    """Begin the warm-up anew at the present step: actions drawn at random, and no updates.

    It lasts `model.learning_starts` steps, and with a HerReplayBuffer until an episode has ended,
    since that samples nothing before. `learning_starts` stays as it is, for whoever saves the
    model or interrupts it in the meantime. A count of steps that begins anew ends it.
    """
    stock = _without_warm_up(type(model))
    begun, end = model.num_timesteps, model.num_timesteps + model.learning_starts

    class Warming(stock):  # type: ignore[misc, valid-type]
        """The model's own class, with a warm-up at other steps than the first ones."""

        without_warm_up = stock

        def _sample_action(self, learning_starts: int, *args: Any, **kwargs: Any) -> Any:
            if self.num_timesteps < begun:
                self.__class__ = stock
                return self._sample_action(learning_starts, *args, **kwargs)
            return super()._sample_action(end, *args, **kwargs)

        def train(self, *args: Any, **kwargs: Any) -> None:
            if self.num_timesteps > end and _can_be_sampled(self.replay_buffer):
                self.__class__ = stock
                self.train(*args, **kwargs)

    # A class, not attributes: those would be saved with the model, and a copy would share them.
    Warming.__name__, Warming.__qualname__ = stock.__name__, stock.__qualname__
    Warming.__module__ = stock.__module__
    model.__class__ = Warming


def _without_warm_up(cls: type) -> type:
    stock: type = getattr(cls, "without_warm_up", cls)
    return stock


def _can_be_sampled(buffer: Any) -> bool:
    return not isinstance(buffer, HerReplayBuffer) or bool((buffer.ep_length > 0).any())


def _stores_more_than_reset_empties(cls: type) -> bool:
    for base in cls.__mro__:
        if base in _EMPTIED_BY_RESET or "reset" in vars(base):
            return False
        if "__init__" in vars(base) or "add" in vars(base):
            return True
    return False


def _construct(model: OffPolicyAlgorithm, cls: type[ReplayBuffer]) -> ReplayBuffer:
    """Return a buffer as the model constructed its own."""
    environment: dict[str, Any] = {"env": model.env} if issubclass(cls, HerReplayBuffer) else {}
    with warnings.catch_warnings():
        # Of too little memory for two: the one before is given back.
        warnings.filterwarnings("ignore", ".*enough memory", UserWarning)
        return cls(
            model.buffer_size,
            model.observation_space,
            model.action_space,
            device=model.device,
            n_envs=model.n_envs,
            optimize_memory_usage=model.optimize_memory_usage,
            **model.replay_buffer_kwargs,
            **environment,
        )


def _restart_exploration(model: Any) -> None:
    model._n_calls = 0
    model.exploration_rate = model.exploration_schedule(1.0)


def _restart_entropy(model: Any) -> None:
    initial = model.ent_coef.partition("_")[2] or 1.0  # "auto" or "auto_0.1"
    with torch.no_grad():
        model.log_ent_coef.fill_(math.log(float(initial)))
    model.ent_coef_optimizer.state.clear()
