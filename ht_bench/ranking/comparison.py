"""Records → a comparison: a table for each suite and each task, one row for each entry."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.ranking.admission import STANDARD_ERRORS, Admission
from ht_bench.ranking.curves import MeanCurve
from ht_bench.ranking.entries import (
    Entry,
    Groups,
    Setting,
    TaskInfo,
    epoch,
    group_records,
    mixture_notes,
    read_groups,
    variant_notes,
)
from ht_bench.ranking.pairs import FULL_RESET, NONE, Measured, PairedTask, measure
from ht_bench.ranking.rows import Row, make_rows, one_scale
from ht_bench.ranking.shares import swamping, task_shares
from ht_bench.records.metrics import Record, describe_metric, on_split
from ht_bench.streams.families import get_family
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.suite import Suite, get_suite, known_suites


@dataclass(frozen=True)
class Table:
    """All entries on a task or on a suite of tasks, in one setting.

    seeds: by task, what a complete entry has. admission: the task's own (None for a suite, and
    without anchors). metric: what its `metric` column holds, in words. shares: of a suite, what
    each task brings to the variance between ranked entries (`shares.task_shares`).
    """

    name: str
    is_suite: bool
    tasks: tuple[str, ...]
    setting: Setting
    benchmark: str
    metric: str
    seeds: Mapping[str, tuple[int, ...]]
    admission: Admission | None
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Suite tables first, then one table per task; notes say what was left out, and why."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()


Curves = tuple[Mapping[str, Sequence[Record] | MeanCurve], str]
"""Of a task's table: by label, records or their mean curve; the curve's key."""
CurvesOf = Callable[[Table], Curves]


def compare(
    records: Iterable[Record],
    tasks: Mapping[str, TaskInfo],
    *,
    suites: Mapping[str, Sequence[str]] | None = None,
) -> Comparison:
    """Compare the records' entries on every task, and on suites of tasks.

    tasks: by name, every task that a record names. suites: name → its tasks; without it, the
    tasks that pass admission make one suite each for generalization, trainability and control.
    A complete entry has the seeds that both anchors have; an incomplete one is shown, not ranked.
    Raises UsageError as `group_records` does.
    """
    runs = list(records)
    suite_tables, task_tables, notes = [], [], []
    for setting, by_task in group_records(runs, tasks).items():
        pairs = {
            name: PairedTask(tasks[name], _measured(entries, tasks[name]))
            for name, entries in by_task.items()
        }
        members, left_out = _admitted(pairs) if suites is None else _named(pairs, suites)
        notes += [f"{text} ({setting})" for text in left_out]
        benchmark = epoch(runs[0])
        for name, names in members.items():
            suite = [pairs[member] for member in names]
            suite_tables.append(make_table(name, suite, setting, benchmark, is_suite=True))
        for name, entries in by_task.items():
            remarks = _task_notes(pairs[name], entries.values(), setting)
            task_tables.append(make_table(name, [pairs[name]], setting, benchmark, remarks))
    return Comparison((*suite_tables, *task_tables), tuple(notes))


def make_table(
    name: str,
    tasks: Sequence[PairedTask],
    setting: Setting,
    benchmark: str,
    notes: Sequence[str] = (),
    *,
    is_suite: bool = False,
) -> Table:
    """Rank all entries on a task or on a suite of tasks."""
    rows = make_rows(tasks)
    shares = _shares(tasks, rows) if is_suite and len(tasks) > 1 else {}
    return Table(
        name=name,
        is_suite=is_suite,
        tasks=tuple(task.info.name for task in tasks),
        setting=setting,
        benchmark=benchmark,
        metric=on_split(_metric(tasks), setting.split),
        seeds={task.info.name: task.seeds for task in tasks},
        admission=None if is_suite else tasks[0].admission(),
        rows=rows,
        notes=(*_doubtful_gaps(rows), *_swamped(shares), *_uneven(tasks), *notes),
        shares=shares,
    )


def _metric(tasks: Sequence[PairedTask]) -> str:
    if not one_scale(tasks):
        return "none, returns of different tasks have no common scale"
    families = {task.info.family for task in tasks}
    return describe_metric(families.pop()) if len(families) == 1 else "each task's metric"


def _shares(tasks: Sequence[PairedTask], rows: Sequence[Row]) -> dict[str, float]:
    ranked = [row.label for row in rows if row.rank is not None]
    return task_shares([{task.info.name: task.gaps(label) for task in tasks} for label in ranked])


def _swamped(shares: Mapping[str, float]) -> list[str]:
    return [
        f"{task} brings {shares[task]:.0%} of the variance between the entries' scores: the "
        "ranking follows this task."
        for task in swamping(shares)
    ]


def _uneven(tasks: Sequence[PairedTask]) -> list[str]:
    counts = {task.info.name: len(task.seeds) for task in tasks}
    if len(set(counts.values())) < 2:
        return []
    told = ", ".join(f"{task} {n}" for task, n in counts.items())
    return [
        f"Tasks have different numbers of seeds ({told}): a score over all runs weighs those with "
        "more seeds more; `--details` has the mean of the tasks."
    ]


def _measured(entries: Mapping[str, Entry], info: TaskInfo) -> dict[str, Measured]:
    return {label: measure(entry.records.values(), info) for label, entry in entries.items()}


def _named(
    tasks: Mapping[str, PairedTask], suites: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], list[str]]:
    scored, notes = {}, []
    for name, members in suites.items():
        lacking = [m for m in members if m not in tasks or not tasks[m].anchored]
        if not lacking:
            scored[name] = list(members)
        elif any(member in tasks for member in members):
            notes.append(
                f"{name} is not scored: it needs {NONE} and {FULL_RESET} on {', '.join(lacking)}."
            )
    return scored, notes


def _admitted(tasks: Mapping[str, PairedTask]) -> tuple[dict[str, list[str]], list[str]]:
    suites: dict[str, list[str]] = {}
    notes = []
    for name, task in tasks.items():
        kind = get_family(task.info.family).kind
        admission = task.admission()
        if admission is not None and admission.passes:
            suites.setdefault(f"all tasks, {kind}", []).append(name)
        elif admission is not None and len(tasks) > 1:
            notes.append(
                f"{name} is left out of the mean over tasks: {FULL_RESET} is not surely better "
                f"than {NONE} there."
            )
    return {name: members for name, members in suites.items() if len(members) > 1}, notes


def _task_notes(task: PairedTask, entries: Iterable[Entry], setting: Setting) -> list[str]:
    """Say what a reader must know before believing the rows."""
    runs = list(entries)
    notes = [*_anchor_notes(task), *_seed_notes(task, setting)]
    return [*notes, *variant_notes(runs), *mixture_notes(runs)]


def _doubtful_gaps(rows: Sequence[Row]) -> list[str]:
    gaps = [row.least_gap for row in rows if row.least_gap is not None and row.n > 1]
    least = min(gaps, default=math.inf)
    if least >= STANDARD_ERRORS:
        return []
    return [
        f"On some seeds here {FULL_RESET} is only {_below(max(least, 0.0))} standard errors above "
        f"{NONE}: gap closed and its interval are rough below {STANDARD_ERRORS:.0f}."
    ]


def _below(errors: float) -> str:
    """Write standard errors with as many digits as tell them from the limit."""
    text = f"{errors:.1f}"
    return text if float(text) < STANDARD_ERRORS else f"{math.floor(errors * 100) / 100:.2f}"


def _anchor_notes(task: PairedTask) -> list[str]:
    absent = [method for method in (NONE, FULL_RESET) if method not in task.anchors]
    if not absent:
        return []
    name = task.info.name
    frozen = any(name in suite.anchors for suite in known_suites().values())
    return [
        f"Gap closed needs {' and '.join(absent)}: add `--method {','.join(absent)}` to the "
        f"`ht-bench run` that made these runs of {name}"
        + (", or compare with a leaderboard, which has them." if frozen else ".")
    ]


def _seed_notes(task: PairedTask, setting: Setting) -> list[str]:
    notes = []
    lacking = sorted(set(task.info.seeds) - set(task.seeds))
    if setting.split == "test" and lacking:
        notes.append(
            f"A leaderboard entry needs {format_seeds(task.info.seeds)}; "
            f"not compared here: {format_seeds(lacking)}."
        )
    if len(task.seeds) < 2:
        notes.append("One seed gives no interval, no rank and no sure gap; run more with --seeds.")
    return notes


def compare_folder(
    out: Path, suite: str | Path | Suite = "", *, scored: bool = False
) -> tuple[Comparison, Groups, Mapping[str, TaskInfo]]:
    """Compare everything below `out`; returns the comparison and what it was made from.

    suite: score that suite and its tasks alone, by its name or file. Otherwise every known suite
    that has runs, or, without any, the mean over the tasks that pass admission. scored: the records
    keep only the curves that scores are read off. Raises UsageError where no run is of the suite.
    """
    runs = read_groups(out, scored=scored)
    infos = runs.infos
    asked = [get_suite(suite)] if suite else known_suites().values()
    suites = {each.name: each.tasks for each in asked}
    records = runs.records
    if suite:
        [wanted] = asked
        records = [record for record in records if record["task"] in wanted.tasks]
        _check_any(records, out, wanted, infos)
    several = {name: tasks for name, tasks in suites.items() if suite or set(tasks) <= set(infos)}
    shown = {name: tasks for name, tasks in several.items() if len(tasks) > 1 or suite}
    comparison = compare(records, infos, suites=shown or None)
    notes = (*runs.notes, *comparison.notes)
    return dataclasses.replace(comparison, notes=notes), runs.groups, infos


def _check_any(
    records: Sequence[Record], out: Path, suite: Suite, infos: Mapping[str, TaskInfo]
) -> None:
    if not records:
        raise UsageError(
            f"{out} has no runs of {suite.name}, which is {', '.join(suite.tasks)}, but of "
            f"{', '.join(infos)}; name another suite, or `ht-bench run --suite {suite.name}`."
        )
