"""Callbacks for `model.learn`: phase boundaries, evaluation of both networks, diagnostics.

What they record goes to the model's logger (TensorBoard, CSV, …) under the metric keys that all of
ht-bench uses.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from ht_bench.errors import UsageError
from ht_bench.sb3.boundary import forget_experience
from ht_bench.sb3.diagnostics import diagnose_policy, last_observations
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

    forget: also empty the replay buffer and warm up again, so that what an agent keeps is its
    networks alone. (The runner of ht-bench restarts exploration and learning rates too, which one
    call of `learn` cannot.) On-policy agents are told at the start of the next rollout, also where
    the boundary is the end of the one before. Raises UsageError when the infos name no phase.
    """

    def __init__(self, forget: bool = True, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._forget = forget
        self._phase: int | None = None
        self._entered: int | None = None

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._warm_up = getattr(self.model, "learning_starts", 0)

    def _on_training_end(self) -> None:
        if isinstance(self.model, OffPolicyAlgorithm):
            self.model.learning_starts = self._warm_up

    def _on_step(self) -> bool:
        info = self.locals["infos"][0]
        if "phase" not in info:
            raise UsageError(
                "The environment's infos have no 'phase'; use a stream registered under "
                "ht_bench/, or call model.policy.enter_phase(index) at your own boundaries."
            )
        self._see(info["phase"])
        self.logger.record("phase", self._phase)
        if not isinstance(self.model, OnPolicyAlgorithm):
            self._enter()
        return True

    def _on_rollout_start(self) -> None:
        if not isinstance(self.model, OnPolicyAlgorithm):
            return
        begun = self.training_env.unwrapped.reset_infos[0]
        if self.model._last_episode_starts[0] and "phase" in begun:  # type: ignore[index]
            self._see(begun["phase"])  # the last step's info is still of the phase before
        self._enter()

    def _see(self, phase: int) -> None:
        self._phase = int(phase)
        if self._entered is None:
            self._entered = self._phase

    def _enter(self) -> None:
        if self._phase is None or self._phase == self._entered:
            return
        self._entered = self._phase
        self.policy.enter_phase(self._phase)
        if self._forget and isinstance(self.model, OffPolicyAlgorithm):
            forget_experience(self.model)
            self.model.learning_starts = self.num_timesteps + self._warm_up


class _Every(PlasticityCallback):
    """Acts once in so many environment steps, counted over all copies.

    A second `learn` that goes on counting goes on here too; one that counts anew starts anew.
    """

    def __init__(self, every: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        _at_least_one("every", every)
        self._every, self._last = every, -every

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if not 0 <= self.num_timesteps - self._last < self._every:
            self._last = self.num_timesteps

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

    Records `eval/return`, of the weights the method evaluates, and, where it has a tortoise,
    `hare/return` and `tortoise/return`. `returns` keeps them: (environment steps, key, mean).
    Where `env` is one of ht-bench's streams it is put at the start of the phase in training; give
    it the same stream: `stream=` for environments, `seed` for data.
    """

    def __init__(self, env: Environment, every: int, episodes: int = 10, verbose: int = 0) -> None:
        super().__init__(every, verbose)
        _at_least_one("episodes", episodes)
        self._env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
        self._episodes = episodes
        self.returns: list[tuple[int, str, float]] = []

    def _act(self) -> None:
        evaluated = self._mean("tortoise")
        self._keep("eval/return", evaluated)
        if self.policy.has_tortoise:
            self._keep("hare/return", self._mean("hare"))
            self._keep("tortoise/return", evaluated)

    def _mean(self, which: str) -> float:
        phase = self.locals["infos"][0].get("phase")
        if phase is not None and self._env.has_attr("tasks"):
            self._env.set_options({"phase": int(phase)})
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
    `weights/distance_from_init`: from the weights at this callback's first `learn` of the policy.
    """

    def __init__(self, every: int, observations: int = 256, verbose: int = 0) -> None:
        super().__init__(every, verbose)
        _at_least_one("observations", observations)
        self._observations = observations
        self._diagnosed: Any = None

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self._diagnosed is self.policy:
            return
        self._diagnosed = self.policy
        parameters = self.policy.named_parameters()
        self._initial = {name: tensor.detach().clone() for name, tensor in parameters}
        steps = -(-self._observations // self.training_env.num_envs)
        self._kept: deque[Any] = deque(maxlen=steps)

    def _on_step(self) -> bool:
        self._kept.append(self.locals["new_obs"])
        return super()._on_step()

    def _act(self) -> None:
        last = last_observations(list(self._kept), self._observations)
        for key, value in diagnose_policy(self.policy, last, self._initial).items():
            self.logger.record(key, float(value))


def _at_least_one(name: str, given: int) -> None:
    if given < 1:
        raise UsageError(f"{name} = {given}: give 1 or more.")
