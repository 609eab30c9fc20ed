"""Suites: tasks scored together, with their anchors frozen per seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.files import folder
from ht_bench.loading import absolute, is_reference
from ht_bench.streams.catalog import adopt_task
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.tables import check_kind, read_table, read_toml
from ht_bench.version import EPOCH


@dataclass(frozen=True)
class Anchors:
    """One task's anchors: the final metric of `none` and `full-reset`, per evaluation seed.

    precision, device: what they were computed in.
    """

    task_sha256: str
    data_sha256: str
    seeds: str
    none: tuple[float, ...]
    full_reset: tuple[float, ...]
    software: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    device: str = "cpu"

    @property
    def setting(self) -> str:
        """Precision and device, in words."""
        return f"{self.precision} on {self.device}"

    def by_seed(self) -> dict[str, dict[int, float]]:
        """Return method → seed → final metric."""
        seeds = parse_seeds(self.seeds, "anchors")
        return {
            "none": dict(zip(seeds, self.none, strict=True)),
            "full-reset": dict(zip(seeds, self.full_reset, strict=True)),
        }


@dataclass(frozen=True)
class Suite:
    """A named list of tasks; a released suite never changes, more tasks make a new one."""

    name: str
    title: str
    tasks: tuple[str, ...]
    benchmark: str = EPOCH
    description: str = ""
    anchors: Mapping[str, Anchors] = field(default_factory=dict)


def suite_files() -> dict[str, Path]:
    """Return the shipped suite files by name."""
    return {path.stem: path for path in sorted(folder("tasks").glob("suite-*.toml"))}


registry.suites.provide(suite_files)


def suite_names() -> list[str]:
    """Return all suites by name: shipped, then registered or found by entry point."""
    return registry.suites.names()


def get_suite(name: str | Path | Suite) -> Suite:
    """Return a suite by its name, its file's path, "file.py:function", or itself.

    Tasks that a suite's file names by a path are taken from beside it, and known by their names
    from then on. Raises UsageError for an unknown or malformed one.
    """
    if isinstance(name, Suite):
        return name
    if isinstance(name, Path):
        table = read_toml(name)
        check_kind(table, "suite", str(name))
        suite = read_table(Suite, table, str(name))
        _check_anchors(suite, str(name))
        return replace(suite, tasks=tuple(_name(task, name) for task in suite.tasks))
    if not isinstance(name, str):
        raise UsageError(f"{name!r} is no suite; give a name, the path of a TOML file or a Suite.")
    return get_suite(registry.made(registry.suites, name))


def _check_anchors(suite: Suite, where: str) -> None:
    for task, anchors in suite.anchors.items():
        place = f"{where} [anchors.{task}]"
        seeds = len(parse_seeds(anchors.seeds, place))
        for key, values in (("none", anchors.none), ("full_reset", anchors.full_reset)):
            if len(values) != seeds or not all(map(math.isfinite, values)):
                raise UsageError(
                    f"{place}: '{key}' has {len(values)} values for {seeds} seeds; give each seed "
                    "one finite number."
                )


def known_suites() -> dict[str, Suite]:
    """Return all suites by name, but those from outside that cannot be loaded.

    `ht-bench list suites` says why.
    """
    suites = {}
    for name in suite_names():
        try:
            suites[name] = get_suite(name)
        except UsageError:
            if not registry.suites.is_from_outside(name):
                raise
    return suites


def _name(task: str, suite: Path) -> str:
    if task.endswith(".toml") or is_reference(task):
        return adopt_task(absolute(task, suite)).name
    return task
