"""What is trained in a round: short streams of data and of environments, several methods."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ht_bench.records.record import read_record, without_cost
from tests.faults.processes import Driver

PATIENCE = 600.0
"""Seconds after which a process that has not ended hangs."""
TASKS = {
    "data": """
name = "faults-data"
family = "warm-start"
[data]
name = "digits"
train = 60
[net]
name = "mlp"
hidden = [16, 12]
[optimizer]
lr = 1e-3
[training]
batch = 16
stack = 2
points = 5
[[phases]]
new = 0.5
wrong = 0.5
updates = 80
[[phases]]
new = 0.5
updates = 80
""",
    "agent": """
name = "faults-agent"
family = "swap"
seeds = "100-101"
[environment]
id = "CartPole-v1"
[agent]
algorithm = "dqn"
[agent.settings]
learning_starts = 20
buffer_size = 500
batch_size = 16
learning_rate = 0.02
[agent.network]
net_arch = [16]
[evaluation]
episodes = 2
points = 2
[reference]
random = 22.0
[[phases]]
repeat = 2
steps = 160
actions = "permuted"
""",
}


@dataclass(frozen=True)
class Workload:
    """A command's tasks, methods and seeds."""

    tasks: tuple[str, ...]
    methods: str
    seeds: str

    def words(self, files: Path, out: Path, jobs: int) -> list[str]:
        """Return the command line; `files` holds the tasks."""
        tasks = ",".join(str(files / f"{name}.toml") for name in self.tasks)
        words = ["run", "--task", tasks, "--method", self.methods, "--seeds", self.seeds]
        words += ["--out", str(out), "--jobs", str(jobs), "--device", "cpu"]
        return [*words, "--checkpoint-seconds", "0.05"]


WORKLOADS = {
    "data": Workload(("data",), "none,hare-tortoise,shrink-perturb,interval-dropout", "100-102"),
    "agents": Workload(("data", "agent"), "none,hare-tortoise", "100-101"),
}
Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its results without their cost, and seconds of training by jobs."""

    results: Results
    seconds: dict[int, float]


def write_tasks(files: Path) -> None:
    """Write the task files."""
    files.mkdir(parents=True, exist_ok=True)
    for name, text in TASKS.items():
        (files / f"{name}.toml").write_text(text, encoding="utf-8")


def make_reference(
    workload: Workload, folder: Path, files: Path, every: tuple[int, ...] = (1, 2)
) -> Reference:
    """Train undisturbed, with one process and with two, which must agree."""
    found: dict[int, Results] = {}
    seconds = {}
    for jobs in every:
        out = folder / str(jobs)
        driver = Driver(workload.words(files, out, jobs), {})
        while not begun(out) and driver.exit_code is None:
            time.sleep(0.002)
        began = time.monotonic()
        driver.process.join(PATIENCE)
        seconds[jobs] = time.monotonic() - began
        driver.close(PATIENCE)
        if driver.exit_code != 0:
            raise RuntimeError(f"the undisturbed run ended with {driver.exit_code}: {driver.said}")
        found[jobs] = results(out)
    if any(each != found[every[0]] for each in found.values()):
        raise RuntimeError("one process and two give different results, undisturbed")
    return Reference(found[every[0]], seconds)


def begun(out: Path) -> bool:
    """Whether training has begun: a seed's folder is there."""
    return any(out.glob("*/*/seed*"))


def results(out: Path) -> Results:
    """Return every result below `out` without its cost, by path; raises UsageError if damaged."""
    files = sorted(out.glob("*/*/seed*/result.json"))
    return {str(file.relative_to(out)): without_cost(read_record(file)) for file in files}
