"""What agents cost: `python benchmarks/agents.py [cartpole] [atari] [--device cuda]`.

A stock DQN, one with Hare & Tortoise, and the same two with `fast=True` are trained in turns on one
machine, a short stretch each, another one first in every round. Printed: agent steps per second,
the medians of the rounds' ratios to the stock DQN with 95 % bootstrap intervals, of wall and of CPU
time (on a machine with other work only the second is of use), and what the method's hook takes of a
step. Hare & Tortoise without `fast` against stock is what the hook costs in stable-baselines3:
`--only stock,hare-tortoise`. Atari needs the extra `atari`.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ale_py
import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack
from tqdm import tqdm

import ht_bench.sb3  # noqa: F401 (makes the policies' names known)

PLASTICITY = {"plasticity_kwargs": {"decay": 0.999, "reset_every": 1000}}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "stock": ("", {}),
    "hare-tortoise": ("HareTortoise", PLASTICITY),
    "fast": ("Plastic", {"fast": True}),
    "fast-hare-tortoise": ("HareTortoise", {**PLASTICITY, "fast": True}),
}
"""Prefixes of the policy's name, and its arguments."""
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """What is trained: an environment, the policies' kind, DQN's settings, a stretch's steps."""

    title: str
    environment: Callable[[], VecEnv]
    kind: str
    settings: dict[str, Any]
    stretch: int


def cartpole() -> VecEnv:
    """Return one CartPole."""
    return DummyVecEnv([lambda: Monitor(gymnasium.make("CartPole-v1"))])


def breakout() -> VecEnv:
    """Return one Breakout as stable-baselines3 prepares it: four grey frames of 84 × 84."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    options = {"frameskip": 1, "repeat_action_probability": 0.0}
    return VecFrameStack(make_atari_env("ALE/Breakout-v5", env_kwargs=options, seed=0), 4)


COMMON = {"batch_size": 32, "learning_starts": 100, "train_freq": 1, "seed": 0}
SETTINGS = {
    "cartpole": Setting(
        "DQN on CartPole, net 64-64, one update a step",
        cartpole,
        "Mlp",
        {**COMMON, "buffer_size": 10_000, "policy_kwargs": {"net_arch": [64, 64]}},
        500,
    ),
    "atari": Setting(
        "DQN on Breakout's pixels, Nature CNN, one update a step",
        breakout,
        "Cnn",
        {**COMMON, "buffer_size": 5_000, "learning_rate": 1e-4},
        50,
    ),
}


class Runner:
    """One agent that is trained a stretch at a time."""

    def __init__(self, setting: Setting, variant: str, device: str) -> None:
        settings = dict(setting.settings)
        prefix, more = VARIANTS[variant]
        kwargs = {**settings.pop("policy_kwargs", {}), **more}
        name = f"{prefix}{setting.kind}Policy"
        environment = setting.environment()
        self.model = DQN(name, environment, device=device, policy_kwargs=kwargs, **settings)
        self.device = device
        self.train(settings["learning_starts"] + 2 * setting.stretch)

    def train(self, steps: int) -> tuple[float, float]:
        """Train so many steps; return the seconds of wall and of CPU time they took."""
        synchronize(self.device)
        begun = time.perf_counter(), time.process_time()
        self.model.learn(steps, reset_num_timesteps=False)
        synchronize(self.device)
        return time.perf_counter() - begun[0], time.process_time() - begun[1]

    def hook_seconds(self, calls: int = 200) -> float:
        """Return the seconds that the method's part of a step takes, 0 for a stock policy."""
        policy: Any = self.model.policy
        if not hasattr(policy, "methods"):
            return 0.0
        method = policy.methods["q_net"]
        synchronize(self.device)
        begun = time.perf_counter()
        with torch.no_grad():
            for _ in range(calls):
                method.after_step()
                method.advance(1)
        synchronize(self.device)
        return (time.perf_counter() - begun) / calls


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def in_turns(runners: Sequence[Runner], steps: int, rounds: int) -> Seconds:
    """Return wall and CPU seconds [rounds, runners, 2]; another one begins in every round."""
    taken = np.empty((rounds, len(runners), 2))
    for turn in tqdm(range(rounds), unit="round", disable=None):
        for place in range(len(runners)):
            index = (turn + place) % len(runners)
            taken[turn, index] = runners[index].train(steps)
    return taken


def interval(ratios: Seconds) -> str:
    """Return the median with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return f"{np.median(ratios):.3f} [{low:.3f}, {high:.3f}]"


def measure(setting: Setting, variants: Sequence[str], rounds: int, device: str) -> Table:
    """Return the table of a setting: rates, and times relative to the first variant's."""
    columns = ("agent", "steps/s", "wall time, of stock's", "CPU time, of stock's", "hook, µs")
    table = Table(*columns, title=f"{setting.title}; {rounds} rounds in turns")
    runners = [Runner(setting, variant, device) for variant in variants]
    taken = in_turns(runners, setting.stretch, rounds)
    for index, variant in enumerate(variants):
        ratios = taken[:, index] / taken[:, 0]
        rate = setting.stretch / np.median(taken[:, index, 0])
        hook = runners[index].hook_seconds() * 1e6
        of_wall, of_cpu = interval(ratios[:, 0]), interval(ratios[:, 1])
        table.add_row(variant, f"{rate:,.0f}", of_wall, of_cpu, f"{hook:,.0f}")
    return table


def main() -> int:
    """Print a table for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", nargs="*", default=list(SETTINGS), help="cartpole, atari")
    parser.add_argument("--pairs", type=int, default=30, help="rounds of stretches (default 30)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--only", default=",".join(VARIANTS), help="agents, by commas")
    given = parser.parse_args()
    variants = given.only.split(",")
    for names, known in ((given.what, SETTINGS), (variants, VARIANTS)):
        unknown = [name for name in names if name not in known]
        if unknown:
            print(f"There is no '{unknown[0]}'; choose among {', '.join(known)}.")
            return 2
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA device here; leave --device out.")
        return 2
    torch.set_num_threads(given.threads)
    console = Console(width=120)
    for what in given.what:
        console.print(measure(SETTINGS[what], variants, given.pairs, given.device))
    where = torch.cuda.get_device_name() if given.device != "cpu" else f"{given.threads} thread(s)"
    console.print(f"torch {torch.__version__}, Python {platform.python_version()}, {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
