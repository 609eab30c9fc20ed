"""Runs of one's own as entries beside a leaderboard's: nothing is submitted, nothing trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.leaderboard.board import Submitted, TaskRuns
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.ranking.comparison import Table
from ht_bench.ranking.curves import mean_curve
from ht_bench.ranking.entries import Entry, RunsFolder, Setting, TaskInfo, epoch, read_groups
from ht_bench.ranking.pairs import FULL_RESET, NONE, Measured, measure
from ht_bench.records.metrics import metric_key

ANCHORS = (NONE, FULL_RESET)


@dataclass(frozen=True)
class Own:
    """Entries made of a runs folder, and sentences on what was left out of it."""

    folder: Path
    entries: tuple[Submitted, ...]
    notes: tuple[str, ...]

    def shown(self, tables: Sequence[Table]) -> tuple[list[Table], list[str]]:
        """Return the tables in which an own entry is compared, and sentences on the others.

        A suite is shown where one of them has all of its tasks and seeds.
        """
        names = [entry.name for entry in self.entries]
        kept, notes = [], []
        for table in tables:
            rows = [row for row in table.rows if row.label in names]
            if any(row.complete for row in rows) or (rows and not table.is_suite):
                kept.append(table)
            elif rows:
                lacking = "; ".join(f"{r.label} lacks {', '.join(r.missing)}" for r in rows)
                notes.append(f"{table.name} has no table here: {lacking}.")
        labels = {row.label for table in kept for row in table.rows}
        listed = ", ".join(name for name in names if name in labels)
        origin = f"Of {self.folder}: {listed}; the others are the leaderboard's entries."
        return kept, [*([origin] if listed else []), *notes]


def own_entries(runs: Path, benchmark: str) -> Own:
    """Return the test-split runs of a folder as entries of a board of epoch `benchmark`.

    They are called "NAME (own)". Own runs of the anchors are not entries, since the board has
    them: they give the cost of `none` here.
    Raises UsageError where no runs are left that the board could rank, and as `read_groups` does.
    """
    found = read_groups(runs, scored=True)
    if (own := epoch(found.records[0])) != benchmark:
        raise UsageError(
            f"The runs of {runs} are of ht-bench {own}, the entries of {benchmark}: numbers of the "
            "two do not compare; run them again with one version."
        )
    setting, notes = _setting(found, runs)
    tasks: dict[str, dict[str, TaskRuns]] = {}
    for task, entries in found.groups[setting].items():
        known = find_known(task)
        if isinstance(known, str):
            notes.append(f"{task} is left out: it {known}.")
            continue
        if not _is_released(found, task, known):
            notes.append(f"{task} is left out: its runs are of another task file or other data.")
            continue
        for label, entry in entries.items():
            if entry.method not in ANCHORS:
                name = f"{label} (own)"
                measured = _measured(entry, entries.get(NONE), found.infos[task], name)
                tasks.setdefault(name, {})[task] = _task_runs(entry, measured, known)
    if not tasks:
        raise UsageError(
            f"{runs} holds no method's runs that the entries could be compared with: they are of "
            f"released tasks, the test split, other methods than the anchors. {' '.join(notes)}"
        )
    made = tuple(_entry(name, tasks[name], setting, benchmark) for name in tasks)
    return Own(runs, made, tuple(notes))


def _setting(found: RunsFolder, runs: Path) -> tuple[Setting, list[str]]:
    settings = [setting for setting in found.groups if setting.split == "test"]
    if not settings:
        raise UsageError(
            f"{runs} holds validation runs alone, the leaderboard test-split ones; run without "
            "`--split validation`, once the hyperparameters are chosen."
        )
    if len(settings) > 1:
        raise UsageError(
            f"{runs} holds runs of {len(settings)} settings ({'; '.join(map(str, settings))}); a "
            "comparison with a leaderboard takes one: keep the others in a folder of their own."
        )
    left = [str(setting) for setting in found.groups if setting not in settings]
    notes = [f"Runs of the {setting} are left out." for setting in left]
    return settings[0], [*found.notes, *notes]


def _is_released(found: RunsFolder, task: str, known: KnownTask) -> bool:
    """Whether a folder's runs of a task are of the file and the data that the entries are of."""
    data = {record["data_sha256"] for record in found.records if record["task"] == task}
    same = known.data_sha256 is None or data == {known.data_sha256}
    return same and found.infos[task].sha256 == known.task.sha256


def _measured(entry: Entry, none: Entry | None, info: TaskInfo, name: str) -> Measured:
    """Read an entry's numbers; its name stands for the method, so that no reference is doubled."""
    own = measure(entry.records.values(), info)
    warm = measure(none.records.values(), info) if none else None
    cost = None
    if warm is not None and set(own.seeds) <= set(warm.seeds) and warm.exact == own.exact:
        warm = warm.on(own.seeds)
        cost = float(warm.seconds.mean()), float(warm.memory.mean())
    return dataclasses.replace(own, method=name, none_cost=cost)


def _task_runs(entry: Entry, measured: Measured, known: KnownTask) -> TaskRuns:
    curve = mean_curve([*entry.records.values()], metric_key(known.task.family))
    return TaskRuns(known, measured, curve, {"hyperparameters": entry.hyperparameters})


def _entry(name: str, tasks: Mapping[str, TaskRuns], setting: Setting, benchmark: str) -> Submitted:
    about = {"benchmark": benchmark, "name": name, **dataclasses.asdict(setting)}
    return Submitted(name, about, "", "", False, {}, tasks)
