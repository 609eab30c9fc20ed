"""Returns of a policy on fixed episodes, and what a phase of an agent's training records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from ht_bench.sb3.diagnostics import diagnose_policy, keep, last_observations, probe_policy
from ht_bench.streams.points import points_of_phase
from ht_bench.training.encoding import decode, encode
from ht_bench.training.history import point

if TYPE_CHECKING:
    from ht_bench.training.reinforcement import ReinforcementRun

DIAGNOSED = 256
"""Training observations that diagnostics look at: the last ones of a phase."""

Act = Callable[[Any], Any]
"""Observations [n, ...] (or a dict of such arrays) → actions [n, ...]."""


class Episodes:
    """The same episodes every time: one environment each, all stepped side by side."""

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self._environments = [make() for _ in self.seeds]

    def returns(self, act: Act) -> list[float]:
        """Play every episode once to its end; returns the undiscounted sums of rewards.

        Actions of Box spaces are clipped to the space's bounds, as stable-baselines3 does.
        """
        pairs = zip(self._environments, self.seeds, strict=True)
        observations = [env.reset(seed=seed)[0] for env, seed in pairs]
        totals = [0.0] * len(self.seeds)
        playing = list(range(len(self.seeds)))
        while playing:
            actions = act(_batch([observations[i] for i in playing]))
            going_on = []
            for i, action in zip(playing, actions, strict=True):
                observations[i], reward, terminated, truncated, _ = self._environments[i].step(
                    action
                )
                totals[i] += float(reward)
                if not (terminated or truncated):
                    going_on.append(i)
            playing = going_on
        return totals

    def mean_return(self, policy: Any, which: str) -> float:
        """Return the mean return of "tortoise" (the weights evaluated) or "hare", deterministic."""
        with policy.acting_as(which):
            returns = self.returns(lambda seen: policy.predict(seen, deterministic=True)[0])
        return float(np.mean(returns))

    def close(self) -> None:
        """Close the environments."""
        for environment in self._environments:
            environment.close()


class PhaseRecorder(BaseCallback):
    """Sees every step of a phase: evaluates on the grid, reports progress, stops when asked."""

    def __init__(self, run: ReinforcementRun, episodes: Episodes) -> None:
        super().__init__()
        self._run, self._episodes, self._phase = run, episodes, run.position.phase
        self._steps = run.planned[self._phase]
        self._grid = points_of_phase(self._steps, run.task.evaluation.points)
        self._recorded, self._seen, self.stopped = 0, 0, False
        self._returns: list[float] = []  # of training episodes since the last point
        self._observations: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint within the phase holds: what was seen since the last point."""
        return {
            "recorded": self._recorded,
            "seen": self._seen,
            "returns": list(self._returns),
            "observations": [encode(step) for step in self._observations],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._recorded, self._seen = state["recorded"], state["seen"]
        self._returns = list(state["returns"])
        self._observations = [decode(step) for step in state["observations"]]

    def _on_rollout_start(self) -> None:
        self._run.pause_at_rollout()

    def _on_step(self) -> bool:
        run = self._run
        run.observer.progress(self.num_timesteps - self._seen)
        self._seen = self.num_timesteps
        for info in self.locals["infos"]:
            if "episode" in info:
                self._returns.append(float(info["episode"]["r"]))
        if self._seen > self._steps - DIAGNOSED:
            self._observations.append(keep(self.locals["new_obs"]))
        # The phase's last point waits for `finish`: it comes after the last updates.
        if self._recorded < len(self._grid) - 1 and self._seen >= self._grid[self._recorded]:
            self.record(self._grid[self._recorded])
            self._recorded += 1
        self.stopped = not run.can_pause and run.observer.stop()
        return not self.stopped and bool(run.alive.all())

    def finish(self) -> None:
        """Record the phase's end, points that a diverged run has missed, and diagnostics."""
        run = self._run
        run.observer.progress(self._steps - self._seen)
        for target in self._grid[self._recorded :]:
            self.record(target)
        if self._observations and bool(run.alive.all()):
            last = last_observations(self._observations, DIAGNOSED)
            with run.evaluating():
                values = diagnose_policy(run.policy, last, run.initial)
                if run.diagnostics.costly:
                    values |= probe_policy(run.policy, last)
            step = run.steps_before(self._phase + 1)
            run.history.diagnostics.append(point(self._phase, step, values))

    def record(self, step: int) -> None:
        """Add a point: returns of the evaluated policy, and training's since the last point."""
        run = self._run
        run.history.alive &= run.is_finite()
        values: dict[str, list[float | None]] = {}
        for key, which in (("eval", "tortoise"), ("hare", "hare")):
            if key == "eval" or run.policy.has_tortoise:
                values[f"{key}/return"] = [self._evaluate(which)]
        if run.policy.has_tortoise:
            values["tortoise/return"] = values["eval/return"]
        values["rollout/return"] = [float(np.mean(self._returns)) if self._returns else None]
        self._returns = []
        run.history.points.append(point(self._phase, run.steps_before(self._phase) + step, values))
        run.observer.point(run.history.points[-1])

    def _evaluate(self, which: str) -> float:
        """Return the mean return, a uniform policy's for a run that has diverged."""
        if not bool(self._run.alive.all()):
            return self._run.task.reference.random
        with self._run.evaluating():
            return self._episodes.mean_return(self._run.policy, which)


def _batch(observations: Sequence[Any]) -> Any:
    if isinstance(observations[0], dict):
        keys = observations[0]
        return {key: np.stack([observation[key] for observation in observations]) for key in keys}
    return np.stack(observations)
