"""Returns of a policy on fixed episodes: all episodes are stepped side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

Act = Callable[[Any], Any]
"""Observations [n, ...] (or a dict of such arrays) → actions [n, ...]."""


class Episodes:
    """The same episodes every time: one environment each, reset with a seed of its own."""

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

    def close(self) -> None:
        """Close the environments."""
        for environment in self._environments:
            environment.close()


def _batch(observations: Sequence[Any]) -> Any:
    if isinstance(observations[0], dict):
        keys = observations[0]
        return {key: np.stack([observation[key] for observation in observations]) for key in keys}
    return np.stack(observations)
