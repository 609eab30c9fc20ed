"""The loop of reinforcement learning: one seed's agent over a stream of environments.

PROTOCOL's boundary rule holds: at each phase start every method's agent gets an empty buffer and
restarted schedules; its network and optimizer state go on, unless the method changes them. A run
is resumed at phase boundaries.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from ht_bench.envs.phase_environment import make_phase
from ht_bench.methods.base import Method
from ht_bench.methods.resolve import MethodSpec
from ht_bench.sb3.boundary import restart
from ht_bench.sb3.diagnostics import diagnose_policy, last_observations
from ht_bench.streams.points import points_of_phase
from ht_bench.streams.randomness import Purpose, key
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.stream import Split
from ht_bench.training import checkpoint
from ht_bench.training.agent import build_agent, check_budgets
from ht_bench.training.device import Compute
from ht_bench.training.history import History, point
from ht_bench.training.observer import CheckpointPlan, Interrupted, Observer
from ht_bench.training.returns import Episodes

DIAGNOSED = 256
"""Training observations that diagnostics look at: the last ones of a phase."""


class ReinforcementRun:
    """One seed of one task of environments and one method.

    `train()` runs to the end (or goes on from the last phase boundary) and returns the History.
    """

    def __init__(
        self,
        task: ReinforcementTask,
        method: MethodSpec,
        seed: int,
        split: Split = "test",
        compute: Compute | None = None,
    ) -> None:
        check_budgets(task)
        self.task, self.seeds, self.split = task, (seed,), split
        self.compute = compute or Compute()
        self.history = History()
        self.alive = torch.ones(1, dtype=torch.bool)
        self.phase, self.steps_taken, self.seconds = 0, 0, 0.0
        with _global_generators():
            self._env = self._environments(0)
            seed = self._key("initial weights")
            self.model: Any = build_agent(task, method, self._env, seed, self.compute.device)
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        self.policy: Any = self.model.policy
        parameters = self.policy.named_parameters()
        self._initial = {name: tensor.detach().clone() for name, tensor in parameters}
        self.policy.parts[0].optimizer.register_step_post_hook(self._count_step)

    @property
    def methods(self) -> Sequence[Method]:
        """The attached methods, one per trained network."""
        return list(self.policy.methods.values())

    def _count_step(self, *_: Any) -> None:
        self.steps_taken += 1

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

    # ---- the stream ----

    def train(
        self, plan: CheckpointPlan | None = None, observer: Observer | None = None
    ) -> History:
        """Train all phases; raises Interrupted when `observer.stop()` says so."""
        self._plan, self._observer = plan or CheckpointPlan(), observer or Observer()
        self._resumed = time.monotonic()
        with _global_generators():
            self._restore()
            try:
                for index in range(self.phase, len(self.task.phases)):
                    self._train_phase(index)
                self._retention = self._retained()
            finally:
                self._env.close()
        self.seconds += time.monotonic() - self._resumed
        return self.history

    def _train_phase(self, index: int) -> None:
        steps = self.task.phases[index].steps
        self._begin(index)
        self._record(0)
        follower = _Follower(self, steps)
        try:
            if bool(self.alive.all()):
                self.model.learn(steps, callback=follower, reset_num_timesteps=True)
        except ValueError:  # torch refuses a distribution of parameters that are not finite
            if self._is_finite():
                raise
        if follower.stopped:
            self._episodes.close()
            raise Interrupted
        self._observer.progress(steps - follower.seen)
        self._record_missed(follower.recorded, steps)
        self._diagnose(follower.observations)
        self._end(index)

    def _begin(self, index: int) -> None:
        self.phase = index
        self._env.close()
        self._env = self._environments(index)
        self.model.set_env(self._env)
        restart(self.model, self._key("agent", index))
        self.policy.seed_plasticity(self._key("fresh weights", index))
        self.policy.enter_phase(index, len(self.task.phases))
        self._training_returns: list[float] = []
        self._open_evaluation(index)

    def _open_evaluation(self, index: int) -> None:
        seeds = [
            key(self.task.name, episode, "evaluation", index, int(self.split == "validation"))
            for episode in range(self.task.evaluation.episodes)
        ]
        self._episodes = Episodes(
            lambda: make_phase(self.task, self.seeds[0], index, evaluation=True),
            [seed % 2**31 for seed in seeds],
        )

    def _end(self, index: int) -> None:
        self._episodes.close()
        self.phase = index + 1
        self._save()

    def grid(self, index: int) -> list[int]:
        """Return the environment steps of phase `index` after which the curve has a point."""
        return points_of_phase(self.task.phases[index].steps, self.task.evaluation.points)

    # ---- records ----

    def _record_missed(self, recorded: int, steps: int) -> None:
        """Record the phase's end, after its last updates, and points a diverged run has missed."""
        for target in self.grid(self.phase)[recorded:]:
            self._record(target)

    def _record(self, step: int) -> None:
        """Add a point: deterministic returns of the judged policy, training's since the last."""
        self.alive &= self._is_finite()
        values: dict[str, list[float | None]] = {}
        if bool(self.alive.all()):
            values["eval/return"] = [self._evaluate("tortoise")]
            if self.policy.has_tortoise:
                values["hare/return"] = [self._evaluate("hare")]
                values["tortoise/return"] = values["eval/return"]
        else:
            keys = ["eval/return"]
            keys += ["hare/return", "tortoise/return"] if self.policy.has_tortoise else []
            values = {key: [self.task.reference.random] for key in keys}
        values["rollout/return"] = [_mean(self._training_returns)]
        self._training_returns = []
        before = sum(phase.steps for phase in self.task.phases[: self.phase])
        entry = point(self.phase, before + step, values)
        self.history.points.append(entry)
        self._observer.point(entry)

    def _evaluate(self, which: str) -> float:
        """Return the mean return over the evaluation episodes; "tortoise" is what is judged."""
        with self.policy.acting_as(which):
            returns = self._episodes.returns(
                lambda observations: self.model.policy.predict(observations, deterministic=True)[0]
            )
        return float(np.mean(returns))

    def _is_finite(self) -> bool:
        tensors = [parameter.detach() for parameter in self.policy.parameters()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def _diagnose(self, observations: Sequence[Any]) -> None:
        if not len(observations) or not bool(self.alive.all()):
            return
        last = last_observations(observations, DIAGNOSED)
        found = diagnose_policy(self.policy, last, self._initial)
        step = sum(phase.steps for phase in self.task.phases[: self.phase + 1])
        self.history.diagnostics.append(point(self.phase, step, found))

    def retention(self) -> list[list[float]] | None:
        """Return the final policy's mean return in each phase's environment; None for games."""
        return self._retention

    def _retained(self) -> list[list[float]] | None:
        if not self.task.retains or not bool(self.alive.all()):
            return None
        found = []
        for index in range(len(self.task.phases)):
            self._open_evaluation(index)
            found.append(self._evaluate("tortoise"))
            self._episodes.close()
        return [found]

    # ---- checkpoints ----

    def _save(self) -> None:
        if self._plan.path is None:
            return
        now = time.monotonic()
        optimizers = {p.name: p.optimizer.state_dict() for p in self.policy.parts}
        state = {
            "policy": dict(self.policy.state_dict()),
            "optimizers": optimizers,
            "history": self.history.state_dict(),
            "alive": self.alive,
            "phase": self.phase,
            "steps_taken": self.steps_taken,
            "seconds": self.seconds + now - self._resumed,
        }
        checkpoint.save(self._plan.path, self._plan.fingerprint, state)

    def _restore(self) -> None:
        if self._plan.path is None:
            return
        saved = checkpoint.load(self._plan.path, self._plan.fingerprint, self.compute.device)
        if saved is None:
            return
        self.policy.load_state_dict(saved["policy"])
        for part in self.policy.parts:
            part.optimizer.load_state_dict(saved["optimizers"][part.name])
        self.history.load_state_dict(saved["history"])
        self.alive, self.seconds = saved["alive"].cpu(), saved["seconds"]
        self.phase, self.steps_taken = saved["phase"], saved["steps_taken"]
        self._observer.progress(sum(phase.steps for phase in self.task.phases[: self.phase]))
        for entry in self.history.points:
            self._observer.point(entry)


class _Follower(BaseCallback):
    """Sees every step of a phase: evaluates on the grid, reports progress, stops when asked."""

    def __init__(self, run: ReinforcementRun, steps: int) -> None:
        super().__init__()
        self._run = run
        self._grid = run.grid(run.phase)[:-1]  # the last point comes after the last updates
        self._diagnosed_from = steps - DIAGNOSED
        self.recorded, self.seen, self.stopped = 0, 0, False
        self.observations: list[Any] = []

    def _on_step(self) -> bool:
        run, done = self._run, self.num_timesteps
        run._observer.progress(done - self.seen)
        self.seen = done
        for info in self.locals["infos"]:
            if "episode" in info:
                run._training_returns.append(float(info["episode"]["r"]))
        if done > self._diagnosed_from:
            self.observations.append(self.locals["new_obs"])
        if self.recorded < len(self._grid) and done >= self._grid[self.recorded]:
            run._record(self._grid[self.recorded])
            self.recorded += 1
        self.stopped = run._observer.stop()
        return not self.stopped and bool(run.alive.all())


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


@contextmanager
def _global_generators() -> Iterator[None]:
    """Leave Python's and NumPy's own generators, which stable-baselines3 seeds, as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
