"""One task's entries as numbers, on the seeds where they compare with one another and the anchors.

Anchors are an argument: frozen ones of a suite, or the entries of `none` and `full-reset`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ht_bench.errors import UsageError
from ht_bench.ranking import score
from ht_bench.ranking.admission import Admission, admission, least_gap
from ht_bench.ranking.entries import TaskInfo
from ht_bench.ranking.influence import Array, Statistic, of_interquartile_mean
from ht_bench.ranking.score import SuiteScore
from ht_bench.records import metrics
from ht_bench.records.metrics import Record

NONE, FULL_RESET, HARE_TORTOISE = "none", "full-reset", "hare-tortoise"
REFERENCES = (NONE, FULL_RESET, HARE_TORTOISE)


@dataclass(frozen=True, eq=False)
class Measured:
    """One entry's runs on one task as numbers, arrays [seeds] by rising seed.

    final, last, area, retention: as `records.metrics` says; nan where nothing was retained.
    seconds, memory: nan where the run does not say; exact: seconds of steps and bytes of tensors,
    not those of a whole process as older versions wrote. submitted: the entry comes from another
    machine perhaps; none_cost: then, seconds and bytes of a run of `none` there, if known.
    """

    method: str
    seeds: tuple[int, ...]
    diverged: NDArray[np.bool_]
    final: Array
    last: Array
    area: Array
    retention: Array
    seconds: Array
    memory: Array
    extra_parameters: int
    exact: bool = False
    submitted: bool = False
    none_cost: tuple[float, float] | None = None

    def on(self, seeds: Iterable[int]) -> Measured:
        """Return the runs on some of the seeds."""
        places = [self.seeds.index(seed) for seed in sorted(seeds)]
        arrays: dict[str, Any] = {
            k: v[places] for k, v in vars(self).items() if isinstance(v, np.ndarray)
        }
        arrays["seeds"] = tuple(self.seeds[place] for place in places)
        return dataclasses.replace(self, **arrays)

    def by_seed(self) -> dict[int, float]:
        """Return seed → final metric."""
        return dict(zip(self.seeds, self.final.tolist(), strict=True))

    def mean_retention(self) -> float:
        """Return the mean of retention; nan unless some finished run has it and none lacks it."""
        tested = ~np.isnan(self.retention) & ~self.diverged
        return float(self.retention.mean()) if tested.any() else math.nan


def measure(records: Iterable[Record], info: TaskInfo) -> Measured:
    """Read the numbers off an entry's records on one task; the records can be forgotten then."""
    runs = sorted(records, key=lambda record: int(record["seed"]))
    family, classes = info.family, info.classes
    exact = all("tensor_bytes" in run["cost"] for run in runs)
    memory = "tensor_bytes" if exact else "peak_memory_bytes"

    def numbers(values: Iterable[float | None]) -> Array:
        return np.array([math.nan if v is None else v for v in values], dtype=np.float64)

    return Measured(
        method=runs[0]["method"],
        seeds=tuple(int(run["seed"]) for run in runs),
        diverged=np.array([metrics.is_diverged(run) for run in runs]),
        final=numbers(metrics.final_metric(run, family, classes) for run in runs),
        last=numbers(metrics.last_phase_accuracy(run, family, classes) for run in runs),
        area=numbers(metrics.area_last_phase(run, family, classes) for run in runs),
        retention=numbers(metrics.retention(run, classes) for run in runs),
        seconds=numbers(run["cost"].get("seconds") for run in runs),
        memory=numbers(run["cost"].get(memory) for run in runs),
        extra_parameters=max(int(run["extra_parameters"]) for run in runs),
        exact=exact,
    )


class PairedTask:
    """A task's entries by label, on the seeds where they compare with one another and the anchors.

    `seeds` are those that a complete entry has; `entries` hold the runs that count, or all
    of an entry that has none of those; `missing` the seeds that each lacks.
    """

    def __init__(
        self,
        info: TaskInfo,
        entries: Mapping[str, Measured],
        *,
        anchors: Mapping[str, Mapping[int, float]] | None = None,
    ) -> None:
        """Settle the seeds: those that both anchors have, or the one there is, or any entry.

        anchors: frozen ones, NONE and FULL_RESET → seed → final metric; without them, the entries
        of these methods. Raises UsageError if an anchor comes in two variants.
        """
        self.info = info
        self.labels = {m: self._label(m, entries) for m in REFERENCES}
        own = {m: entries[a].by_seed() for m in (NONE, FULL_RESET) if (a := self.labels[m])}
        self.anchors: Mapping[str, Mapping[int, float]] = own if anchors is None else anchors
        everyone: set[int] = set().union(*(entry.seeds for entry in entries.values()))
        common = set.intersection(everyone, *map(set, self.anchors.values()))
        self.seeds = tuple(sorted(common or everyone))
        self.entries, self.missing, self.paired = {}, {}, {}
        for label, entry in entries.items():
            seeds = common & set(entry.seeds)
            self.entries[label] = entry.on(seeds or entry.seeds)
            self.missing[label] = tuple(sorted(set(self.seeds) - seeds))
            self.paired[label] = len(self.anchors) == 2 and bool(seeds)
        self._all = entries
        self._scores: dict[str, SuiteScore | None] = {}

    def gaps(self, label: str) -> Array:
        """Return the gap closed of each of an entry's runs, [seeds]; both anchors are needed."""
        entry = self.entries[label]
        warm, fresh = (self.reference(method, entry.seeds) for method in (NONE, FULL_RESET))
        assert warm is not None and fresh is not None
        return score.seed_scores(entry.final, warm, fresh)

    @property
    def anchored(self) -> bool:
        """Whether both anchors have a common seed that counts."""
        return self.admission() is not None

    def admission(self) -> Admission | None:
        """Say whether full-reset is surely above none here; None without both anchors."""
        if len(self.anchors) < 2:
            return None
        seeds = sorted(set(self.anchors[NONE]) & set(self.anchors[FULL_RESET]))
        if not seeds:
            return None
        warm, fresh = ([self.anchors[m][seed] for seed in seeds] for m in (NONE, FULL_RESET))
        return admission(warm, fresh, least_gap(fresh, self.info.random))

    def reference(self, method: str, seeds: Sequence[int]) -> Array | None:
        """Return a reference's final metric on `seeds`; None if it lacks any or has variants."""
        label = self.labels[method]
        values = self.anchors.get(method) or (self._all[label].by_seed() if label else {})
        if not all(seed in values for seed in seeds):
            return None
        return np.array([values[seed] for seed in seeds])

    def none_entry(self, seeds: Iterable[int]) -> Measured | None:
        """Return the runs of `none` on `seeds`, for their costs; None if it lacks any."""
        label = self.labels[NONE]
        if label is None or not set(seeds) <= set(self._all[label].seeds):
            return None
        return self._all[label].on(seeds)

    def score(self, label: str) -> SuiteScore | None:
        """Return an entry's gap closed on this task alone; None without both anchors."""
        if label not in self._scores:
            self._scores[label] = suite_score([self], label)
        return self._scores[label]

    def metric(self, label: str) -> Statistic:
        """Return the interquartile mean of an entry's metric, which ranks without anchors."""
        return of_interquartile_mean(self.entries[label].final)

    def _label(self, method: str, entries: Mapping[str, Measured]) -> str | None:
        labels = [label for label, entry in entries.items() if entry.method == method]
        if len(labels) > 1 and method != HARE_TORTOISE:
            raise UsageError(
                f"The anchor '{method}' has two variants on '{self.info.name}', {labels[0]} "
                f"and {labels[1]}; leave one of them out."
            )
        return labels[0] if len(labels) == 1 else None


def suite_score(tasks: Sequence[PairedTask], label: str) -> SuiteScore | None:
    """Return an entry's score on tasks; None unless it compares with both anchors on each."""
    values: tuple[dict[str, Array], ...] = ({}, {}, {})
    for task in tasks:
        entry = task.entries.get(label)
        if entry is None or not task.paired[label]:
            return None
        rows = (entry.final, *(task.reference(m, entry.seeds) for m in (NONE, FULL_RESET)))
        for table, array in zip(values, rows, strict=True):
            assert array is not None  # paired seeds are those that both anchors have
            table[task.info.name] = array
    accuracies = all(task.info.random is None for task in tasks)
    return score.suite_score(*values, accuracies=accuracies)
