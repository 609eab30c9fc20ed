"""One machine by three pools: this package's, a Ray instance's, joblib's. Needs the extra ray.

What the first of 2 tiny stacks costs, what each of 400 more does, how long a stop takes, how many
processes and how much memory there are, and what is left of 6 stacks when a worker is killed.
`--turns N` alternates them N times; `--tiny` shows that it runs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import psutil

from benchmarks.common import Options, in_turns, read_options
from ht_bench.running.executor import ExecutorRequest, Outcome, make_executor, train
from ht_bench.running.plan import Request, make_plan
from ht_bench.running.time_limit import NO_LIMIT
from ht_bench.streams.task import parse_task
from ht_bench.training.history import Observer

WORKERS = 2
MORE = 400
"""Stacks, of some 20 ms, that take longer than two starts differ."""
KILLED = """\
import os, pathlib, signal
import ht_bench

class Killed(ht_bench.Method):
    def after_step(self):
        mark = pathlib.Path(__file__).with_name("killed")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
Pool = Callable[[str, int, Callable[[], bool]], Outcome]
"""Trains so many stacks of a method, until it is told to stop."""


def plan_of(method: str, stacks: int, updates: int = 4) -> list:
    """Return tiny stacks: one seed, a few steps."""
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [4]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 16, "points": 2, "stack": 1},
        "phases": [{"new": 1.0, "updates": updates}],
    }
    task = parse_task(table, "tiny.toml")
    return list(make_plan(Request((task,), (method,), tuple(range(stacks)))).jobs)


def by_executor(name: str) -> Pool:
    """Return one of this package's executors."""

    def run(method: str, stacks: int, stop: Callable[[], bool], updates: int = 4) -> Outcome:
        request = ExecutorRequest(name, workers=WORKERS)  # type: ignore[arg-type]
        executor = make_executor(request)
        return executor.execute(plan_of(method, stacks, updates), _nothing, NO_LIMIT, stop)

    return run


def by_joblib(method: str, stacks: int, stop: Callable[[], bool], updates: int = 4) -> Outcome:
    """Train in joblib's worker processes (loky); they cannot be asked to stop."""
    outcome = Outcome()
    work = (joblib.delayed(train)(job, Observer()) for job in plan_of(method, stacks, updates))
    try:
        with joblib.parallel_config("loky", n_jobs=WORKERS):
            for ended in joblib.Parallel(return_as="generator_unordered")(work):
                outcome.add(ended)
    except Exception as error:  # loky ends the whole pool when a worker dies
        print(f"joblib: {type(error).__name__}")
    finally:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)
    return outcome


POOLS: dict[str, Pool] = {
    "local": by_executor("local"),
    "ray": by_executor("ray"),
    "joblib": by_joblib,
}


def _nothing(steps: int) -> None:
    pass


def never() -> bool:
    """Do not stop."""
    return False


def seconds_of(pool: Pool, stacks: int) -> Callable[[], float]:
    """Return a stretch: so many stacks, all of which must be finished."""

    def stretch() -> float:
        began = time.perf_counter()
        done = len(pool("none", stacks, never).records)
        if done != stacks:
            raise SystemExit(f"{done} of {stacks} stacks were trained.")
        return time.perf_counter() - began

    return stretch


def seconds_to_stop(name: str) -> float:
    """Return the seconds from the wish to stop, amid long stacks, to the end of the executor."""
    wished: list[float] = []
    began = time.perf_counter()

    def stop() -> bool:
        long_enough = time.perf_counter() - began > 60
        if not wished and long_enough:
            wished.append(time.perf_counter())
        return bool(wished)

    by_executor(name)("none", 4, stop, 10**8)  # type: ignore[call-arg]
    return time.perf_counter() - wished[0]


def load_of(pool: Pool) -> tuple[int, float]:
    """Return the most processes beneath this one, and their memory (USS) in GiB."""
    own, counts, ended = psutil.Process(), [(0, 0.0)], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            sizes = []
            for child in own.children(recursive=True):
                try:
                    sizes.append(child.memory_full_info().uss)
                except psutil.Error:
                    continue
            counts.append((len(sizes), sum(sizes) / 2**30))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        pool("none", 6, never)
    finally:
        ended.set()
        watcher.join()
    return max(count for count, _ in counts), max(size for _, size in counts)


def left_after_a_kill(pool: Pool) -> int:
    """Return how many of 6 stacks are trained although one's worker is killed."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "killed.py"
        file.write_text(KILLED, encoding="utf-8")
        return len(pool(f"{file}:Killed", 6, never).records)


def measure(options: Options) -> dict[str, dict[str, float]]:
    """Return the numbers of each pool."""
    more = 4 if options.tiny else MORE
    # Few and many follow one another: a start takes seconds, and a busy machine changes them.
    both = [seconds_of(pool, stacks) for pool in POOLS.values() for stacks in (2, 2 + more)]
    seconds = in_turns(both, options.turns).reshape(options.turns, len(POOLS), 2)
    few, many = seconds[..., 0], seconds[..., 1]
    table = {}
    for index, (name, pool) in enumerate(POOLS.items()):
        processes, memory = load_of(pool)
        table[name] = {
            "two stacks, seconds": float(np.median(few[:, index])),
            "each further stack, seconds": float(np.median((many - few)[:, index])) / more,
            "processes": processes,
            "their memory, GiB": memory,
            "stacks of 6 after a kill": left_after_a_kill(pool),
        }
        print(name, json.dumps(table[name]), flush=True)
        if name != "joblib" and not options.tiny:
            table[name]["stop, seconds"] = seconds_to_stop(name)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one JSON object by pool."""
    options = replace(read_options(__doc__, arguments), out=None)
    print(json.dumps(measure(options), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
