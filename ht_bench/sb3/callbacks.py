"""Callbacks for `model.learn`: phase boundaries, evaluation of both networks, diagnostics.

What they record goes to the model's logger (TensorBoard, CSV, …) under the metric keys that all of
ht-bench uses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ht_bench.errors import UsageError
from ht_bench.sb3.boundary import forget_experience
from ht_bench.sb3.diagnostics import diagnose_policy
from ht_bench.sb3.plastic import PlasticPolicy

Environment = gymnasium.Env[Any, Any] | VecEnv


class PlasticityCallback(BaseCallback):
    """A callback for a model whose policy is a PlasticPolicy."""

    def _on_training_start(self) -> None:
        if not isinstance(self.model.policy, PlasticPolicy):
            raise UsageError(
                f"{type(self).__name__} needs a plastic policy; make the model with "
                '"PlasticMlpPolicy" or "HareTortoiseMlpPolicy" (Cnn, MultiInput).'
            )

    @property
    def policy(self) -> Any:
        """The model's policy, a PlasticPolicy."""
        return self.model.policy

    def _on_step(self) -> bool:
        return True


class PhaseCallback(PlasticityCallback):
    """Tells the method when the environment's `info["phase"]` changes, as ht-bench's streams do.

    forget: also empty the replay buffer, so that what an agent keeps is its networks alone. (The
    runner of ht-bench restarts exploration and learning rates too, which one call of `learn`
    cannot.) On-policy agents are told at the start of the next rollout. Raises UsageError when
    the infos name no phase.
    """

    def __init__(self, forget: bool = True, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._forget = forget
        self._phase: int | None = None
        self._entered: int | None = None

    def _on_step(self) -> bool:
        info = self.locals["infos"][0]
        if "phase" not in info:
            raise UsageError(
                "The environment's infos have no 'phase'; use a stream registered under "
                "ht_bench/, or call model.policy.enter_phase(index) at your own boundaries."
            )
        phase = int(info["phase"])
        self.logger.record("phase", phase)
        if self._phase is None:
            self._phase = self._entered = phase
        self._phase = phase
        if not isinstance(self.model, OnPolicyAlgorithm):
            self._enter()
        return True

    def _on_rollout_start(self) -> None:
        if isinstance(self.model, OnPolicyAlgorithm):
            self._enter()

    def _enter(self) -> None:
        if self._phase is None or self._phase == self._entered:
            return
        self._entered = self._phase
        self.policy.enter_phase(self._phase)
        if self._forget and isinstance(self.model, OffPolicyAlgorithm):
            forget_experience(self.model)


class _Every(PlasticityCallback):
    """Acts once in so many environment steps, counted over all copies."""

    def __init__(self, every: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        if every < 1:
            raise UsageError(f"every = {every}: give 1 environment step or more.")
        self._every, self._last = every, 0

    def _on_step(self) -> bool:
        if self.num_timesteps - self._last >= self._every:
            self._last = self.num_timesteps
            self._act()
            self.logger.dump(self.num_timesteps)
        return True

    def _act(self) -> None:
        raise NotImplementedError


class EvaluationCallback(_Every):
    """Every `every` environment steps plays `episodes` deterministic episodes in `env`.

    Records `eval/return`, of the weights the method judges, and, where it has a tortoise,
    `hare/return` and `tortoise/return`. `returns` keeps them: (environment steps, key, mean).
    """

    def __init__(self, env: Environment, every: int, episodes: int = 10, verbose: int = 0) -> None:
        super().__init__(every, verbose)
        self._env, self._episodes = env, episodes
        self.returns: list[tuple[int, str, float]] = []

    def _act(self) -> None:
        judged = self._mean("tortoise")
        self._keep("eval/return", judged)
        if self.policy.has_tortoise:
            self._keep("hare/return", self._mean("hare"))
            self._keep("tortoise/return", judged)

    def _mean(self, which: str) -> float:
        with self.policy.acting_as(which):
            mean, _ = evaluate_policy(
                self.policy, self._env, n_eval_episodes=self._episodes, warn=False
            )
        return float(np.mean(mean))

    def _keep(self, key: str, value: float) -> None:
        self.returns.append((self.num_timesteps, key, value))
        self.logger.record(key, value)


class DiagnosticsCallback(_Every):
    """Every `every` environment steps records the acting network's plasticity diagnostics.

    They look at the last `observations` observations of training: `plasticity/dormant_fraction`,
    `plasticity/effective_rank`, `plasticity/stable_rank`, `plasticity/srank`, `weights/norm` and
    `weights/distance_from_init`.
    """

    def __init__(self, every: int, observations: int = 256, verbose: int = 0) -> None:
        super().__init__(every, verbose)
        self._kept: deque[Any] = deque(maxlen=observations)

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if not hasattr(self, "_initial"):
            parameters = self.policy.named_parameters()
            self._initial = {name: tensor.detach().clone() for name, tensor in parameters}

    def _on_step(self) -> bool:
        self._kept.append(self.locals["new_obs"])
        return super()._on_step()

    def _act(self) -> None:
        found = diagnose_policy(self.policy, _joined(list(self._kept)), self._initial)
        for key, value in found.items():
            self.logger.record(key, float(value))


def _joined(observations: list[Any]) -> Any:
    join: Callable[[list[Any]], Any] = np.concatenate
    if isinstance(observations[0], dict):
        return {k: join([some[k] for some in observations]) for k in observations[0]}
    return join(observations)
