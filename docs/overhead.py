"""What Hare & Tortoise costs DQN: `python docs/overhead.py [cartpole] [atari] [--device cuda]`.

A stock DQN and one with Hare & Tortoise are trained in turns on one machine, a short stretch each,
the first of a pair changing from pair to pair. Printed: agent steps per second of both, the medians
of the pairs' ratios of wall and of CPU time with 95 % bootstrap intervals (on a machine with other
work only the second is of use), and what the method's hook takes of a step. Atari needs the extra
`atari`.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
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

COLUMNS = ("DQN on", "stock/s", "H&T/s", "wall, H&T / stock", "CPU, H&T / stock", "hook, of a step")
PLASTICITY = {"plasticity_kwargs": {"decay": 0.999, "reset_every": 1000}}
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


COMMON = {"batch_size": 32, "learning_starts": 100, "seed": 0}
SETTINGS = {
    "cartpole": Setting(
        "CartPole, net 64-64, one update a step",
        cartpole,
        "Mlp",
        {**COMMON, "train_freq": 1, "buffer_size": 10_000, "policy_kwargs": {"net_arch": [64, 64]}},
        500,
    ),
    "atari": Setting(
        "Breakout pixels, Nature CNN, one update a step",
        breakout,
        "Cnn",
        {**COMMON, "train_freq": 1, "buffer_size": 5_000, "learning_rate": 1e-4},
        50,
    ),
}


class Runner:
    """One agent that is trained a stretch at a time."""

    def __init__(self, setting: Setting, method: str | None, device: str) -> None:
        settings = dict(setting.settings)
        own = settings.pop("policy_kwargs", {})
        name = f"{setting.kind}Policy" if method is None else f"HareTortoise{setting.kind}Policy"
        kwargs = own if method is None else {**own, **PLASTICITY}
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
        """Return the seconds that one call of the method's hook takes."""
        policy: Any = self.model.policy
        method = policy.methods["q_net"]
        synchronize(self.device)
        begun = time.perf_counter()
        for _ in range(calls):
            method._quietly(method.after_step)
        synchronize(self.device)
        return (time.perf_counter() - begun) / calls


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def in_turns(stock: Runner, plastic: Runner, steps: int, pairs: int) -> tuple[Seconds, Seconds]:
    """Return wall and CPU seconds [pairs, 2] of both; who begins changes with every pair."""
    found: dict[Runner, list[tuple[float, float]]] = {stock: [], plastic: []}
    for pair in tqdm(range(pairs), unit="pair", disable=None):
        order = (stock, plastic) if pair % 2 == 0 else (plastic, stock)
        for runner in order:
            found[runner].append(runner.train(steps))
    return np.array(found[stock]), np.array(found[plastic])


def ratio(ratios: Seconds) -> str:
    """Return the median with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return f"{np.median(ratios):.3f} [{low:.3f}, {high:.3f}]"


def measure(setting: Setting, pairs: int, device: str) -> list[str]:
    """Return a row of the table."""
    stock, plastic = Runner(setting, None, device), Runner(setting, "hare-tortoise", device)
    without, with_method = in_turns(stock, plastic, setting.stretch, pairs)
    ratios = with_method / without
    hook = plastic.hook_seconds()
    wall = np.median(without[:, 0]), np.median(with_method[:, 0])
    return [
        setting.title,
        f"{setting.stretch / wall[0]:,.0f}",
        f"{setting.stretch / wall[1]:,.0f}",
        ratio(ratios[:, 0]),
        ratio(ratios[:, 1]),
        f"{hook * 1e6:,.0f} µs, {100 * hook * setting.stretch / wall[1]:.1f} %",
    ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", nargs="*", default=list(SETTINGS), help="cartpole, atari")
    parser.add_argument("--pairs", type=int, default=40, help="pairs of stretches (default 40)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    given = parser.parse_args()
    unknown = [what for what in given.what if what not in SETTINGS]
    if unknown:
        print(f"There is no setting '{unknown[0]}'; choose {' or '.join(SETTINGS)}.")
        return 2
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA device here; leave --device out.")
        return 2
    torch.set_num_threads(given.threads)
    table = Table(*COLUMNS, title=f"{given.pairs} pairs of stretches in turns")
    for what in given.what:
        table.add_row(*measure(SETTINGS[what], given.pairs, given.device))
    console = Console(width=120)
    console.print(table)
    where = torch.cuda.get_device_name() if given.device != "cpu" else f"{given.threads} thread(s)"
    console.print(f"torch {torch.__version__}, Python {platform.python_version()}, {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
