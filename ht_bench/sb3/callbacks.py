"""Callbacks for `model.learn`: phase boundaries and diagnostics; `evaluation` has the third.

What they record goes to the model's logger (TensorBoard, CSV, …) under the metric keys that all of
ht-bench uses.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from ht_bench.errors import UsageError
from ht_bench.networks.change import Seen
from ht_bench.sb3.boundary import forget_experience, warm_up
from ht_bench.sb3.diagnostics import (
    churn_of_policy,
    diagnose_policy,
    keep,
    last_observations,
    probe_policy,
    see_policy,
)
from ht_bench.sb3.plastic import PlasticPolicy


class PlasticityCallback(BaseCallback):
    """A callback for a model whose policy is a PlasticPolicy."""

    def _on_training_start(self) -> None:
        if not isinstance(self.model.policy, PlasticPolicy):
            raise UsageError(
                f"{type(self).__name__} needs a plastic policy; make the model with "
                '"PlasticMlpPolicy" or "HareTortoiseMlpPolicy" (Cnn, MultiInput).'
            )
        super()._on_training_start()

    @property
    def policy(self) -> Any:
        """The model's policy, a PlasticPolicy."""
        return self.model.policy

    def _on_step(self) -> bool:
        return True


class PhaseCallback(PlasticityCallback):
    """Tells the method when the environment's `info["phase"]` changes, as ht-bench's streams do.

    forget: also empty the replay buffer and warm up again for `learning_starts` environment steps
    (with a HerReplayBuffer until an episode has ended), so that what an agent keeps is its
    networks alone. (The runner of ht-bench restarts exploration and learning rates too, which one
    call of `learn` cannot.) No setting of the model changes, whenever it is saved or interrupted.

    On-policy agents are told at the start of the next rollout, also where the boundary is the end
    of the one before. Raises UsageError when the infos name no phase.
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
            warm_up(self.model)


class Every(PlasticityCallback):
    """Acts once in so many environment steps, counted over all copies.

    A second `learn` that goes on counting goes on here too; one that counts anew starts anew.
    """

    def _begin(self, every: int) -> None:
        at_least_one("every", every)
        self._every, self._last = every, -every

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if not 0 <= self.num_timesteps - self._last < self._every:
            self._last = self.num_timesteps

    def _on_step(self) -> bool:
        if self.num_timesteps - self._last < self._every:
            return True
        self._last = self.num_timesteps
        return self._act()

    def _act(self) -> bool:
        """Act, and return whether training goes on."""
        raise NotImplementedError


class DiagnosticsCallback(Every):
    """Every `every` environment steps records the acting network's plasticity diagnostics.

    They look at the last `observations` observations of training: shares of dormant, saturated and
    duplicate units, ranks, churn since the last look (on the observations looked at then),
    `weights/norm`, `weights/effective_learning_rate`, and `weights/distance_from_init`: from the
    weights at this callback's first `learn` of the policy. docs/results.md lists the keys.
    probe_every: every so many environment steps also the trainability probe, which trains a copy
    of the acting network on random labels for these observations; 0: never.
    """

    def __init__(
        self, every: int, observations: int = 256, verbose: int = 0, probe_every: int = 0
    ) -> None:
        super().__init__(verbose)
        self._begin(every)
        at_least_one("observations", observations)
        if probe_every:
            at_least_one("probe_every", probe_every)
        self._observations, self._probe_every = observations, probe_every
        self._diagnosed: Any = None
        self._looks = 0

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self._diagnosed is self.policy:
            return
        self._diagnosed = self.policy
        parameters = self.policy.named_parameters()
        self._initial = {name: tensor.detach().clone() for name, tensor in parameters}
        steps = -(-self._observations // self.training_env.num_envs)
        self._kept: deque[Any] = deque(maxlen=steps)
        self._before: tuple[Any, Seen] | None = None

    def _on_step(self) -> bool:
        self._kept.append(keep(self.locals["new_obs"]))
        return super()._on_step()

    def _act(self) -> bool:
        last = last_observations(list(self._kept), self._observations)
        values = diagnose_policy(self.policy, last, self._initial)
        if self._before is not None:
            values |= churn_of_policy(self.policy, *self._before)
        self._before = last, see_policy(self.policy, last)
        if self._probe_every and self._looks % max(1, self._probe_every // self._every) == 0:
            values |= probe_policy(self.policy, last)
        self._looks += 1
        for key, value in values.items():
            self.logger.record(key, float(value))
        self.logger.dump(self.num_timesteps)
        return True


def at_least_one(name: str, given: int) -> None:
    """Raise UsageError for a count that is no whole number of 1 or more."""
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise UsageError(f"{name} = {given!r}: give a whole number of 1 or more.")
