"""Submission: one entry of the leaderboard, read from its file and turned into records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ht_bench.records.record import Record

SCHEMA = 1
CURVES = ("test/accuracy", "train/accuracy", "eval/return")
"""Curves that a submission may hold."""


@dataclass(frozen=True, eq=False)
class Submission:
    """The content of a submission file that obeys the schema.

    content: the file as parsed. sha256: of the file's bytes ("" before it is written).
    """

    content: Mapping[str, Any]
    sha256: str = ""

    @property
    def name(self) -> str:
        """The entry's name, which is the file's too."""
        return str(self.content["name"])

    @property
    def method(self) -> Mapping[str, Any]:
        """Name, summary, citation, source hash, traits."""
        found: Mapping[str, Any] = self.content["method"]
        return found

    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]:
        """Task name → its hash, hyperparameters, grid, seeds."""
        found: Mapping[str, Mapping[str, Any]] = self.content["tasks"]
        return found

    def seeds(self, task: str) -> tuple[int, ...]:
        """Return the seeds of a task, ascending."""
        return tuple(sorted(map(int, self.tasks[task]["seeds"])))

    def record(self, task: str, seed: int, random: float | None = None) -> Record:
        """Return one seed as a record that the metrics of `results` read.

        random: the return of a uniform policy, for tasks of environments.
        """
        table = self.tasks[task]
        run = table["seeds"][str(seed)]
        record = {
            "task": task,
            "method": self.name,
            "seed": seed,
            "status": run["status"],
            "curve": {**table["grid"], **run["curve"]},
            "retention": run["retention"],
            "steps": run["steps"],
        }
        if random is not None:
            record["reference"] = {"random": random, "human": None}
        return record

    def software(self, task: str) -> dict[str, Any]:
        """Return the versions that a task was run with."""
        return dict(self.tasks[task]["software"])
