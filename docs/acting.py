"""What `predict(deterministic=True)` costs with Hare & Tortoise: `python docs/acting.py`.

A stock policy and one with Hare & Tortoise act in turns on one observation, a short stretch each,
the first of a pair changing from pair to pair. Printed: microseconds of CPU time that a call
of both takes, and the median of the pairs' ratios with its 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3 import DQN, PPO, SAC, TD3

import ht_bench.sb3  # noqa: F401 (makes the policies' names known)

AGENTS = {DQN: "CartPole-v1", PPO: "CartPole-v1", SAC: "Pendulum-v1", TD3: "Pendulum-v1"}
CALLS = 100


def seconds(policy: Any, seen: Any) -> float:
    """Return the CPU seconds of one call of `predict`."""
    begun = time.process_time()
    for _ in range(CALLS):
        policy.predict(seen, deterministic=True)
    return (time.process_time() - begun) / CALLS


def measure(algorithm: Any, pairs: int) -> list[str]:
    """Return a row of the table."""
    names = ("MlpPolicy", "HareTortoiseMlpPolicy")
    models = [algorithm(name, AGENTS[algorithm], device="cpu", seed=0) for name in names]
    seen = models[0].observation_space.sample()
    for model in models:
        seconds(model.policy, seen)
    taken = np.empty((pairs, 2))
    for pair in range(pairs):
        for index in (0, 1) if pair % 2 else (1, 0):
            taken[pair, index] = seconds(models[index].policy, seen)
    ratios = taken[:, 1] / taken[:, 0]
    draws = np.random.default_rng(0).choice(ratios, (2_000, pairs))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    stock, mine = np.median(taken, axis=0) * 1e6
    ratio = f"{np.median(ratios):.3f} [{low:.3f}, {high:.3f}]"
    return [algorithm.__name__, f"{stock:.0f}", f"{mine:.0f}", ratio]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    table = Table("agent", "stock, µs", "H&T, µs", "H&T / stock", box=None)
    for algorithm in AGENTS:
        table.add_row(*measure(algorithm, pairs))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
