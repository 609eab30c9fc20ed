"""The runner on thousands of short runs: `python -m benchmarks.growth --runs 5000`.

One seed of a task of two updates is a run and a stack of its own. The command that a user types
trains them, once in its own process and once with `--jobs 2`; meanwhile memory and open files of
the process, and of its workers, are looked at. What a run costs beside its training is told too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Row, add_options, finish, options_of

TASK = """\
name = "two-updates-v1"
family = "warm-start"
seeds = "0"
data = { name = "digits", train = 60 }
net = { name = "mlp", hidden = [4] }
optimizer = { lr = 1e-2 }
training = { batch = 16, points = 1 }

[[phases]]
new = 1.0
updates = 2
"""
BEGUN = 0.2
"""Share of the runs after which libraries are loaded and caches are full."""
LOOKS = 1_000
"""About how many looks are taken at a second or more from one to the next."""


@dataclass(frozen=True)
class Sample:
    """One look: runs finished, MiB and open files of the runner, and of all its workers.

    processor: seconds that runner and workers have used.
    """

    runs: int
    memory: float
    files: int
    workers_memory: float
    workers_files: int
    processor: float


@dataclass(frozen=True)
class Soak:
    """What was seen of one command. seconds: of the clock; trained: of training and evaluation."""

    jobs: int
    runs: int
    seconds: float
    trained: float
    samples: tuple[Sample, ...]

    @property
    def steady(self) -> list[Sample]:
        """The looks at it after it had begun and before it ended."""
        least = BEGUN * self.runs
        return [each for each in self.samples if least <= each.runs < self.runs] or [
            *self.samples[-1:]
        ]

    @property
    def processor_per_run(self) -> float:
        """Seconds of the processor for one run more, training and all."""
        runs, used = np.array([(each.runs, each.processor) for each in self.steady]).T
        return float(np.polyfit(runs, used, 1)[0]) if np.ptp(runs) else math.nan

    @property
    def overhead(self) -> float:
        """Seconds of a process's time for a run beside its training, of an idle machine only."""
        return (self.jobs * self.seconds - self.trained) / self.runs

    def growth(self, what: str) -> float:
        """Return the rise of a Sample's field from the first to the last quarter of steady ones."""
        values = [getattr(each, what) for each in self.steady]
        quarter = max(1, len(values) // 4)
        return float(np.median(values[-quarter:]) - np.median(values[:quarter]))


def memory_mib(process: int) -> float:
    """Return the resident memory of a process in MiB; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files(process: int) -> int:
    """Return how many files a process holds open; 0 where it has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return 0


def processor_seconds(process: int) -> float:
    """Return the seconds of the processor that a process has used; 0 where it has ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text(encoding="ascii").split()]
        except OSError:
            continue
    return found


def look(process: int, group: Path) -> Sample:
    """Take one sample. group: the folder that holds a folder per seed."""
    workers = children(process)
    return Sample(
        sum(1 for _ in group.glob("seed*/result.json")),
        memory_mib(process),
        open_files(process),
        sum(map(memory_mib, workers)),
        sum(map(open_files, workers)),
        sum(map(processor_seconds, (process, *workers))),
    )


def soak(runs: int, jobs: int, folder: Path) -> Soak:
    """Train so many runs by the command line and watch; raises CalledProcessError if it fails."""
    task, out = folder / "two-updates.toml", folder / "runs"
    task.write_text(TASK, encoding="utf-8")
    what = ["--task", str(task), "--method", "none", "--seeds", f"0-{runs - 1}"]
    command = [sys.executable, "-m", "ht_bench", "run", *what, "--jobs", str(jobs)]
    begun = time.perf_counter()
    with subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as runner:
        every = max(1.0, runs / LOOKS)
        samples = tuple(_watched(runner, out / "two-updates-v1", every))
        _, said = runner.communicate()
    seconds = time.perf_counter() - begun
    if runner.returncode:
        raise subprocess.CalledProcessError(runner.returncode, command, stderr=said)
    return Soak(jobs, runs, seconds, _trained(out), samples)


def _watched(runner: subprocess.Popen[str], task: Path, every: float) -> Iterator[Sample]:
    while True:
        try:
            runner.wait(every)
        except subprocess.TimeoutExpired:
            for group in task.glob("none-*"):
                yield look(runner.pid, group)
        else:
            return


def _trained(out: Path) -> float:
    """Return the seconds of training and evaluation of all runs."""
    costs = [json.loads(file.read_text())["cost"] for file in out.rglob("result.json")]
    return float(sum(cost["seconds"] + cost["evaluation_seconds"] for cost in costs))


def rows_of(soaks: Sequence[Soak]) -> Iterator[Row]:
    """Yield overhead, and growth of memory and open files, for every number of jobs."""
    for each in soaks:
        jobs, last = each.jobs, each.steady[-1]
        beside = f"{1e3 * each.overhead:.0f} ms of the clock beside training"
        words = f"{each.runs:,} runs in {each.seconds:.0f} s; {beside}"
        yield Row(f"run-processor-{jobs}", 1e3 * each.processor_per_run, "ms", note=words)
        end = f"{last.memory:.0f} MiB, {last.files} files at {last.runs:,} runs"
        yield Row(f"runner-memory-{jobs}", each.growth("memory"), "MiB", note=end)
        yield Row(f"runner-files-{jobs}", each.growth("files"), "files")
        if jobs > 1:
            end = f"{last.workers_memory:.0f} MiB, {last.workers_files} files at {last.runs:,} runs"
            yield Row(f"workers-memory-{jobs}", each.growth("workers_memory"), "MiB", note=end)
            yield Row(f"workers-files-{jobs}", each.growth("workers_files"), "files")


def described(each: Soak) -> dict[str, Any]:
    """Return a soak as JSON types, every tenth of its samples."""
    kept = each.samples[:: max(1, len(each.samples) // 10)]
    return {**vars(each), "samples": [vars(sample) for sample in kept]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_options(parser)
    parser.add_argument("--runs", type=int, default=5_000, help="how many (default 5,000)")
    parser.add_argument("--jobs", default="1,2", help="numbers of processes (default 1,2)")
    given = parser.parse_args(arguments)
    options = options_of(given)
    soaks = []
    for jobs in map(int, given.jobs.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            soaks.append(
                soak(min(given.runs, 20) if options.tiny else given.runs, jobs, Path(folder))
            )
    finish("growth_runs", options, rows_of(soaks), soaks=[described(each) for each in soaks])
    return 0


if __name__ == "__main__":
    sys.exit(main())
