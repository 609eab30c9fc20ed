"""Which diagnostic at a phase's end goes with the accuracy reached in the next one.

A row is one run (a method, a seed) at one boundary. Correlations over all rows are confounded: a
method moves a diagnostic and the accuracy by two ways of its own, and both change along a stream.
So two more stand beside: over rows of the same boundary, and of the same boundary and method,
where only seeds differ. None of them says what causes what.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.ranking.entries import Entry, Setting, TaskInfo, read_groups
from ht_bench.ranking.estimate import NO_GAP, Estimate
from ht_bench.ranking.score import Array
from ht_bench.ranking.stratified import spearman_estimates
from ht_bench.records import metrics
from ht_bench.records.keys import DIAGNOSTICS
from ht_bench.records.metrics import Record

Target = Literal["end", "mean"]
TARGETS = {"end": "at the next phase's end", "mean": "mean over the next phase's points"}
FEW = 10
"""Seeds below which a note says that intervals are rough."""


@dataclass(frozen=True)
class Explained:
    """One diagnostic's rank correlations with what comes after the boundary.

    n: rows. overall: over all rows. same_boundary: between rows of one boundary. same_method:
    between rows of one boundary and method, so over seeds alone. nan where nothing varies.
    """

    key: str
    meaning: str
    n: int
    overall: Estimate
    same_boundary: Estimate
    same_method: Estimate


@dataclass(frozen=True)
class Explanation:
    """All diagnostics on one task in one setting, the strongest first.

    target: what they are correlated with, in words. boundaries, methods, seeds: what rows are of.
    """

    task: str
    setting: Setting
    target: str
    boundaries: int
    methods: tuple[str, ...]
    seeds: int
    rows: tuple[Explained, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Rows:
    """One number per row: what was reached, and which method, seed and boundary it is of."""

    reached: Array
    method: np.ndarray
    seed: np.ndarray
    boundary: np.ndarray
    diagnostics: Mapping[str, Array]


def explain_folder(
    runs: Path, target: Target = "end", task: str = ""
) -> tuple[tuple[Explanation, ...], tuple[str, ...]]:
    """Explain every task that has runs below a folder; returns notes on what is left out too.

    Raises UsageError where no run has two phases, and as `read_groups` does.
    """
    folder = read_groups(runs)
    if task and task not in folder.infos:
        raise UsageError(f"There are no runs on '{task}' in {runs}: {', '.join(folder.infos)}.")
    found, notes = [], list(folder.notes)
    for setting, by_task in folder.groups.items():
        for name, entries in by_task.items():
            if task in ("", name):
                made = explain(folder.infos[name], setting, entries, target)
                if made is None:
                    notes.append(f"{name} is left out: no run there has a boundary to explain.")
                else:
                    found.append(made)
    if not found:
        raise UsageError(" ".join(notes))
    return tuple(found), tuple(notes)


def explain(
    info: TaskInfo, setting: Setting, entries: Mapping[str, Entry], target: Target = "end"
) -> Explanation | None:
    """Correlate every diagnostic of a task's entries; None where no run has a boundary."""
    rows = _collect(info, entries, target)
    if not len(rows.reached):
        return None
    methods = tuple(label for place, label in enumerate(entries) if place in rows.method)
    key = metrics.metric_key(info.family).replace("/", " ")
    return Explanation(
        task=info.name,
        setting=setting,
        target=f"{metrics.on_split(key, setting.split)}, {TARGETS[target]}",
        boundaries=len(np.unique(rows.boundary)),
        methods=methods,
        seeds=len(np.unique(rows.seed)),
        rows=tuple(sorted(_explained(rows), key=_strength)),
        notes=tuple(_notes(rows, entries, methods)),
    )


def _strength(row: Explained) -> tuple[bool, float, str]:
    value = row.overall.value
    return math.isnan(value), -abs(value) if not math.isnan(value) else 0.0, row.key


def _explained(rows: _Rows) -> list[Explained]:
    """Correlate the diagnostics, those with numbers in the same rows together."""
    groups: dict[bytes, list[str]] = {}
    for key, values in rows.diagnostics.items():
        known = np.isfinite(values) & np.isfinite(rows.reached)
        groups.setdefault(known.tobytes(), []).append(key)
    found = []
    for mask, keys in groups.items():
        known = np.frombuffer(mask, dtype=bool)
        found += _of_rows(keys, known, rows)
    return found


def _of_rows(keys: Sequence[str], known: np.ndarray, rows: _Rows) -> list[Explained]:
    count = int(known.sum())
    if count < 3:
        return [Explained(key, DIAGNOSTICS.get(key, ""), count, *[NO_GAP] * 3) for key in keys]
    x = [rows.diagnostics[key][known] for key in keys]
    y = rows.reached[known]
    method, seed, boundary = (a[known] for a in (rows.method, rows.seed, rows.boundary))
    both = np.unique(np.stack([boundary, method]), axis=1, return_inverse=True)[1].ravel()

    def within(strata: np.ndarray) -> list[Estimate]:
        return spearman_estimates(x, y, strata, (method, seed), "explain")

    overall = within(np.zeros(count, dtype=np.intp))
    same_boundary = overall if len(np.unique(boundary)) < 2 else within(boundary)
    estimates = zip(keys, overall, same_boundary, within(both), strict=True)
    return [Explained(key, DIAGNOSTICS.get(key, ""), count, *three) for key, *three in estimates]


def _collect(info: TaskInfo, entries: Mapping[str, Entry], target: Target) -> _Rows:
    reached, places, tables = [], [], []
    for place, entry in enumerate(entries.values()):
        for seed, record in entry.records.items():
            values = _reached(record, info, target)
            table = _ends(record)
            for phase, value in enumerate(values):
                reached.append(value)
                places.append((place, seed, phase))
                tables.append({key: column.get(phase, math.nan) for key, column in table.items()})
    keys = dict.fromkeys(key for table in tables for key in table)
    columns = {k: np.array([t.get(k, math.nan) for t in tables], dtype=np.float64) for k in keys}
    methods, seeds, boundaries = np.array(places, dtype=np.int64).reshape(-1, 3).T
    return _Rows(np.array(reached, dtype=np.float64), methods, seeds, boundaries, columns)


def _reached(record: Record, info: TaskInfo, target: Target) -> list[float]:
    """Return what each phase but the first reached; a diverged run counts as guessing."""
    values = metrics.curve(record, metrics.metric_key(info.family))
    ends = metrics.phase_end_points(record)
    found = []
    for before, end in itertools.pairwise(ends):
        points = slice(before + 2, end + 1) if target == "mean" and end > before + 1 else end
        found.append(float(np.mean(values[points])))  # the first point is before any step
    return found


def _ends(record: Record) -> dict[str, dict[int, float]]:
    """Return each diagnostic at the phases' ends: key → phase → value."""
    table = record["diagnostics"]
    phases: Sequence[int] = table.get("phase", [])
    found: dict[str, dict[int, float]] = {}
    for key, values in table.items():
        if key not in ("phase", "step"):
            pairs = zip(phases, values, strict=True)  # the last of a phase stands
            found[key] = {p: math.nan if v is None else float(v) for p, v in pairs}
    return found


def _notes(rows: _Rows, entries: Mapping[str, Entry], methods: Sequence[str]) -> Iterable[str]:
    seeds = len(np.unique(rows.seed))
    if len(methods) < 2:
        yield "One method: nothing is said of how methods differ."
    acting = [label for label in methods if _acts_at_boundaries(entries[label])]
    if acting:
        yield (
            f"Told of boundaries: {', '.join(acting)}. What such a method changes there (a reset "
            "all of it) was measured before: its runs weaken any link."
        )
    if seeds < FEW:
        yield f"{seeds} seed(s): the intervals are rough; run more with --seeds."


def _acts_at_boundaries(entry: Entry) -> bool:
    traits = (record.get("traits", {}) for record in entry.records.values())
    return any(trait.get("needs_boundaries", False) for trait in traits)
