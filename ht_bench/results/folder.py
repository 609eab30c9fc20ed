"""A runs folder as a whole: its specs and records, read for a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.results.entries import Groups, TaskInfo, group_records
from ht_bench.results.record import Record, read_runs
from ht_bench.results.table import Comparison, compare
from ht_bench.streams.catalog import get_task
from ht_bench.streams.spec import Spec
from ht_bench.streams.suite import get_suite, suite_files
from ht_bench.streams.task import parse_task


def write_spec(out: Path, task: Spec) -> None:
    """Keep the task's spec beside its runs, so that they can be read without the task's file."""
    path = out / task.name / "task.json"
    text = json.dumps(task.canonical(), indent=1, sort_keys=True) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def read_spec(out: Path, name: str) -> Spec:
    """Return the task whose runs lie below `out`; its shipped file serves where no spec is kept."""
    path = out / name / "task.json"
    if not path.is_file():
        return get_task(name)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error}); delete it and run again.") from error
    return parse_task(table, str(path))


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


def read_groups(out: Path) -> tuple[Groups, dict[str, TaskInfo], list[Record]]:
    """Read everything below `out`: entries by setting, task and label; tasks; records."""
    records = read_runs(out)
    infos = task_infos(out, records)
    return group_records(records, infos), infos, records


def compare_folder(out: Path, suite: str = "") -> tuple[Comparison, Groups, dict[str, TaskInfo]]:
    """Compare everything below `out`; returns the comparison and what it was made from.

    suite: score that suite alone. Otherwise every shipped suite that has runs, or, without any,
    the mean over the tasks that pass admission.
    """
    groups, infos, records = read_groups(out)
    suites = {name: get_suite(name).tasks for name in ([suite] if suite else suite_files())}
    several = {name: tasks for name, tasks in suites.items() if suite or set(tasks) <= set(infos)}
    chosen = {name: tasks for name, tasks in several.items() if len(tasks) > 1 or suite}
    return compare(records, infos, suites=chosen or None), groups, infos
