"""The loop of reinforcement learning: one seed's agent over a stream of environments.

PROTOCOL's boundary rule holds: at each phase start every method's agent gets an empty buffer and
restarted schedules; its network and optimizer state go on, unless the method changes them. A run
is resumed at a rollout's start where the environment can be saved (`environment_state`), and at
phase boundaries elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from ht_bench.envs.phase_environment import make_phase
from ht_bench.methods.base import Method
from ht_bench.methods.resolve import MethodSpec
from ht_bench.sb3.boundary import restart
from ht_bench.streams.randomness import Purpose, key
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.stream import Split
from ht_bench.training.agent import build_agent, check_budgets
from ht_bench.training.agent_state import agent_state, is_resumed_inside_phases, restore_agent
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.device import Compute
from ht_bench.training.history import History, Interrupted, Observer
from ht_bench.training.returns import Episodes, PhaseRecorder
from ht_bench.training.run import Run, held_bytes


class ReinforcementRun(Run):
    """One seed of one task of environments and method: see `Run`. Steps are the environment's."""

    def __init__(
        self,
        task: ReinforcementTask,
        method: MethodSpec,
        seed: int,
        split: Split = "test",
        compute: Compute | None = None,
    ) -> None:
        check_budgets(task)
        super().__init__((seed,), [phase.steps for phase in task.phases], compute)
        self.task, self.split = task, split
        self._resumes_inside = is_resumed_inside_phases(task)
        self._recorder: PhaseRecorder | None = None
        self._inside: dict[str, Any] | None = None  # a checkpoint's state within a phase
        with _global_generators():
            self._env = self._environments(0)
            seed = self._key("initial weights")
            self.model: Any = build_agent(task, method, self._env, seed, self.compute.device)
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        self.policy: Any = self.model.policy
        parameters = self.policy.named_parameters()
        self.initial = {name: tensor.detach().clone() for name, tensor in parameters}
        self.policy.parts[0].optimizer.register_step_post_hook(self._count_step)
        self.policy.after_replay.append(self._count_step)

    @property
    def methods(self) -> Sequence[Method]:
        """The attached methods, one per trained network."""
        return list(self.policy.methods.values())

    def _count_step(self, *_: Any) -> None:
        self.steps_taken += not self.policy.is_recording

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the data: here, the returns to read others by."""
        reference = self.task.reference
        return {
            "data_sha256": "",
            "classes": 0,
            "reference": {"random": reference.random, "human": reference.human},
        }

    def _key(self, purpose: Purpose, phase: int = 0) -> int:
        return key(self.task.name, self.seeds[0], purpose, phase) % 2**31

    def _environments(self, index: int) -> DummyVecEnv:
        def make() -> gymnasium.Env[Any, Any]:
            return Monitor(make_phase(self.task, self.seeds[0], index))

        return DummyVecEnv([make] * self.task.environment.copies)

    # ---- the loop ----

    def train(
        self, plan: CheckpointPlan | None = None, observer: Observer | None = None
    ) -> History:
        """Train all phases; raises Interrupted when `observer.stop()` says so."""
        with _global_generators():
            try:
                return super().train(plan, observer)
            finally:
                self._env.close()

    def train_phase(self, index: int) -> None:
        """Train what is left of phase `index`, from its start where `position.step` is 0."""
        inside, self._inside = self._inside, None
        if inside is None:
            self._begin(index)
        else:
            self._open(index)
            restore_agent(self.model, self._env, inside["agent"])
        with self.episodes(index) as episodes:
            self._recorder = recorder = PhaseRecorder(self, episodes)
            if inside is None:
                recorder.record(0)
            else:
                recorder.load_state_dict(inside["recorder"])
            try:
                if bool(self.alive.all()):
                    steps = self.planned[index] - self.model.num_timesteps
                    self.model.learn(steps, callback=recorder, reset_num_timesteps=inside is None)
            except ValueError:  # torch refuses a distribution of parameters that are not finite
                if self.is_finite():
                    raise
            if recorder.stopped:
                raise Interrupted
            recorder.finish()

    def _begin(self, index: int) -> None:
        self._open(index)
        self.policy.seed_plasticity(self._key("fresh weights", index))
        self.policy.enter_phase(index, len(self.planned))
        for part in self.policy.parts:
            self.disturb(part.module, index)

    def _open(self, index: int) -> None:
        """Give the agent the phase's environment, and start all but its network anew."""
        self._env.close()
        self._env = self._environments(index)
        self.model.set_env(self._env)
        restart(self.model, self._key("agent", index))

    @property
    def can_pause(self) -> bool:
        """Whether the run is saved within phases, so that it stops at a rollout's start."""
        return self._resumes_inside and self.plan.path is not None

    def pause_at_rollout(self) -> None:
        """Save where it is due, and stop where it is asked for: the loop enters a rollout."""
        steps = int(self.model.num_timesteps)
        if self.can_pause and steps > 0:  # at 0 the boundary's own checkpoint is there
            self.position.step = steps
            self.pause_if_due()

    def is_finite(self) -> bool:
        """Whether all of the policy's parameters are."""
        return all(bool(torch.isfinite(p.detach()).all()) for p in self.policy.parameters())

    # ---- records and checkpoints ----

    @contextmanager
    def episodes(self, index: int) -> Iterator[Episodes]:
        """Open the evaluation episodes of phase `index`: the same for every seed and method."""
        validation = int(self.split == "validation")
        numbers = range(self.task.evaluation.episodes)
        seeds = [key(self.task.name, n, "evaluation", index, validation) % 2**31 for n in numbers]
        episodes = Episodes(
            lambda: make_phase(self.task, self.seeds[0], index, evaluation=True), seeds
        )
        try:
            yield episodes
        finally:
            episodes.close()

    def retention(self) -> list[list[float]] | None:
        """Return the final policy's mean return in each phase's environment; None for games."""
        if not self.task.retains or not bool(self.alive.all()):
            return None
        returns = []
        with _global_generators():
            for index in range(len(self.planned)):
                with self.episodes(index) as episodes:
                    returns.append(episodes.mean_return(self.policy, "tortoise"))
        return [returns]

    def tensor_bytes(self) -> int:
        """Return the bytes of the policy, its optimizers' states and what the methods keep."""
        return held_bytes(
            dict(self.policy.named_parameters()),
            dict(self.policy.named_buffers()),
            [part.optimizer.state_dict() for part in self.policy.parts],
            [method.state_dict() for method in self.methods],
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside position, history and cost."""
        inside = None
        if self.position.step > 0 and self._recorder is not None:
            inside = {
                "agent": agent_state(self.model, self._env),
                "recorder": self._recorder.state_dict(),
            }
        return {
            "policy": dict(self.policy.state_dict()),
            "optimizers": {p.name: p.optimizer.state_dict() for p in self.policy.parts},
            "inside": inside,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; the position is already the saved one."""
        for method in self.methods:
            method.epoch_steps, method.phases = None, len(self.planned)
        self.policy.load_state_dict(state["policy"])
        for part in self.policy.parts:
            part.optimizer.load_state_dict(state["optimizers"][part.name])
        self._inside = state.get("inside")


@contextmanager
def _global_generators() -> Iterator[None]:
    """Leave Python's and NumPy's own generators, which stable-baselines3 seeds, as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
