"""How often verification on another machine refuses honest and forged work: `make verification`.

Every method of a suite is trained with a CPU's smaller instruction set, which stands in for another
processor, and again twice with all of it, the second time as rounding twins. Then honest and forged
submissions are drawn and compared as `ht-bench verify --rerun K` does, K seeds of each task at
random, and the shares that are refused are printed. It trains 3 × 20 seeds per task and method
(half an hour for the core suite on two idle cores) and goes on where it was stopped; `--table` only
prints.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ht_bench import registry
from ht_bench.leaderboard.choosing import Choice
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.reproduced import beyond_noise
from ht_bench.leaderboard.submit import About, make_submission
from ht_bench.leaderboard.twins import ERROR_RATE
from ht_bench.records.metrics import metric_key
from ht_bench.records.record import Record
from ht_bench.records.runs import read_runs
from ht_bench.running.job import run_stack
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.catalog import get_task
from ht_bench.streams.suite import get_suite

SMALLER = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
Content = dict[str, Any]
Forge = Callable[[Content, str, np.random.Generator], None]
Runs = dict[tuple[str, str], dict[int, Record]]


# ---- forgeries: each changes a task's curves, but not their untrained first point ----


def _curves(table: Content, key: str) -> dict[str, list[float]]:
    return {seed: run["curve"][key] for seed, run in table["seeds"].items()}


def _raise(values: list[float], boost: float) -> None:
    values[1:] = [round(min(1.0, value + boost), 3) for value in values[1:]]


def honest(table: Content, key: str, generator: np.random.Generator) -> None:
    """Change nothing."""


def boost(amount: float) -> Forge:
    """Return what raises every seed."""

    def forge(table: Content, key: str, generator: np.random.Generator) -> None:
        for values in _curves(table, key).values():
            _raise(values, amount)

    return forge


def some(table: Content, key: str, generator: np.random.Generator) -> None:
    """Raise one seed in five by 0.05."""
    curves = list(_curves(table, key).values())
    for index in generator.choice(len(curves), len(curves) // 5, replace=False):
        _raise(curves[index], 0.05)


def swap(table: Content, key: str, generator: np.random.Generator) -> None:
    """Give every seed the curve of another one."""
    curves = list(_curves(table, key).values())
    trained = [values[1:] for values in curves]
    order = generator.permutation(len(curves))
    order = np.roll(order, 1)[np.argsort(order)]  # one cycle: nobody keeps its own
    for values, other in zip(curves, order, strict=True):
        values[1:] = trained[other]


FORGERIES: dict[str, Forge] = {
    "honest": honest,
    "+0.01 all": boost(0.01),
    "+0.02 all": boost(0.02),
    "+0.05 1 in 5": some,
    "swapped": swap,
}


def train(suite: str, out: Path, jobs: int) -> None:
    """Fill `claims`, `reruns` and `twins` under `out`."""
    for folder, changes in (("claims", SMALLER), ("reruns", {})):
        words = ("run", "--suite", suite, "--method", "all", "--jobs", str(jobs))
        command = [sys.executable, "-m", "ht_bench", *words, "--out", str(out / folder)]
        subprocess.run(command, check=True, env={**os.environ, **changes})
    tasks = tuple(map(get_task, get_suite(suite).tasks))
    methods = tuple(registry.methods.names())
    plan = make_plan(Request(tasks, methods, out=out / "twins", tensorboard=False))
    for job in tqdm(plan.jobs, desc="twins", unit="stack"):
        run_stack(replace(job, twin=1))


def read(folder: Path) -> Runs:
    """Return (task, method) → seed → record."""
    runs: Runs = {}
    for record in read_runs(folder)[0]:
        runs.setdefault((record["task"], record["method"]), {})[record["seed"]] = record
    return runs


def refused(
    content: Content,
    known: dict[str, KnownTask],
    again: dict[str, dict[int, list[Record]]],
    seeds: int,
    generator: np.random.Generator,
) -> bool:
    """Say whether `seeds` seeds of each task, drawn at random, show a fault."""
    submission = Submission(content)
    for task, runs in again.items():
        drawn = generator.choice(sorted(runs), seeds, replace=False)
        chosen = {int(seed): runs[int(seed)] for seed in drawn}
        if beyond_noise(submission, known[task], chosen, ERROR_RATE / len(again))[1]:
            return True
    return False


def row(
    method: str,
    claims: Callable[[str], Content],
    reruns: Runs,
    twins: Runs,
    seeds: int,
    rounds: int,
) -> list[float]:
    """Return the share of refused submissions of each kind."""
    generator = np.random.default_rng(0)
    content = claims(method)
    content["tasks"] = {t: v for t, v in content["tasks"].items() if (t, method) in reruns}
    known = {task: find_known(task) for task in content["tasks"]}
    tasks = {task: found for task, found in known.items() if isinstance(found, KnownTask)}
    again = {
        task: {s: [run, twins[task, method][s]] for s, run in reruns[task, method].items()}
        for task in tasks
    }
    shares = []
    for forge in FORGERIES.values():
        hits = 0
        for _ in range(rounds):
            forged = copy.deepcopy(content)
            for task, table in forged["tasks"].items():
                forge(table, metric_key(tasks[task].task.family), generator)
            hits += refused(forged, tasks, again, seeds, generator)
        shares.append(hits / rounds)
    return shares


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--suite", default="suite-core-v1")
    parser.add_argument("--out", type=Path, default=Path("runs/verification"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each task to draw")
    parser.add_argument("--rounds", type=int, default=200, help="submissions of each kind")
    parser.add_argument("--submissions", type=Path, help="claims to take instead, METHOD.json")
    parser.add_argument("--table", action="store_true", help="train nothing")
    given = parser.parse_args()
    folder: Path | None = given.submissions

    def claims(method: str) -> Content:
        if folder is not None:
            return dict(json.loads((folder / f"{method}.json").read_text(encoding="utf-8")))
        about = About(method, ("A. Author",), "")
        return make_submission(given.out / "claims", Choice(method), about)

    if not given.table:
        train(given.suite, given.out, given.jobs)
    reruns, twins = read(given.out / "reruns"), read(given.out / "twins")
    print(f"Share of refused submissions, {given.rounds} of each kind, {given.seeds} seeds a task")
    print(f"{'':20}", *(f"{name:>13}" for name in FORGERIES))
    methods = sorted({method for _, method in reruns})
    table = []
    for method in methods:
        table.append(row(method, claims, reruns, twins, given.seeds, given.rounds))
        print(f"{method:20}", *(f"{share:13.3f}" for share in table[-1]), flush=True)
    print(f"{'mean':20}", *(f"{share:13.3f}" for share in np.mean(table, axis=0)))


if __name__ == "__main__":
    main()
