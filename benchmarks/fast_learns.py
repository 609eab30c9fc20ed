"""Whether `fast=True` learns as well: `python benchmarks/fast_learns.py [--seeds 5]`.

DQN learns CartPole with rl-zoo's settings, with `fast` and without, each seed with both. Printed:
the mean return of the last fifth of training and of twenty episodes at the end, and the mean of the
paired differences with its 95 % interval (Student's). Rounding sends the two apart within a few
thousand steps, so that curves are alike in distribution, not step by step.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import t
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import ht_bench.sb3  # noqa: F401 (makes the policies' names known)

SETTINGS: dict[str, Any] = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}


def learn(policy: str, fast: bool, seed: int, steps: int, device: str) -> tuple[float, float]:
    """Return the mean return of training's last fifth, and of twenty episodes at the end."""
    environment = make_vec_env("CartPole-v1", seed=seed)
    kwargs = {"net_arch": [256, 256], "fast": fast}
    model = DQN(policy, environment, policy_kwargs=kwargs, seed=seed, device=device, **SETTINGS)
    model.learn(steps)
    lengths = np.array(environment.get_attr("episode_lengths")[0])
    late = np.cumsum(lengths) > 0.8 * steps
    returns = np.array(environment.get_attr("episode_returns")[0])[late]
    evaluation = make_vec_env("CartPole-v1", seed=1_000 + seed)
    final, _ = evaluate_policy(model, evaluation, n_eval_episodes=20)
    return float(returns.mean()), float(np.mean(final))


def main() -> None:
    """Train in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--policy", default="PlasticMlpPolicy")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = np.empty((given.seeds, 2, 2))
    columns = ("seed", "training, stock", "training, fast", "final, stock", "final, fast")
    table = Table(*columns, title=f"{given.policy}, CartPole, {given.steps:,} steps")
    begun = time.perf_counter()
    for seed in range(given.seeds):
        for index, fast in enumerate((False, True)):
            found[seed, index] = learn(given.policy, fast, seed, given.steps, given.device)
        table.add_row(str(seed), *(f"{value:.0f}" for value in found[seed].T.ravel()))
    console = Console(width=100)
    console.print(table)
    differences = found[:, 1] - found[:, 0]
    half = t.ppf(0.975, given.seeds - 1) * differences.std(0, ddof=1) / np.sqrt(given.seeds)
    for place, name in enumerate(("training", "final")):
        mean = differences[:, place].mean()
        console.print(f"{name}: fast - stock = {mean:.1f} ± {half[place]:.1f} (n = {given.seeds})")
    console.print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
