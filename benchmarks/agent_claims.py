"""The claims about agents, by the runners of `agents.py`: `python -m benchmarks.agent_claims`.

DQN on Breakout's pixels with `fast=True` against stock, agent steps per second; and what the hook
of Hare & Tortoise costs stable-baselines3 without it, on pixels and on CartPole. In turns, one
thread. Needs the extra `atari`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch

from benchmarks.agents import SETTINGS, Runner, in_turns
from benchmarks.common import Options, Row, add_options, finish, median_of, options_of

STOCK, WITH_HOOK, FAST = "stock", "hare-tortoise", "fast-hare-tortoise"
CLAIMS = {"atari": "hook-pixels", "cartpole": "hook-cartpole"}


def measure(options: Options, what: str, rounds: int) -> Iterator[Row]:
    """Yield the rows of one environment."""
    setting = SETTINGS[what]
    variants = (STOCK, WITH_HOOK, FAST) if what == "atari" else (STOCK, WITH_HOOK)
    runners = [Runner(setting, variant, options.device) for variant in variants]
    steps = 5 if options.tiny else setting.stretch
    seconds = in_turns(runners, steps, 2 if options.tiny else rounds)
    wall, cpu = seconds[..., 0], seconds[..., 1]
    rates = [steps / median_of(column).median for column in wall.T]
    if what == "atari":
        ratio = median_of(wall[:, 0] / wall[:, 2])
        yield Row(f"dqn-{options.device}", rates[2], "steps/s", rates[0], STOCK, ratio)
    if options.device == "cpu":  # where other work disturbs wall time, CPU time tells
        note = f"of CPU time {median_of(cpu[:, 1] / cpu[:, 0])}"
        ratio = median_of(wall[:, 1] / wall[:, 0])
        yield Row(CLAIMS[what], rates[1], "steps/s", rates[0], STOCK, ratio, note=note)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_options(parser)
    parser.add_argument("--pairs", type=int, default=30, help="rounds of stretches (default 30)")
    parser.add_argument("--only", default="atari,cartpole", help="environments, by commas")
    given = parser.parse_args(arguments)
    options = options_of(given)
    torch.set_num_threads(1)
    chosen = [what for what in CLAIMS if what in given.only.split(",")]
    finish(
        "agent_claims",
        options,
        (row for what in chosen for row in measure(options, what, given.pairs)),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
