"""A task: one TOML file, parsed, validated, frozen and hashed. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ht_bench import networks
from ht_bench.errors import UsageError, shown
from ht_bench.streams import reinforcement
from ht_bench.streams.families import FAMILIES, get_family
from ht_bench.streams.outside import with_absolute_paths
from ht_bench.streams.spec import Precision, Spec, check_finite, read_spec
from ht_bench.streams.tables import check_kind, read_toml


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
    """Batch size, width of the stack of seeds, evaluation points in each phase, and precision.

    precision: of the task's published figures: "fp32", "tf32" (a CPU, which has none, takes fp32
    for it) or "bf16". A run may be asked for another one; its record says which it had.
    """

    batch: int = 64
    stack: int = 1
    points: int = 10
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Phase:
    """One stretch of a stream in which the data stay the same.

    new: newly arriving share of the training set. classes: newly arriving classes instead.
    keep: share of the examples seen before that stay. wrong: share of the phase's examples
    whose label is replaced by a wrong one. inputs, labels: permuted (or drawn at random) anew in
    the phase. change: share of the pixels, or classes, that change places when they are permuted;
    the others stay as in the phase before: 1 is an abrupt shift, less a gradual one. Exactly one
    of epochs and updates is its budget.
    """

    new: float = 0.0
    classes: int | None = None
    keep: float = 1.0
    wrong: float = 0.0
    inputs: Literal["true", "permuted"] = "true"
    labels: Literal["true", "permuted", "random"] = "true"
    change: float = 1.0
    augment: bool = False
    epochs: int | None = None
    updates: int | None = None


@dataclass(frozen=True, kw_only=True)
class Task(Spec):
    """A stream of data with its network, optimizer and budget: everything that fixes a number.

    Read one with `load_task`. `sha256` identifies it: two results compare only on equal hashes.
    """

    data: DataSpec
    net: Mapping[str, Any]
    optimizer: OptimizerSpec
    phases: tuple[Phase, ...]
    training: TrainingSpec = field(default_factory=TrainingSpec)

    @property
    def stack(self) -> int:
        """Seeds that train as one module."""
        return self.training.stack

    @property
    def precision(self) -> Precision:
        """The precision of its published figures."""
        return self.training.precision

    @property
    def learner(self) -> str:
        """The network, in a word."""
        return str(self.net["name"])

    @property
    def retains(self) -> bool:
        """Whether a run tells what its final network keeps of each phase."""
        return super().retains or "permuted" in (self.phases[0].inputs, self.phases[0].labels)


LARGEST = {
    "training.batch": 10**7,
    "training.stack": 1_000,
    "training.points": 10_000,
    "optimizer.lr": 10**6,
    "optimizer.clip": 10**12,
}
"""What a task may ask for at most: more is a slip, and would fill memory or single precision."""
MOST_POINTS = 10**6
"""Points of one curve."""
LONGEST_PHASE = 10**9
"""Epochs, or updates, of one phase."""
AnyTask = Task | reinforcement.ReinforcementTask


def load_task(path: Path) -> AnyTask:
    """Read and validate one task file; raises UsageError naming the file and the key.

    Python files that it names are taken from beside it.
    """
    table = read_toml(path)
    check_kind(table, "task", str(path))
    return parse_task(with_absolute_paths(table, path), str(path))


def parse_task(table: Mapping[str, Any], where: str, *, kept: bool = False) -> AnyTask:
    """Build a task from a parsed TOML table; `where` names its file in error sentences.

    The family decides whether it is a task of data or of environments. kept: a spec that was
    written beside runs: what it names from outside need not be at hand to read them.
    """
    names = list(FAMILIES)
    family = table.get("family", names[0])
    if family not in names:
        raise UsageError(
            f"{where}: 'family' is {shown(family)}; it must be one of "
            f"{', '.join(map(repr, names))}."
        )
    if get_family(family).is_control:
        return reinforcement.parse_reinforcement(table, where)
    task = read_spec(Task, table, where)
    _validate(task, where)
    if not kept:
        _validate_network(task, where)
    check_finite(task, where)
    return task


def _validate(task: Task, where: str) -> None:
    for index, phase in enumerate(task.phases):
        _validate_phase(phase, index, task.family, f"{where} [[phases]] (phase {index})")
    total = math.fsum(phase.new for phase in task.phases)
    if total > 1 + 1e-9:
        raise UsageError(
            f"{where}: the 'new' fractions of [[phases]] add up to {total:g}; "
            "together they may not exceed 1."
        )
    _validate_numbers(task, where)


def _validate_network(task: Task, where: str) -> None:
    try:
        networks.check(task.net)
    except UsageError as error:
        sentence = str(error)
        place = where if sentence.startswith("[net]") else f"{where} [net]:"
        raise UsageError(f"{place} {sentence}") from error
    if task.training.stack > 1 and not networks.stacks(task.net["name"]):
        raise UsageError(
            f"{where} [training]: the network '{task.net['name']}' does not stack seeds; "
            "set stack = 1."
        )


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
    for key, most in LARGEST.items():
        if positive[key] > most:
            raise UsageError(f"{where}: '{key}' is {positive[key]:g}; at most {most:,} is read.")
    if task.training.points * len(task.phases) > MOST_POINTS:
        raise UsageError(
            f"{where}: {task.training.points} points in each of {len(task.phases)} phases are "
            f"more than {MOST_POINTS:,}; lower 'training.points'."
        )
    for key, value in {
        "optimizer.weight_decay": optimizer.weight_decay,
        "tolerance": task.tolerance,
    }.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"{where}: '{key}' is {value}; it must be finite and not negative.")
    if optimizer.weight_decay > LARGEST["optimizer.lr"]:
        raise UsageError(
            f"{where}: 'optimizer.weight_decay' is {optimizer.weight_decay:g}; at most "
            f"{LARGEST['optimizer.lr']:,} is read."
        )
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
    if (phase.epochs or phase.updates or 0) > LONGEST_PHASE:
        raise UsageError(f"{where}: the budget may be {LONGEST_PHASE:,} at most.")
    if (phase.classes is not None) != get_family(family).by_class:
        owners = " or ".join(f"'{each.name}'" for each in FAMILIES.values() if each.by_class)
        raise UsageError(f"{where}: 'classes' belongs to the family {owners}, and only there.")
    if phase.classes is not None and (phase.classes < 1 or phase.new > 0):
        raise UsageError(f"{where}: 'classes' must be 1 or more, and 'new' is not for this family.")
    if not 0 < phase.change <= 1:
        raise UsageError(f"{where}: 'change' is {phase.change:g}; it lies above 0, 1 at most.")
    if phase.change < 1 and "permuted" not in (phase.inputs, phase.labels):
        raise UsageError(
            f"{where}: 'change' says how much a permutation changes, and nothing is permuted; "
            "leave it out."
        )
    if phase.labels == "random" and phase.wrong > 0:
        raise UsageError(f"{where}: 'wrong' means nothing among random labels; leave it out.")
    if index == 0 and phase.classes is None and phase.new <= 0:
        raise UsageError(
            f"{where}: 'new' must be above 0 in the first phase, or nothing is learned."
        )
