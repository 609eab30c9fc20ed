"""Suites: tasks scored together, with their anchors frozen per seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError, did_you_mean
from ht_bench.files import folder
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.tables import read_table, read_toml


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
    benchmark: str
    description: str = ""
    anchors: Mapping[str, Anchors] = field(default_factory=dict)


def suite_files() -> dict[str, Path]:
    """Return the shipped suite files by name."""
    return {path.stem: path for path in sorted(folder("tasks").glob("suite-*.toml"))}


def get_suite(name: str) -> Suite:
    """Return a suite by name; raises UsageError for an unknown or malformed one."""
    files = suite_files()
    if name not in files:
        raise UsageError(
            f"Unknown suite '{name}'.{did_you_mean(name, files)} `ht-bench list suites` shows them."
        )
    return read_table(Suite, read_toml(files[name]), str(files[name]))
