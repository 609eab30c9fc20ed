"""A task: one TOML file, parsed, validated, frozen and hashed. No torch here."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.streams.seeds import format_seeds, parse_seeds
from ht_bench.streams.tables import check_keys, read_table

Family = Literal[
    "warm-start", "warm-start-clean", "continual", "class-incremental", "permuted", "shuffled"
]
NOT_HASHED = ("title", "description", "source", "status", "superseded_by", "minutes_per_stack")
"""Fields that describe a task without changing a number; they stay out of its hash."""


@dataclass(frozen=True)
class DataSpec:
    """The dataset, and how many of its training examples each seed draws (None: all)."""

    name: str
    train: int | None = None


@dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer every method trains with.

    `clip` bounds each seed's gradient norm (None: off). `warmup` is the share of each phase's
    steps over which the learning rate rises linearly, constant afterwards.
    """

    lr: float
    name: Literal["adamw", "adam", "sgd"] = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None
    warmup: float = 0.1


@dataclass(frozen=True)
class TrainingSpec:
    """Batch size, width of the stack of seeds, and evaluation points in each phase."""

    batch: int = 64
    stack: int = 1
    points: int = 10


@dataclass(frozen=True)
class Phase:
    """One stretch of a stream in which the data stay the same.

    new: newly arriving share of the training set. classes: newly arriving classes instead.
    keep: share of the examples seen before that stay. wrong: share of the phase's examples
    whose label is replaced by a wrong one. inputs, labels: permuted (or drawn at random) anew in
    the phase. Exactly one of epochs and updates is its budget.
    """

    new: float = 0.0
    classes: int | None = None
    keep: float = 1.0
    wrong: float = 0.0
    inputs: Literal["true", "permuted"] = "true"
    labels: Literal["true", "permuted", "random"] = "true"
    augment: bool = False
    epochs: int | None = None
    updates: int | None = None


@dataclass(frozen=True)
class Task:
    """A stream with its network, optimizer and budget: everything that fixes a number.

    Read one with `load_task`. `sha256` identifies it: two results compare only on equal hashes.
    """

    name: str
    family: Family
    data: DataSpec
    net: Mapping[str, Any]
    optimizer: OptimizerSpec
    phases: tuple[Phase, ...]
    training: TrainingSpec = field(default_factory=TrainingSpec)
    seeds: tuple[int, ...] = tuple(range(100, 120))
    tolerance: float = 0.02
    title: str = ""
    description: str = ""
    source: str = ""
    status: str = "released"
    superseded_by: str = ""
    minutes_per_stack: float | None = None

    def canonical(self) -> dict[str, Any]:
        """Return the spec as JSON types, without descriptions and without keys at defaults."""
        spec = _without_defaults(self)
        spec["seeds"] = format_seeds(self.seeds)
        return {key: value for key, value in spec.items() if key not in NOT_HASHED}

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of `canonical()` as sorted JSON, in hexadecimal."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def load_task(path: Path) -> Task:
    """Read and validate one task file; raises UsageError naming the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"Could not read the task file {path}: {error.strerror or error}."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}; mend that line.") from error
    return parse_task(table, str(path))


def parse_task(table: Mapping[str, Any], where: str) -> Task:
    """Build a Task from a parsed TOML table; `where` names its file in error sentences."""
    values = dict(table)
    known = [entry.name for entry in dataclasses.fields(Task)]
    check_keys(values, known, where)
    sections = {"data": DataSpec, "optimizer": OptimizerSpec, "training": TrainingSpec}
    for key, cls in sections.items():
        if key in values:
            values[key] = read_table(cls, _table(values[key], where, key), f"{where} [{key}]")
    values["phases"] = _read_phases(values.get("phases", []), where)
    if "seeds" in values:
        values["seeds"] = parse_seeds(values["seeds"], where)
    task = read_table(Task, values, where)
    _validate(task, where)
    return task


def _table(value: Any, where: str, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: '{key}' must be a table; write [{key}] above its keys.")
    return value


def _read_phases(tables: Any, where: str) -> tuple[Phase, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise UsageError(f"{where}: 'phases' must be tables; write [[phases]] above each one.")
    phases: list[Phase] = []
    for index, table in enumerate(tables):
        values = dict(table)
        repeat = values.pop("repeat", 1)
        place = f"{where} [[phases]] {index + 1}"
        if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 1:
            raise UsageError(f"{place}: 'repeat' is {repeat!r}; it must be 1 or more.")
        phases += [read_table(Phase, values, place)] * repeat
    return tuple(phases)


def _without_defaults(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = {}
        for entry in dataclasses.fields(value):
            item = getattr(value, entry.name)
            default = entry.default
            if entry.default_factory is not dataclasses.MISSING:
                default = entry.default_factory()
            if item != default:
                kept[entry.name] = _without_defaults(item)
        return kept
    if isinstance(value, Mapping):
        return {key: _without_defaults(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_defaults(item) for item in value]
    return value


def _validate(task: Task, where: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", task.name):  # it becomes a folder's name
        raise UsageError(
            f"{where}: the name {task.name!r} must be of letters, digits, '.', '_' and '-', and "
            "begin with a letter or digit."
        )
    if not task.phases:
        raise UsageError(f"{where}: a task needs at least one [[phases]] table.")
    for index, phase in enumerate(task.phases):
        _validate_phase(phase, index, task.family, f"{where} [[phases]] (phase {index})")
    total = math.fsum(phase.new for phase in task.phases)
    if total > 1 + 1e-9:
        raise UsageError(
            f"{where}: the 'new' fractions of [[phases]] add up to {total:g}; "
            "together they may not exceed 1."
        )
    try:
        networks.check(task.net)
    except UsageError as error:
        raise UsageError(f"{where} {error}") from error
    if task.training.stack > 1 and task.net["name"] != "mlp":
        raise UsageError(f"{where} [training]: only the 'mlp' network stacks seeds; set stack = 1.")
    _validate_numbers(task, where)


def _validate_numbers(task: Task, where: str) -> None:
    optimizer = task.optimizer
    positive = {
        "training.batch": task.training.batch,
        "training.stack": task.training.stack,
        "training.points": task.training.points,
        "optimizer.lr": optimizer.lr,
        "optimizer.clip": 1 if optimizer.clip is None else optimizer.clip,
        "data.train": 1 if task.data.train is None else task.data.train,
    }
    for key, value in positive.items():
        if not 0 < value < math.inf:
            raise UsageError(f"{where}: '{key}' is {value}; it must be above zero and finite.")
    for key, value in {
        "optimizer.weight_decay": optimizer.weight_decay,
        "tolerance": task.tolerance,
    }.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"{where}: '{key}' is {value}; it must be finite and not negative.")
    if not 0 <= optimizer.warmup <= 1:
        raise UsageError(
            f"{where}: 'optimizer.warmup' is {optimizer.warmup}; it is a share of a phase's steps "
            "and lies between 0 and 1."
        )
    if not all(0 <= beta < 1 for beta in optimizer.betas):
        raise UsageError(
            f"{where}: 'optimizer.betas' is {list(optimizer.betas)}; each must be at least 0 "
            "and below 1."
        )


def _validate_phase(phase: Phase, index: int, family: str, where: str) -> None:
    for key in ("new", "keep", "wrong"):
        value = getattr(phase, key)
        if not 0 <= value <= 1:
            raise UsageError(f"{where}: '{key}' is {value:g}; a fraction lies between 0 and 1.")
    if (phase.epochs is None) == (phase.updates is None):
        raise UsageError(f"{where}: give one budget, either 'epochs' or 'updates'.")
    if (phase.epochs or phase.updates or 0) < 1:
        raise UsageError(f"{where}: the budget must be at least 1.")
    if (phase.classes is not None) != (family == "class-incremental"):
        raise UsageError(
            f"{where}: 'classes' belongs to the family 'class-incremental', and only there."
        )
    if phase.classes is not None and (phase.classes < 1 or phase.new > 0):
        raise UsageError(f"{where}: 'classes' must be 1 or more, and 'new' is not for this family.")
    if phase.labels == "random" and phase.wrong > 0:
        raise UsageError(f"{where}: 'wrong' means nothing among random labels; leave it out.")
    if index == 0 and phase.classes is None and phase.new <= 0:
        raise UsageError(
            f"{where}: 'new' must be above 0 in the first phase, or nothing is learned."
        )
