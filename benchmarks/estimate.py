"""What every task takes with every method: hours, money, disk, each by a rule that it names.

A run of `none`, as measured or estimated, times what a method's step costs relative to `none`.
docs/scaling.py shows it; what no run has measured rests on the speeds in speeds.toml.
"""

from __future__ import annotations

import functools
import json
import math
import re
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ht_bench import networks
from ht_bench.methods.recipe import recipe_names
from ht_bench.records.keys import BASIC
from ht_bench.records.record import write_record
from ht_bench.running.compute import gains_from_gpu
from ht_bench.streams import data as datasets
from ht_bench.streams.bundled import BUNDLED
from ht_bench.streams.catalog import get_task, task_names
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.points import curve_grid
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.stream import Stream, planned_steps
from ht_bench.streams.task import AnyTask, Task
from ht_bench.views.live import SeedWriters

ROOT = Path(__file__).resolve().parent.parent
SPEEDS = tomllib.loads(Path(__file__).with_name("speeds.toml").read_text(encoding="utf-8"))
SEEDS = 20
BLOCK = 4096
"""Bytes of a file system's block: what a small file or a folder takes."""
MEASURED = "m"
RULES = {
    MEASURED: "measured: the mean `seconds` of the runs of `none` in leaderboard/submissions",
    "f": "the task's file, `minutes_per_stack`, rounded by hand from runs on a CPU",
    "r": "steps × the ResNet-18 step below; a test image as a third of a training image",
    "o": "the same, times the network's floating-point operations over ResNet-18's, but no less "
    "than the least step below",
    "c": "steps × the conv net's step below, a stack's share of it by its seeds",
    "a": "environment steps ÷ the agent's rate below, evaluation episodes not counted; agents that "
    "make a gradient step in four environment steps take less",
    "p": "environment steps × drift-pendulum-sac-v1's seconds a step: a smaller agent, so at least",
}
COLUMNS = {
    "vgg16": "ResNet-18",
    "resnet18": "ResNet-18",
    "vit": "ViT-Tiny",
    "cnn": "CNN",
    "mlp": "MLP",
}
AGENTS = {"ppo": "PPO", "a2c": "PPO", "dqn": "DQN", "qrdqn": "QR-DQN", "sac": "SAC"}


@dataclass(frozen=True)
class Run:
    """What a run of `none` takes: hours of a GPU or of a core for one seed, by which rule."""

    task: AnyTask
    device: str
    hours: float
    rule: str
    bytes: int


def tasks() -> list[AnyTask]:
    """Return every task that is not superseded; drafts too, which may still change."""
    return [task for name in task_names() if not (task := get_task(name)).superseded_by]


# ---- a run of `none` ----


@functools.cache
def submissions() -> dict[str, dict[str, Any]]:
    """Return the committed submissions by name, each task of the newest epoch that has it."""
    folder = ROOT / "leaderboard" / "submissions"
    found: dict[str, dict[str, Any]] = {}
    for file in (*sorted(folder.glob("[0-9]*.[0-9]*/*.json")), *sorted(folder.glob("*.json"))):
        content = json.loads(file.read_text(encoding="utf-8"))
        older = found.get(file.stem, {"tasks": {}})["tasks"]
        found[file.stem] = {**content, "tasks": {**older, **content["tasks"]}}
    return found


def seconds_of(method: str, task: str) -> float | None:
    """Return the mean seconds of a submission's runs; None where it has none."""
    table = submissions().get(method, {"tasks": {}})["tasks"].get(task)
    return table and mean(run["seconds"] for run in table["seeds"].values())


def cost_of(task: AnyTask) -> tuple[str, float, str]:
    """Return device, seconds of one seed of `none`, and the rule."""
    name = task.name
    if (measured := seconds_of("none", name)) is not None:
        return "core", measured, MEASURED
    if isinstance(task, ReinforcementTask):
        if gains_from_gpu(task):
            return "GPU", task.steps / SPEEDS["agent"]["pixels"]["rate"], "a"
        if task.minutes_per_stack is None:
            like = get_task("drift-pendulum-sac-v1")
            assert isinstance(like, ReinforcementTask) and like.minutes_per_stack
            return "core", task.steps * 60 * like.minutes_per_stack / like.steps, "p"
        return "core", 60 * task.minutes_per_stack, "f"
    if task.net["name"] == "cnn":
        speed = SPEEDS["step"]["cnn"]
        step = speed["ms"] / 1e3 / speed["seeds"]
        return "GPU", steps_of(task, task.training.batch) * step, "c"
    if task.net["name"] != "mlp" or task.data.name not in BUNDLED:  # as running.compute chooses
        step, rule = step_seconds(task)
        return "GPU", steps_of(task, task.training.batch) * step, rule
    assert task.minutes_per_stack, name
    return "core", 60 * task.minutes_per_stack / task.stack, "f"


def steps_of(task: Task, batch: int) -> float:
    """Return training steps, tests counted as steps of a third of their images."""
    data = stand_in(task.data.name)
    _, steps = curve_grid(task, data)
    tests = len(steps) * len(data.test_labels) / 3 / batch
    return sum(planned_steps(Stream(task, data, task.seeds[0]))) + tests


@functools.cache
def stand_in(name: str) -> Dataset:
    """Return a data set of the right size and labels, its images all of one byte."""
    if name in BUNDLED:
        return datasets.load(name)
    source = datasets._SOURCES[name]
    parts = []
    for count in (source.train, source.tests):
        assert count is not None, name
        images = np.broadcast_to(np.zeros(1, np.uint8), (count, *source.shape))
        parts += [images, np.arange(count) % source.classes]
    middle = (0.5,) * source.shape[0]
    return Dataset(name, *parts, source.classes, middle, middle, 255, "0" * 64)


def step_seconds(task: Task) -> tuple[float, str]:
    """Return the seconds of a training step on the GPU of SPEEDS, and the rule."""
    speeds, name = SPEEDS["step"], task.net["name"]
    own = speeds["resnet18"]["ms"] * task.training.batch / speeds["resnet18"]["batch"]
    if name == "resnet18":
        return own / 1e3, "r"
    share = operations(task) / operations(get_task("warm-start-cifar10-v2"))
    return max(own * share, speeds["least"]["ms"]) / 1e3, "o"


def operations(task: AnyTask) -> float:
    """Return the floating-point operations of one image's way forward."""
    assert isinstance(task, Task)
    source = datasets._SOURCES[task.data.name]
    with torch.device("meta"):
        network = networks.build(task.net, source.shape, source.classes)
        lone = () if task.net["name"] != "mlp" else (1,)  # a perceptron is a stack, of one here
        images = torch.empty(*lone, 2, *source.shape)
    with FlopCounterMode(display=False) as counter:
        network(images)
    return counter.get_total_flops() / 2


# ---- disk ----


def bytes_of(task: AnyTask) -> int:
    """Return what a finished run takes on disk: files that the package's own writers write."""
    data = stand_in(task.data.name) if isinstance(task, Task) else None
    phases, steps = curve_grid(task, data)
    curve = {"phase": phases, "step": steps, **columns(task, len(steps))}
    ends = sorted(set(phases))
    table = {key: [0.123456789012345] * len(ends) for key in BASIC}
    diagnostics = {"phase": ends, "step": ends, **table}
    record = {
        **submissions()["none"]["tasks"]["warm-start-digits-v1"],
        **{"schema": 1, "task": task.name, "method": "none", "seed": 100, "split": "test"},
        **{"curve": curve, "diagnostics": diagnostics, "cost": {"seconds": 1.123456789012345}},
    }
    del record["seeds"], record["grid"]
    if isinstance(task, ReinforcementTask):
        record["reference"] = {"random": 0.5, "human": None}
    with tempfile.TemporaryDirectory() as folder:
        seed = Path(folder) / "seed100"
        writers = SeedWriters([seed])
        for index in range(len(steps)):
            keys = [key for key in curve if key not in ("phase", "step")]
            writers.point({"step": steps[index], **{key: [curve[key][index]] for key in keys}})
        writers.close([record])
        write_record(seed / "result.json", record)
        (seed / ".lock").touch()
        sizes = [file.stat().st_size for file in seed.iterdir()]
    return BLOCK * (1 + sum(math.ceil(size / BLOCK) for size in sizes))


def columns(task: AnyTask, points: int) -> dict[str, list[float]]:
    """Return curves of the keys that such a task has."""
    agents = ("eval/return", "rollout/return")
    data = ("test/accuracy", "test/loss", "train/accuracy", "train/loss")
    keys = agents if isinstance(task, ReinforcementTask) else data
    return {key: [0.123456789012345] * points for key in keys}


# ---- methods ----


def relative_costs() -> dict[str, tuple[float, str]]:
    """Return method → seconds relative to `none`, and whether that was measured."""
    found = {}
    steps = _measured_steps()
    for name in recipe_names():
        ratios = [
            table_seconds / none
            for task in ("warm-start-digits-v1", "permuted-digits-v1", "continual-digits-v1")
            if (table_seconds := seconds_of(name, task)) and (none := seconds_of("none", task))
        ]
        if name == "none":  # against itself it measures the noise alone
            found[name] = 1.0, "step"
        elif name in steps:
            found[name] = steps[name], "step"
        elif ratios:
            found[name] = mean(ratios), "runs"
        else:
            found[name] = 1.0, ""
    return found


def _measured_steps() -> dict[str, float]:
    path = ROOT / "benchmarks" / "results" / "methods-cpu.json"
    if not path.is_file():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {row["claim"]: row["ratio"]["median"] for row in rows}


@functools.cache
def places() -> dict[str, dict[str, bool]]:
    """Return method → place → whether it works there, as docs/methods.md says."""
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head = next(line for line in lines if line[0] == "method")
    rows = [line for line in lines if len(line) == len(head) and line[0].startswith("[`")]
    return {
        re.sub(r"\[`(.*)`\].*", r"\1", row[0]): {
            k: v == "yes" for k, v in zip(head, row, strict=True)
        }
        for row in rows
    }


def suits(method: str, task: AnyTask) -> bool:
    """Whether a task can have a method."""
    agent = isinstance(task, ReinforcementTask)
    place = AGENTS[task.agent.algorithm] if agent else COLUMNS[task.net["name"]]
    return places()[method][place]


# ---- every task × method ----


def runs() -> list[Run]:
    """Return a run of `none` on every task."""
    made = []
    for task in tasks():
        device, seconds, rule = cost_of(task)
        made.append(Run(task, device, seconds / 3600, rule, bytes_of(task)))
    return made


@dataclass(frozen=True)
class Prices:
    """Of an hour of a GPU and of a core."""

    gpu: float
    core: float

    def of(self, run: Run) -> float:
        """Return the price of an hour of what a run takes."""
        return self.gpu if run.device == "GPU" else self.core


def cells(made: Sequence[Run], prices: Prices) -> Iterator[dict[str, Any]]:
    """Yield every task × method: hours, money and bytes of SEEDS seeds."""
    costs = relative_costs()
    for run in made:
        for method, (ratio, basis) in costs.items():
            if suits(method, run.task):
                hours = SEEDS * run.hours * ratio
                yield {
                    "task": run.task.name,
                    "method": method,
                    "device": run.device,
                    "hours": hours,
                    "money": hours * prices.of(run),
                    "bytes": SEEDS * run.bytes,
                    "rule": run.rule,
                    "relative_cost": ratio,
                    "relative_cost_measured": bool(basis),
                }
