"""One task's entries and the seeds on which they compare with one another and with the anchors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.ranking import score
from ht_bench.ranking.entries import Entry, TaskInfo
from ht_bench.ranking.score import Admission, Array
from ht_bench.records.metrics import Record, final_metric

WARM, FRESH, OWN = "none", "full-reset", "hare-tortoise"


@dataclass(frozen=True)
class Seeds:
    """The seeds of an entry that count, those it lacks, and whether both anchors have them too."""

    used: tuple[int, ...]
    missing: tuple[int, ...]
    paired: bool


class PairedTask:
    """A task's entries by label; `wanted` are the seeds that a complete entry has."""

    def __init__(self, info: TaskInfo, entries: Mapping[str, Entry], required: bool) -> None:
        """Settle the seeds; `required`: the task's evaluation seeds count.

        Otherwise those count that both anchors have; without both, those of the one there is, or
        of all entries. Raises UsageError if an anchor comes in two variants.
        """
        self.info, self.entries = info, entries
        self.warm, self.fresh = self._anchor(WARM), self._anchor(FRESH)
        present = [set(anchor.records) for anchor in (self.warm, self.fresh) if anchor]
        everyone: set[int] = set().union(*(entry.records for entry in entries.values()))
        common = set.intersection(*present) if present else everyone
        wanted = set(info.seeds) if required else common or everyone
        self.wanted = tuple(sorted(wanted))
        self.seeds: dict[str, Seeds] = {}
        for label, entry in entries.items():
            seeds = set(entry.records) & wanted & common
            paired = len(present) == 2 and bool(seeds)
            used = tuple(sorted(seeds or entry.records))
            self.seeds[label] = Seeds(used, tuple(sorted(wanted - seeds)), paired)

    @property
    def anchored(self) -> bool:
        """Whether both anchors ran on a common seed that counts."""
        return self.warm is not None and self.seeds[self.warm.label].paired

    def admission(self) -> Admission | None:
        """Say whether starting over surely beats going on here; None without anchors."""
        if self.warm is None or self.fresh is None or not self.anchored:
            return None
        seeds = self.seeds[self.warm.label].used
        warm, fresh = self.values(self.warm, seeds), self.values(self.fresh, seeds)
        minimum = score.least_gap(fresh, self.info.random)
        return score.admission(warm, fresh, minimum, task=self.info.name)

    def reference(self, method: str) -> Entry | None:
        """Return the only variant of `method`; None if it did not run or has several."""
        found = [entry for entry in self.entries.values() if entry.method == method]
        return found[0] if len(found) == 1 else None

    def values(
        self,
        entry: Entry,
        seeds: Sequence[int],
        measure: Callable[[Record, str, int], float] = final_metric,
    ) -> Array:
        """Return `measure(record, family, classes)` of the entry's runs on `seeds`, [seeds]."""
        family, classes = self.info.family, self.info.classes
        return np.array([measure(entry.records[seed], family, classes) for seed in seeds])

    def _anchor(self, method: str) -> Entry | None:
        found = [entry for entry in self.entries.values() if entry.method == method]
        if len(found) > 1:
            raise UsageError(
                f"The anchor '{method}' has two variants on '{self.info.name}', {found[0].label} "
                f"and {found[1].label}; leave one of them out."
            )
        return found[0] if found else None
