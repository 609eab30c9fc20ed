"""The ranker: entries on a suite or a task → a table, every number recomputed from finals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ht_bench.leaderboard.known import KnownTask
from ht_bench.leaderboard.summary import Array, Entry, TaskSummary
from ht_bench.ranking import score
from ht_bench.ranking.pairing import OWN, WARM
from ht_bench.ranking.rows import REFERENCES
from ht_bench.ranking.score import Admission, Estimate


@dataclass(frozen=True, eq=False)
class Anchors:
    """`none` and `full-reset` on a task: final metric per evaluation seed, and whose they are.

    frozen: they stand in a released suite; otherwise they are the board's own entries.
    """

    warm: Array
    fresh: Array
    frozen: bool
    admission: Admission


@dataclass(frozen=True)
class Standing:
    """One entry on one suite or task; None: not measured or not comparable.

    rank: None for an entry that lacks a task (`missing`). time, memory: relative to `none`, on
    the entry's own machine unless `other_machine`. by_task: gap closed per task. above: shares of
    runs whose own gap closed lies above 0 and above 1, two points of the performance profile.
    """

    entry: Entry
    rank: int | None
    missing: tuple[str, ...]
    gap: Estimate | None
    by_mean: Estimate | None
    by_median: Estimate | None
    by_task: Mapping[str, Estimate]
    above: tuple[float, float] | None
    metric: float
    error: float
    area: float
    last: float
    retention: float | None
    improvement: Mapping[str, Estimate | None]
    time: float | None
    memory: float | None
    other_machine: bool
    extra_parameters: int
    diverged: int


@dataclass(frozen=True)
class Table:
    """All entries on a suite or on a task, best first, unranked ones last."""

    name: str
    title: str
    tasks: tuple[KnownTask, ...]
    rows: tuple[Standing, ...]


class Ranker:
    """Makes tables; entries by name, anchors by task."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = entries
        self.anchors: Mapping[str, Anchors] = {}
        self._singles: dict[tuple[str, str], score.SuiteScore | None] = {}
        self._drawn: dict[tuple[str, str], Array] = {}

    def summary(self, entry: str, task: str) -> TaskSummary | None:
        """Return a reference entry's summary on a task, if there is one."""
        return self.entries[entry].tasks.get(task) if entry in self.entries else None

    def table(self, name: str, title: str, tasks: Sequence[KnownTask]) -> Table:
        """Rank all entries that have any of the tasks."""
        names = [known.task.name for known in tasks]
        taking = [e for e in self.entries.values() if any(n in e.tasks for n in names)]
        draws = {}
        scores = {}
        for entry in taking:
            for n in names:  # each first, while the resamples that the suite needs are at hand
                if n in entry.tasks:
                    self._single(entry, n)
            if all(n in entry.tasks for n in names):
                one = len(names) == 1
                scores[entry.name] = (
                    self._single(entry, names[0]) if one else self._score(entry, names)
                )
                draws[entry.name] = self._draws(entry, names, scores[entry.name])
        ranks = score.ranks(draws)
        rows = [self._row(e, names, ranks.get(e.name), scores.get(e.name)) for e in taking]
        return Table(name, title, tuple(tasks), tuple(sorted(rows, key=_order)))

    def _score(self, entry: Entry, names: Sequence[str]) -> score.SuiteScore | None:
        if any(name not in self.anchors for name in names):
            return None
        values = {name: entry.tasks[name].final for name in names}
        warm = {name: self.anchors[name].warm for name in names}
        fresh = {name: self.anchors[name].fresh for name in names}
        return score.suite_score(values, warm, fresh)

    def _single(self, entry: Entry, name: str) -> score.SuiteScore | None:
        """Return the score on one task, which a suite's table and the task's own both show."""
        key = (entry.name, name)
        if key not in self._singles:
            found = self._score(entry, [name])
            # Its draws of the ratio serve nobody; those of the metric rank the task's table.
            self._singles[key] = found and dataclasses.replace(found, draws=np.empty(0))
            self._drawn[key] = score.bootstrap(entry.tasks[name].final, name)
        return self._singles[key]

    def _draws(self, entry: Entry, names: Sequence[str], found: score.SuiteScore | None) -> Array:
        # One task needs no anchors to be ranked on, and its ratios could only blur the ranks.
        if found is not None and len(names) > 1:
            return found.draws
        return self._drawn[entry.name, names[0]]

    def _row(
        self,
        entry: Entry,
        names: Sequence[str],
        rank: int | None,
        found: score.SuiteScore | None,
    ) -> Standing:
        here = [entry.tasks[name] for name in names if name in entry.tasks]
        time, memory, other = self._cost(here)
        kept = [summary.retention for summary in here]
        squares = [s.final.var(ddof=1) / s.final.size for s in here if s.final.size > 1]
        return Standing(
            entry=entry,
            rank=rank,
            missing=tuple(name for name in names if name not in entry.tasks),
            gap=found.gap_closed if found else None,
            by_mean=found.by_mean if found else None,
            by_median=found.by_median if found else None,
            by_task=self._by_task(entry, [n for n in names if n in entry.tasks]),
            above=self._above(entry, names) if found else None,
            metric=float(np.mean([summary.final.mean() for summary in here])),
            error=math.sqrt(sum(squares)) / len(here),
            area=float(np.mean([summary.area for summary in here])),
            last=float(np.mean([summary.last for summary in here])),
            retention=float(np.mean([k for k in kept if k])) if all(kept) else None,
            improvement={name: self._improvement(entry, names, name) for name in REFERENCES},
            time=time,
            memory=memory,
            other_machine=other,
            extra_parameters=max(summary.extra_parameters for summary in here),
            diverged=sum(summary.diverged for summary in here),
        )

    def _by_task(self, entry: Entry, names: Sequence[str]) -> dict[str, Estimate]:
        found = {name: self._single(entry, name) for name in names}
        return {name: one.gap_closed for name, one in found.items() if one is not None}

    def _above(self, entry: Entry, names: Sequence[str]) -> tuple[float, float]:
        values = {
            name: score.seed_scores(
                entry.tasks[name].final, self.anchors[name].warm, self.anchors[name].fresh
            )
            for name in names
        }
        over_none, over_fresh = score.performance_profile(values, (0.0, 1.0))
        return float(over_none), float(over_fresh)

    def _improvement(self, entry: Entry, names: Sequence[str], reference: str) -> Estimate | None:
        if entry.name == reference or any(name not in entry.tasks for name in names):
            return None
        theirs = {name: self._reference(reference, name) for name in names}
        known = {name: values for name, values in theirs.items() if values is not None}
        if len(known) < len(names):
            return None
        mine = {name: entry.tasks[name].final for name in names}
        return score.probability_of_improvement(mine, known)

    def _reference(self, reference: str, task: str) -> Array | None:
        anchors = self.anchors.get(task)
        if anchors is not None and reference != OWN:
            return anchors.warm if reference == WARM else anchors.fresh
        summary = self.summary(reference, task)
        return summary.final if summary else None

    def _cost(self, here: Sequence[TaskSummary]) -> tuple[float | None, float | None, bool]:
        """Return (time, memory) relative to `none`, and whether its runs came from elsewhere."""
        times, memories, other = [], [], False
        for summary in here:
            none = self.summary(WARM, summary.known.task.name)
            seconds, memory = summary.none_seconds, summary.none_memory
            if seconds is None or memory is None:
                if none is None:
                    return None, None, False
                seconds, memory, other = none.seconds, none.memory, True
            if not seconds or not memory:
                return None, None, other
            times.append(summary.seconds / seconds)
            memories.append(summary.memory / memory)
        return float(np.mean(times)), float(np.mean(memories)), other


def _order(row: Standing) -> tuple[bool, int, float, str]:
    best = row.gap.value if row.gap else row.metric
    best = -math.inf if math.isnan(best) else best
    return row.rank is None, row.rank or 0, -best, row.entry.name
