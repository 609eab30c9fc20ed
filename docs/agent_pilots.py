"""Pilots of agents that stayed outside suite-control-v2: `python docs/agent_pilots.py [NAME …]`.

Trains `none` and `full-reset` on the first tuning seeds, validation episodes, and prints a Markdown
row of docs/suites.md for each: seeds, mean returns, the paired gap and its standard error. Two to
nine minutes a pilot on one core.
"""

from __future__ import annotations

import argparse
from typing import Any

from anchors import gap, known

from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import parse_task

SHORT = {
    "batch_size": 32,
    "buffer_size": 10000,
    "learning_starts": 500,
    "gamma": 0.99,
    "train_freq": 4,
}
CARTPOLE = {
    **SHORT,
    "learning_rate": 5e-4,
    "target_update_interval": 100,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}
ACROBOT = {
    **SHORT,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "target_update_interval": 250,
    "exploration_fraction": 0.2,
    "exploration_final_eps": 0.1,
}
DQN = {"algorithm": "dqn", "network": {"net_arch": [64, 64]}, "replay_ratio": 1}
PPO = {"learning_rate": 1e-3, "gamma": 0.99, "gae_lambda": 0.95, "ent_coef": 0.01}
BOARDS = [{"name": "minatar", "channels": 6}, {"name": "time-limit", "max_episode_steps": 500}]


def pilot(
    environment: dict[str, Any],
    agent: dict[str, Any],
    repeat: int,
    steps: int,
    random: float,
    points: int = 8,
) -> dict[str, Any]:
    """Return a task's table but its name: phases whose observations and actions are permuted anew.

    random: a uniform policy's return.
    """
    phase = {"repeat": repeat, "steps": steps, "observations": "permuted", "actions": "permuted"}
    return {
        "family": "swap",
        "environment": environment,
        "agent": {"policy": "mlp", **agent},
        "evaluation": {"episodes": 10, "points": points},
        "reference": {"random": random},
        "phases": [phase],
    }


PILOTS: dict[str, tuple[int, dict[str, Any]]] = {
    "cart-dqn-8x4800": (
        5,
        pilot({"id": "CartPole-v1"}, {**DQN, "settings": CARTPOLE}, 8, 4800, 22.1),
    ),
    "acro-b": (
        3,
        pilot(
            {"id": "Acrobot-v1"},
            {**DQN, "settings": {**ACROBOT, "exploration_fraction": 0.4}},
            *(5, 8000, -498.5),
        ),
    ),
    "acro-c": (
        3,
        pilot(
            {"id": "Acrobot-v1"},
            {**DQN, "settings": {**ACROBOT, "target_update_interval": 500}},
            *(4, 12000, -498.5),
        ),
    ),
    "acro-ppo": (
        4,
        pilot(
            {"id": "Acrobot-v1", "copies": 8},
            {
                "algorithm": "ppo",
                "settings": {**PPO, "n_steps": 256, "batch_size": 64, "n_epochs": 10},
            },
            *(4, 16384, -498.5),
        ),
    ),
    "m-si-ppo": (
        4,
        pilot(
            {"id": "MinAtar/SpaceInvaders-v1", "copies": 8, "wrappers": BOARDS},
            {
                "algorithm": "ppo",
                "policy": "minatar",
                "settings": {**PPO, "n_steps": 128, "batch_size": 256, "n_epochs": 4},
            },
            *(5, 24576, 4.07, 6),
        ),
    ),
}
"""By name, which keys all draws: tuning seeds and the table."""


def task_of(name: str) -> ReinforcementTask:
    """Return a pilot as a task."""
    task = parse_task({"name": f"{name}-v1", **PILOTS[name][1]}, name)
    assert isinstance(task, ReinforcementTask)
    return task


def row(name: str) -> str:
    """Train both anchors and return the pilot's row."""
    seeds = range(PILOTS[name][0])
    return f"| `{name}` | 0-{seeds[-1]} | {gap(task_of(name), seeds, 1)} |"


def main() -> None:
    """Read the command line and print a row a pilot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the pilots; else all")
    given = parser.parse_args()
    known(parser, given.names, PILOTS)
    for name in given.names or PILOTS:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
