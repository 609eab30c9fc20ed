"""How long a large leaderboard takes to render: `python docs/page_load.py` (`make page-load`).

50 submissions × 20 tasks × 20 seeds, made up: copies of released tasks under other names, curves at
random. Prints seconds, the peak memory of this process, and the weight of the first view.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ht_bench import registry
from ht_bench.leaderboard.board import make_board, read_entries
from ht_bench.leaderboard.known import known_task
from ht_bench.leaderboard.submit import write_submission
from ht_bench.streams.catalog import get_task
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.suite import Anchors, Suite
from ht_bench.streams.task import AnyTask
from ht_bench.version import EPOCH
from ht_bench.views.page import write_site

SOURCES = (
    "warm-start-digits-v1",
    "permuted-digits-v1",
    "continual-digits-v1",
    "swap-cartpole-ppo-v1",
)
LIMITS = {"seconds": 20.0, "peak MB": 600.0, "first view MB": 1.0}


def make_tasks(count: int) -> list[AnyTask]:
    """Register copies of released tasks under other names."""
    tasks = []
    for index in range(count):
        source = get_task(SOURCES[index % len(SOURCES)])
        task = dataclasses.replace(source, name=f"load-{index}-v1")
        registry.tasks.register(task.name)(task)
        tasks.append(task)
    return tasks


def curve(task: AnyTask, level: float, generator: np.random.Generator) -> list[float]:
    """Return made-up values on the task's grid: whole numbers of 500 examples, or returns."""
    known = known_task(task)
    assert known.grid is not None
    points = len(known.grid[0])
    rise = level * (1 - np.exp(-np.arange(points) / points * 5))
    noisy = np.clip(rise + generator.normal(0, 0.03, points), 0, 1)
    scale = 500
    return (np.round(noisy * scale) / (1 if known.is_control else scale)).tolist()


def task_table(task: AnyTask, level: float, generator: np.random.Generator) -> dict[str, Any]:
    """Return a submission's table of one task."""
    known = known_task(task)
    assert known.grid is not None
    key = "eval/return" if known.is_control else "test/accuracy"
    seeds = {
        str(seed): {
            "status": "finished",
            "steps": 0,
            "seconds": float(generator.uniform(1, 2)),
            "peak_memory_bytes": 500_000_000,
            "retention": [0.5] * len(task.phases) if known.retains("finished") else None,
            "curve": {key: curve(task, level, generator)},
        }
        for seed in task.seeds
    }
    return {
        "task_sha256": task.sha256,
        "data_sha256": known.data_sha256 or "",
        "hyperparameters": {"strength": level, "interval": 100},
        "classes": known.classes,
        "stack": task.stack,
        "extra_parameters": 0,
        "software": {"torch": "2.13.0"},
        "hardware": {"processor": "made up"},
        "none_cost": {"seconds": 1.5, "peak_memory_bytes": 500_000_000},
        "grid": {"phase": known.grid[0], "step": known.grid[1]},
        "seeds": seeds,
    }


def submission(name: str, tasks: list[AnyTask], level: float) -> dict[str, Any]:
    """Return the content of a made-up submission."""
    generator = np.random.default_rng(int(level * 1e6))
    return {
        "schema": 1,
        "benchmark": EPOCH,
        "name": name,
        "authors": ["Nobody"],
        "link": "https://example.org/paper",
        "method": {
            "name": name,
            "summary": "Made up to see how long the page takes.",
            "citation": "",
            "source_sha256": "0" * 64,
            "needs_boundaries": level > 0.8,
            "network": {},
        },
        "tuning": {"how": "not tuned", "runs": 0},
        "split": "test",
        "precision": "fp32",
        "device": "cpu",
        "tasks": {task.name: task_table(task, level, generator) for task in tasks},
    }


def make_suites(tasks: list[AnyTask]) -> list[Suite]:
    """Return suites of five tasks with made-up anchors."""
    suites = []
    for start in range(0, len(tasks), 5):
        members = tasks[start : start + 5]
        suites.append(
            Suite(
                f"suite-load-{start // 5}-v1",
                "Made up",
                tuple(task.name for task in members),
                EPOCH,
                anchors={task.name: make_anchors(task) for task in members},
            )
        )
    return suites


def make_anchors(task: AnyTask) -> Anchors:
    """Return anchors with a gap."""
    known = known_task(task)
    scale = 500 if known.is_control else 1
    generator = np.random.default_rng(0)
    none, fresh = (
        tuple((scale * generator.normal(level, 0.02, len(task.seeds))).tolist())
        for level in (0.6, 0.9)
    )
    return Anchors(task.sha256, known.data_sha256 or "", format_seeds(task.seeds), none, fresh)


def measure(folder: Path, suites: list[Suite]) -> dict[str, float]:
    """Build the site as `ht-bench page` does, and return what it took."""
    start = time.perf_counter()
    board = make_board(read_entries(folder, {}), suites)
    ranked = time.perf_counter()
    site = folder / "site"
    write_site(board, site)
    done = time.perf_counter()
    first = sum((site / name).stat().st_size for name in ("index.html", "style.css", "board.js"))
    whole = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    return {
        "seconds": done - start,
        "of them reading and ranking": ranked - start,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "first view MB": first / 1e6,
        "whole site MB": whole / 1e6,
    }


def main() -> int:
    """Print the table; returns 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="a folder to keep the submissions and site in")
    options = parser.parse_args()
    tasks = make_tasks(options.tasks)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(options.submissions):
            name = ("none", "full-reset", "hare-tortoise")[index] if index < 3 else f"made-{index}"
            level = (
                (0.6, 0.9, 0.8)[index] if index < 3 else 0.55 + 0.4 * index / options.submissions
            )
            write_submission(folder / f"{name}.json", submission(name, tasks, level))
        found = measure(folder, make_suites(tasks))
    seeds = len(tasks[0].seeds)
    print(f"{options.submissions} submissions × {len(tasks)} tasks × {seeds} seeds")
    for name, number in found.items():
        limit = f"  (limit {LIMITS[name]:g})" if name in LIMITS else ""
        print(f"{name:30} {number:8.2f}{limit}")
    return int(any(found[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
