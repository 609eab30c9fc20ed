"""Records sorted into entries: checked for being comparable, grouped by setting, task, method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError, did_you_mean
from ht_bench.records.metrics import Record, describe
from ht_bench.records.record import group_digest
from ht_bench.records.runs import find_runs, read_runs, read_spec
from ht_bench.version import EPOCH, epoch_order


@dataclass(frozen=True)
class TaskInfo:
    """What a comparison needs to know of a task.

    classes: of its data. seeds: its evaluation seeds. sha256: its spec's hash, which the records
    must carry ("": not checked). random: a uniform policy's return, for tasks of environments.
    """

    name: str
    family: str
    classes: int
    seeds: tuple[int, ...]
    sha256: str = ""
    random: float | None = None


@dataclass(frozen=True, order=True)
class Setting:
    """What every run of one table shares beside the task; runs of two settings never mix."""

    split: str
    precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.split} split, {self.precision} on {self.device}"


@dataclass(eq=False)
class Entry:
    """One method with one set of hyperparameters on one task: its records by seed."""

    method: str
    variant: str
    label: str
    hyperparameters: Mapping[str, Any]
    records: dict[int, Record] = field(default_factory=dict)


class TwoResults(UsageError):
    """Two records of one seed that nothing tells apart; places: their folders, where known."""

    def __init__(self, record: Record, places: Sequence[Path] = ()) -> None:
        self.record = record
        which = f": keep {' or '.join(map(str, places))}" if places else "; leave one of them out"
        super().__init__(
            f"'{record['method']}' on '{record['task']}' has two results for seed "
            f"{record['seed']} with the same hyperparameters{which}."
        )


Groups = dict[Setting, dict[str, dict[str, Entry]]]
"""Setting → task → label → entry."""


def group_records(records: Iterable[Record], tasks: Mapping[str, TaskInfo]) -> Groups:
    """Sort records into entries.

    A label is the method's name; where two variants of a method (other hyperparameters) meet in
    one task, all of the method's labels in that setting carry the digits of their run folder.
    Raises UsageError for an unknown task, for two records of one seed, and, naming both sides,
    for records of one task whose task hash, data hash or benchmark epoch differ.
    """
    runs = list(records)
    _check_comparable(runs, tasks)
    groups: Groups = {}
    for record in runs:
        entries = groups.setdefault(_setting(record), {}).setdefault(record["task"], {})
        _add(entries, record)
    return {
        setting: _labelled(by_task)
        for setting, by_task in sorted(groups.items(), key=lambda item: item[0])
    }


def variant_notes(entries: Iterable[Entry]) -> list[str]:
    """Say, for each method with several variants, which hyperparameters tell them apart."""
    by_method: dict[str, list[Entry]] = {}
    for entry in entries:
        by_method.setdefault(entry.method, []).append(entry)
    notes = []
    for variants in by_method.values():
        differing = _differing([entry.hyperparameters for entry in variants])
        for entry in variants if len(variants) > 1 else ():
            shown = (f"{key} = {entry.hyperparameters.get(key, 'default')}" for key in differing)
            notes.append(f"{entry.label}: {', '.join(shown)}.")
    return notes


def mixture_notes(entries: Iterable[Entry]) -> list[str]:
    """Say which methods were run from two versions of their source, and if machines differ."""
    notes, machines = [], set()
    for entry in entries:
        sources = sorted({record["source_sha256"][:8] for record in entry.records.values()})
        if len(sources) > 1:
            notes.append(
                f"{entry.label} was run from {len(sources)} versions of its source "
                f"({', '.join(sources)}); run it again for one."
            )
        machines |= {str(sorted(record["hardware"].items())) for record in entry.records.values()}
    if len(machines) > 1:
        notes.append(f"Runs come from {len(machines)} kinds of machine: costs compare loosely.")
    return notes


def _setting(record: Record) -> Setting:
    # "cuda:1" is the same kind of device as "cuda:0".
    return Setting(record["split"], record["precision"], record["device"].partition(":")[0])


def _add(entries: dict[str, Entry], record: Record) -> None:
    setting = _setting(record)
    hyperparameters = record["hyperparameters"]
    variant = group_digest(hyperparameters, setting.split, setting.precision, setting.device)
    method = record["method"]
    entry = entries.setdefault(
        f"{method}-{variant}", Entry(method, variant, method, hyperparameters)
    )
    if record["seed"] in entry.records:
        raise TwoResults(record)
    entry.records[record["seed"]] = record


def _labelled(by_task: dict[str, dict[str, Entry]]) -> dict[str, dict[str, Entry]]:
    several = set()
    for entries in by_task.values():
        methods = [entry.method for entry in entries.values()]
        several |= {method for method in methods if methods.count(method) > 1}
    for entries in by_task.values():
        for long_label, entry in entries.items():
            entry.label = long_label if entry.method in several else entry.method
    return {
        task: {entry.label: entry for entry in by_task[task].values()} for task in sorted(by_task)
    }


def _differing(tables: list[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for table in tables for key in table})
    return [key for key in keys if any(t.get(key) != tables[0].get(key) for t in tables)]


def epoch(record: Record) -> str:
    """Return the comparability epoch, major.minor of the benchmark."""
    return ".".join(record["benchmark"].split(".")[:2])


def _check_comparable(records: list[Record], tasks: Mapping[str, TaskInfo]) -> None:
    if not records:
        raise UsageError("There are no results to compare; `ht-bench run --help` says how to run.")
    for record in records:
        if record["task"] not in tasks:
            hint = did_you_mean(record["task"], tasks)
            raise UsageError(
                f"A result belongs to the unknown task '{record['task']}'.{hint} "
                "Register the task or leave the result out."
            )
    _check_same(records, "benchmark epochs", epoch)
    by_task: dict[str, list[Record]] = {}
    for record in records:
        by_task.setdefault(record["task"], []).append(record)
    for name, members in sorted(by_task.items()):
        _check_same(members, "task hashes", lambda record: record["task_sha256"][:12])
        _check_same(members, "data hashes", lambda record: record["data_sha256"][:12])
        sha256 = tasks[name].sha256
        if sha256 and members[0]["task_sha256"] != sha256:
            raise UsageError(
                f"The results of '{name}' have task hash {members[0]['task_sha256'][:12]}, the "
                f"task's file has {sha256[:12]}; run them again, or restore the file."
            )


def _check_same(records: list[Record], what: str, key: Callable[[Record], str]) -> None:
    first = records[0]
    for record in records:
        if key(record) != key(first):
            raise UsageError(
                f"Results of two {what} do not compare: {describe(first)} has {key(first)}, "
                f"{describe(record)} has {key(record)}; run the older one again or leave it out."
            )


def task_infos(out: Path, records: Sequence[Record]) -> dict[str, TaskInfo]:
    """Return what a comparison needs to know of every task among the records."""
    infos: dict[str, TaskInfo] = {}
    for record in records:
        name = record["task"]
        if name not in infos:
            task = read_spec(out, name)
            random = record["reference"]["random"] if "reference" in record else None
            infos[name] = TaskInfo(
                name, task.family, record["classes"], task.seeds, task.sha256, random
            )
    return infos


@dataclass(frozen=True)
class RunsFolder:
    """What lies below a folder: entries by setting, task and label; tasks; records.

    notes: a sentence per task of which results were left out, per epoch of those of another, and
    per unreadable result.
    """

    groups: Groups
    infos: Mapping[str, TaskInfo]
    records: Sequence[Record]
    notes: tuple[str, ...]


def read_groups(out: Path, *, scored: bool = False) -> RunsFolder:
    """Read everything below `out`; scored: only the curves that scores are read off.

    Left out with a note: results of another epoch than this version's, or than the newest where
    there are none of this one; results of an earlier version of their task's file, as of a draft
    that was edited; unreadable ones. Raises UsageError where nothing is left, and as
    `group_records` does.
    """
    everything, unreadable = read_runs(out, scored=scored)
    found, others = _of_one_epoch(everything)
    infos = task_infos(out, found)
    records = [r for r in found if r["task_sha256"] == infos[r["task"]].sha256]
    notes = [*unreadable, *others, *_stale_notes(found, records)]
    if not records:
        raise UsageError(" ".join(notes))
    present = {record["task"] for record in records}
    infos = {name: info for name, info in infos.items() if name in present}
    try:
        groups = group_records(records, infos)
    except TwoResults as error:
        raise TwoResults(error.record, _places(out, error.record)) from error
    return RunsFolder(groups, infos, records, tuple(notes))


def _places(out: Path, record: Record) -> list[Path]:
    """Return the folders of the results that are the record's, but for what was measured."""
    same = ("task", "method", "seed", "hyperparameters", "task_sha256", "benchmark")
    found = find_runs(out, record["seed"])
    return [
        file.parent
        for file, other in found
        if _setting(other) == _setting(record) and all(other[k] == record[k] for k in same)
    ]


def _of_one_epoch(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Return the records that may share a table, and a sentence per epoch left out."""
    counts = Counter(map(epoch, records))
    own = EPOCH if EPOCH in counts else max(counts, key=epoch_order)
    notes = [
        f"{counts[other]} result(s) of ht-bench {other} are left out: the others are of {own}, and "
        "numbers of the two do not compare; run them again, or compare them in a folder of their "
        "own."
        for other in sorted(counts, key=epoch_order)
        if other != own
    ]
    return [record for record in records if epoch(record) == own], notes


def _stale_notes(found: Sequence[Record], kept: Sequence[Record]) -> Iterator[str]:
    counts = Counter(record["task"] for record in found)
    counts.subtract(record["task"] for record in kept)
    for name, count in sorted(counts.items()):
        if count:
            yield (
                f"{count} result(s) on '{name}' are left out: they are of another version of the "
                "task's file; run them again, or restore the file."
            )
