"""A runs folder of any size, made of copies of one real record: what `benchmarks.growth` reads.

Every copy is a valid result of its own task, method and seed: hashes, hyperparameters and source
are those that `ht-bench run` would write, so that a run of all of them finds nothing to train.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.methods.recipe import recipe_names
from ht_bench.methods.resolve import resolve
from ht_bench.records.record import Record, group_digest
from ht_bench.records.runs import group_folder, result_file, write_spec
from ht_bench.running.evaluate import evaluate
from ht_bench.running.kinds import check
from ht_bench.streams.catalog import get_task
from ht_bench.streams.task import Task

SEEDS = range(100, 120)
TASK = """\
name = "growth-{index:02d}-v1"
family = "warm-start"
seeds = "100-119"
data = {{ name = "digits", train = 300 }}
net = {{ name = "mlp", hidden = [16] }}
optimizer = {{ lr = 1e-2 }}
training = {{ batch = 32, stack = 10, points = 10 }}

[[phases]]
new = 0.5
wrong = 0.5
updates = 20

[[phases]]
new = 0.5
updates = 10
"""
TEST_EXAMPLES = 500
"""Of digits with 300 for training: accuracies are whole numbers of them."""
MOST_TASKS = 20


@dataclass(frozen=True)
class Shape:
    """How many tasks and methods a folder has; every cell holds SEEDS."""

    tasks: int
    methods: int

    @property
    def runs(self) -> int:
        """The results in all."""
        return self.tasks * self.methods * len(SEEDS)


def shape_of(runs: int) -> Shape:
    """Return the shape of about so many runs: 1 × 5 for 100, 5 × 10 for 1,000, 20 × 25 for 10^4."""
    cells = max(2, runs // len(SEEDS))
    tasks = min(MOST_TASKS, max(1, cells // 10))
    return Shape(tasks, cells // tasks)


def task_files(folder: Path, count: int) -> list[Path]:
    """Write the tasks' files and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"growth-{index:02d}-v1.toml" for index in range(count)]
    for index, file in enumerate(files):
        file.write_text(TASK.format(index=index), encoding="utf-8")
    return files


def methods_for(task: Task, count: int) -> list[str]:
    """Return so many methods that the task can train: the anchors first."""
    names = dict.fromkeys(["none", "full-reset", *recipe_names()])
    suitable = [name for name in names if _is_suitable(task, name)]
    if len(suitable) < count:
        raise UsageError(f"There are {len(suitable)} methods for {count}; ask for fewer runs.")
    return suitable[:count]


def _is_suitable(task: Task, name: str) -> bool:
    try:
        check(task, resolve(name, task.name))
    except UsageError:
        return False
    return True


def fill(out: Path, tasks: list[Path], methods: int) -> list[str]:
    """Write the folder's results; returns the methods.

    A method's curve lies above the one before it by its own amount, full-reset's surely above
    none's, and seeds differ.
    """
    specs = [get_task(file) for file in tasks]
    first = specs[0]
    assert isinstance(first, Task)
    [template] = evaluate("none", first, SEEDS[0], progress=False).records
    names = methods_for(first, methods)
    draw = np.random.default_rng(0)
    for task in specs:
        write_spec(out, task)
        for index, name in enumerate(names):
            own = {
                **template,
                "task": task.name,
                "task_sha256": task.sha256,
                **facts(name, task.name),
            }
            gain = 40 if name == "full-reset" else index
            for record in over_seeds(own, gain, draw):
                _write(out, record)
    return names


def facts(name: str, task: str) -> dict[str, Any]:
    """Return what a record says of its method."""
    spec = resolve(name, task)
    return {
        "method": spec.name,
        "hyperparameters": dict(spec.hyperparameters),
        "source_sha256": spec.source_sha256,
        "traits": spec.traits(),
    }


def over_seeds(record: Record, gain: int, draw: np.random.Generator) -> Iterator[Record]:
    """Yield the record once per seed, its accuracies raised by about so many test examples."""
    for seed in SEEDS:
        own = copy.deepcopy(record)
        own["seed"] = seed
        own["curve"]["test/accuracy"] = raised(own["curve"]["test/accuracy"], gain, draw)
        yield own


def raised(values: list[float], gain: int, draw: np.random.Generator) -> list[float]:
    """Return accuracies after the first point higher by about `gain` test examples."""
    more = draw.integers(gain, gain + 20, len(values) - 1) / TEST_EXAMPLES
    right = np.round(np.minimum(np.asarray(values[1:]) + more, 1.0) * TEST_EXAMPLES)
    return [values[0], *(right / TEST_EXAMPLES).tolist()]


def _write(out: Path, record: Mapping[str, Any]) -> None:
    digest = group_digest(
        record["hyperparameters"], record["split"], record["precision"], record["device"]
    )
    path = result_file(group_folder(out, record["task"], record["method"], digest), record["seed"])
    path.parent.mkdir(parents=True, exist_ok=True)
    # As the package writes it, but without waiting for the disk: there are thousands.
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
