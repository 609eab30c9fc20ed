"""What every task is, whatever it streams: a name, a family, seeds, and a hash of its content."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ht_bench.errors import UsageError, shown
from ht_bench.streams.families import get_family
from ht_bench.streams.outside import identified
from ht_bench.streams.seeds import format_seeds, parse_seeds
from ht_bench.streams.tables import check_values, read_table

Precision = Literal["fp32", "tf32", "bf16"]
NOT_HASHED = (
    *("title", "description", "source", "status", "superseded_by", "minutes_per_stack"),
    "tuned_as",
)
"""Fields that describe a task without changing a number; they stay out of its hash."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The fields that tasks of data and tasks of environments share.

    tuned_as: the task whose searches its methods' hyperparameters come from, where a recipe has
    none of its own for it.
    """

    name: str
    family: str
    seeds: tuple[int, ...] = tuple(range(100, 120))
    tolerance: float = 0.02
    title: str = ""
    description: str = ""
    source: str = ""
    status: str = "released"
    superseded_by: str = ""
    minutes_per_stack: float | None = None
    tuned_as: str = ""

    @property
    def stack(self) -> int:
        """Seeds that train as one module."""
        return 1

    @property
    def precision(self) -> Precision:
        """The precision of its published figures."""
        return "fp32"

    def precision_on(self, device: str) -> Precision:
        """Return the precision a run on "cpu" or "cuda" has unless another is asked for.

        A CPU has no TF32: there it is fp32.
        """
        return "fp32" if device == "cpu" and self.precision == "tf32" else self.precision

    @property
    def retains(self) -> bool:
        """Whether a run tells what its final network keeps of each phase."""
        return get_family(self.family).retains

    def canonical(self) -> dict[str, Any]:
        """Return the spec as JSON types, without descriptions and without keys at defaults.

        What it names from outside is named by its code (`streams.outside`).
        """
        spec = identified(without_defaults(self))
        spec["seeds"] = format_seeds(self.seeds)
        return {key: value for key, value in spec.items() if key not in NOT_HASHED}

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of `canonical()` as sorted JSON, in hexadecimal."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


S = TypeVar("S", bound=Spec)


def without_defaults(value: Any) -> Any:
    """Return a dataclass as nested dicts and lists that hold only what differs from a default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {}
        for entry in dataclasses.fields(value):
            item = getattr(value, entry.name)
            default = entry.default
            if entry.default_factory is not dataclasses.MISSING:
                default = entry.default_factory()
            if item != default:
                changed[entry.name] = without_defaults(item)
        return changed
    if isinstance(value, Mapping):
        return {key: without_defaults(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_defaults(item) for item in value]
    return value


def read_spec(cls: type[S], table: Mapping[str, Any], where: str) -> S:
    """Build a task of class `cls` from a parsed TOML table; raises UsageError as `read_table`."""
    check_values(table, where)
    values = dict(table)
    if values.get("phases", []) == []:
        raise UsageError(f"{where}: a task needs at least one [[phases]] table.")
    if "seeds" in values:
        values["seeds"] = parse_seeds(values["seeds"], where)
    task = read_table(cls, values, where)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", task.name):  # it names a folder
        raise UsageError(
            f"{where}: the name {shown(task.name)} must be of letters, digits, '.', '_' and '-', "
            "at most 100, and begin with a letter or digit."
        )
    if task.minutes_per_stack is not None and task.minutes_per_stack < 0:
        raise UsageError(
            f"{where}: 'minutes_per_stack' is {task.minutes_per_stack}; it may not be negative."
        )
    return task


def check_finite(task: Spec, where: str) -> None:
    """Raise UsageError for a value of a free table that JSON cannot hold: nan and inf among them.

    Any number that decides a result goes into the task's hash by way of JSON.
    """
    for field in dataclasses.fields(task):
        _check_finite(without_defaults(getattr(task, field.name)), field.name, where)


def _check_finite(value: Any, name: str, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, f"{name}.{key}", where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, f"{name}[{index}]", where)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{where}: '{name}' is {shown(value)}; only JSON values can be kept, and finite "
            "numbers."
        ) from error
