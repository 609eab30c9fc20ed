"""Entries on paired tasks → rows: one entry's numbers on a task, or over a suite's tasks.

The only ranking: the terminal's tables, figures, TensorBoard and the leaderboard's page show these
rows. A task's table is a suite of one task, so there is one way to make a row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ht_bench.ranking import score
from ht_bench.ranking.influence import Statistic, bands, surely_above
from ht_bench.ranking.pairs import REFERENCES, PairedTask, suite_score
from ht_bench.ranking.score import Estimate, SuiteScore
from ht_bench.streams.seeds import format_seeds

PROFILE_THRESHOLDS = tuple(round(0.1 * step - 0.5, 1) for step in range(21))


@dataclass(frozen=True)
class Row:
    """One entry's numbers, means over its table's tasks; None: not measured or not comparable.

    rank: 1 + the entries surely above it; None for an incomplete entry (`missing` says what it
    lacks) and for a lone seed. bands: numbers of the groups of neighbours that cannot be told apart
    and that it belongs to. n: seeds per task behind every number, those that both anchors have too.
    gap_closed: the score, over all (task, seed) values; mean_of_tasks: the mean of by_task, gap
    closed on each task that the entry has; error_reduction: against `none`, None for returns.
    least_gap: the smallest of the tasks' gaps, in standard errors. metric: mean over seeds, in 0..1
    or a return, with the 95 % interval of that mean; None, as area and retention, over returns of
    several tasks. improvement: probability of improvement over
    each of REFERENCES. wall_time, peak_memory: relative to `none` on the same seeds; other_machine:
    that `none` ran elsewhere. profile: share of runs whose gap closed lies above each of
    PROFILE_THRESHOLDS. decimals: that its metric, an accuracy or a return, is worth.
    """

    label: str
    method: str
    rank: int | None
    bands: tuple[int, ...]
    n: int
    missing: tuple[str, ...]
    diverged: int
    gap_closed: Estimate | None
    mean_of_tasks: Estimate | None
    error_reduction: Estimate | None
    by_task: Mapping[str, Estimate]
    least_gap: float | None
    metric: Estimate | None
    last_phase_accuracy: float | None
    area: float | None
    retention: float | None
    improvement: Mapping[str, Estimate | None]
    wall_time: float | None
    peak_memory: float | None
    other_machine: bool
    extra_parameters: int
    profile: tuple[float, ...] | None
    decimals: int = 3

    @property
    def complete(self) -> bool:
        """Whether the entry has every wanted seed of every task."""
        return not self.missing


def make_rows(tasks: Sequence[PairedTask]) -> tuple[Row, ...]:
    """Return one row per entry, ranked ones first, best first.

    One task: ranked by the interquartile mean of the metric, which needs no anchors. Several: by
    gap closed over all runs. Pairs are told apart as `influence.surely_above` says.
    """
    labels = dict.fromkeys(label for task in tasks for label in task.entries)
    rows = {}
    ranked: dict[str, Statistic] = {}
    for label in labels:
        by_task = {t.info.name: t.score(label) for t in tasks if label in t.entries}
        total = suite_score(tasks, label) if len(tasks) > 1 else tasks[0].score(label)
        row = _row(label, tasks, total, {k: v.shown(v.gap_closed) for k, v in by_task.items() if v})
        rows[label] = row
        if row.complete and row.n > 1:
            if len(tasks) == 1 or total is None:
                ranked[label] = tasks[0].metric(label)
            elif not total.without_gap:  # else a rank would rest on a ratio without meaning
                ranked[label] = total.statistic
    return tuple(sorted(_ranked(rows, ranked), key=_order))


def one_scale(tasks: Sequence[PairedTask]) -> bool:
    """Whether a mean of the tasks' metrics says something: returns of several tasks have none."""
    return len(tasks) == 1 or all(task.info.random is None for task in tasks)


def _ranked(rows: Mapping[str, Row], ranked: Mapping[str, Statistic]) -> Iterable[Row]:
    above = surely_above(ranked)
    order = sorted(ranked, key=lambda label: (len(above[label]), -ranked[label].value, label))
    groups = bands(order, above)
    for label, row in rows.items():
        rank = len(above[label]) + 1 if label in ranked else None
        yield dataclasses.replace(row, rank=rank, bands=groups.get(label, ()))


def _order(row: Row) -> tuple[bool, int, float, str]:
    gap = row.gap_closed
    best = row.metric if gap is None or math.isnan(gap.value) else gap
    value = -math.inf if best is None or math.isnan(best.value) else best.value
    return row.rank is None, row.rank or 0, -value, row.label


def _row(
    label: str, tasks: Sequence[PairedTask], total: SuiteScore | None, by_task: dict[str, Estimate]
) -> Row:
    present = [task for task in tasks if label in task.entries]
    runs = [task.entries[label] for task in present]
    whole = len(present) == len(tasks)  # a mean over fewer tasks than the table's would mislead
    absent = [f"{task.info.name} (not run)" for task in tasks if label not in task.entries]
    lacking = [f"{t.info.name} seeds {format_seeds(m)}" for t in present if (m := t.missing[label])]
    costs = [_relative_cost(task, label) for task in present]
    alike = whole and one_scale(tasks)

    def mean(values: Iterable[float], comparable: bool = alike) -> float | None:
        average = float(np.mean([*values])) if comparable else math.nan
        return None if math.isnan(average) else average

    return Row(
        label=label,
        method=runs[0].method,
        rank=None,
        bands=(),
        n=min(len(entry.seeds) for entry in runs),
        missing=(*absent, *lacking),
        diverged=sum(int(entry.diverged.sum()) for entry in runs),
        gap_closed=total.shown(total.gap_closed) if total else None,
        mean_of_tasks=total.shown(total.mean_of_tasks) if total else None,
        error_reduction=total.error_reduction if total else None,
        by_task=by_task,
        least_gap=total.least_gap if total else None,
        metric=score.mean_estimate(*(entry.final for entry in runs)) if alike else None,
        last_phase_accuracy=mean(entry.last.mean() for entry in runs),
        area=mean(entry.area.mean() for entry in runs),
        retention=mean(entry.mean_retention() for entry in runs),
        improvement={name: _improvement(label, name, tasks) for name in REFERENCES},
        wall_time=mean((time for time, _, _ in costs), whole),
        peak_memory=mean((memory for _, memory, _ in costs), whole),
        other_machine=any(other for _, _, other in costs),
        extra_parameters=max(entry.extra_parameters for entry in runs),
        profile=_profile(label, tasks) if total and not total.without_gap else None,
        decimals=1 if all(task.info.random is not None for task in tasks) else 3,
    )


def _relative_cost(task: PairedTask, label: str) -> tuple[float, float, bool]:
    """Return (time, memory) relative to `none`, nan if not known; whether it ran elsewhere."""
    entry = task.entries[label]
    cost, elsewhere = entry.none_cost, False
    if cost is None:
        warm = task.none_entry(entry.seeds)
        if warm is None or warm.exact != entry.exact:
            return math.nan, math.nan, False
        cost = float(warm.seconds.mean()), float(warm.memory.mean())
        elsewhere = entry.submitted
    own = float(entry.seconds.mean()), float(entry.memory.mean())
    time, memory = (x / none if none else math.nan for x, none in zip(own, cost, strict=True))
    return time, memory, elsewhere


def _improvement(label: str, reference: str, tasks: Sequence[PairedTask]) -> Estimate | None:
    own, theirs = {}, {}
    for task in tasks:
        if label not in task.entries or label == reference:
            return None
        entry = task.entries[label]
        values = task.reference(reference, entry.seeds)
        if values is None:
            return None
        own[task.info.name], theirs[task.info.name] = entry.final, values
    return score.probability_of_improvement(own, theirs)


def _profile(label: str, tasks: Sequence[PairedTask]) -> tuple[float, ...]:
    seeds = {task.info.name: task.gaps(label) for task in tasks}
    return tuple(float(x) for x in score.performance_profile(seeds, PROFILE_THRESHOLDS))
