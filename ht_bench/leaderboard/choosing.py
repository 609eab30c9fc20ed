"""Which finished runs a submission takes; incomplete or mixed ones are refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError, did_you_mean
from ht_bench.methods.recipe import get_recipe, split_regime
from ht_bench.ranking.entries import Entry, Groups, Setting, TaskInfo
from ht_bench.records.metrics import Record
from ht_bench.streams.catalog import get_task, task_names
from ht_bench.streams.families import get_family
from ht_bench.streams.seeds import format_seeds

SAME = (
    *("source_sha256", "hyperparameters", "classes", "stack"),
    *("extra_parameters", "software", "hardware"),
)
"""What all runs of one task in a submission share."""


@dataclass(frozen=True)
class Choice:
    """Which runs: a method's name, tasks (empty: all it was run on), run folders' digits.

    named: the method as `ht-bench run` was given it, "file.py:Class" ("": its name). defaults:
    the hyperparameters that its class has where nobody names others. source: the digest of that
    file's code ("": any). files: of tasks of a user's own, by their names.
    """

    method: str
    tasks: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    named: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def choose_runs(groups: Groups, choice: Choice, runs: Path) -> tuple[Setting, dict[str, Entry]]:
    """Return the one setting of the method's test-split runs and, per task, its entry.

    Raises UsageError where there is none, or several, or a task that was asked for is lacking.
    """
    for task in choice.tasks:
        _check_task(task)
    settings: dict[Setting, dict[str, Entry]] = {}
    for setting, by_task in groups.items():
        for task, entries in by_task.items() if setting.split == "test" else ():
            entry = _variant(entries, task, choice)
            if entry is not None:
                settings.setdefault(setting, {})[task] = entry
    if not settings:
        raise UsageError(_nothing(groups, choice, runs))
    if len(settings) > 1:
        raise UsageError(
            f"'{choice.method}' was run in {len(settings)} settings "
            f"({'; '.join(map(str, settings))}); a submission holds one: keep the others in a "
            "folder of their own."
        )
    [(setting, entries)] = settings.items()
    if lacking := [task for task in choice.tasks if task not in entries]:
        raise UsageError(_lacking(lacking, choice, runs, setting))
    return setting, {task: entries[task] for task in choice.tasks or entries}


def _lacking(tasks: Sequence[str], choice: Choice, runs: Path, setting: Setting) -> str:
    return (
        f"'{choice.method}' has no test-split runs on {', '.join(tasks)} below {runs}; make them: "
        f"`{_command(choice, ','.join(tasks), runs, setting)}`."
    )


def _nothing(groups: Groups, choice: Choice, runs: Path) -> str:
    """Say which runs are there where none is a test-split run of the method, on the tasks named."""
    tasks: dict[Setting, list[str]] = {}
    tested = set()
    for setting, by_task in groups.items():
        for task, entries in by_task.items():
            methods = {entry.method for entry in entries.values()}
            tested |= methods if setting.split == "test" else set()
            if choice.method in methods:
                tasks.setdefault(setting, []).append(task)
    for setting in tasks:
        if setting.split == "test":
            return _lacking(choice.tasks, choice, runs, setting)
    for setting, names in tasks.items():
        names = list(choice.tasks or names)
        known = set(names) <= set(task_names())
        command = _command(choice, ",".join(names), runs, setting) if known else "ht-bench run …"
        return (
            f"The runs of '{choice.method}' below {runs} are of the {setting.split} split, and a "
            f"submission is made of the test split's; make those, without --split: `{command}`."
        )
    found = f"It has: {', '.join(sorted(tested))}" if tested else "It has none of any method"
    return (
        f"{runs} holds no test-split runs of '{choice.method}'."
        f"{did_you_mean(choice.method, tested)} {found}."
    )


def _check_task(name: str) -> None:
    if name not in task_names():
        raise UsageError(
            f"{name} is no task of this benchmark: name its file with --task FILE.toml, or the "
            f"others alone.{did_you_mean(name, task_names())}"
        )


def _variant(entries: Mapping[str, Entry], task: str, choice: Choice) -> Entry | None:
    """Return the task's runs of the method; with several variants, the one that was named."""
    if choice.tasks and task not in choice.tasks:
        return None
    own = [entry for entry in entries.values() if entry.method == choice.method]
    asked = len(own) > 1 or bool(own and choice.variants)
    named = [entry for entry in own if entry.variant in choice.variants] if asked else own
    if asked and len(named) != 1:
        raise UsageError(
            f"'{choice.method}' has {len(own)} set(s) of hyperparameters on {task} "
            f"({', '.join(sorted(entry.variant for entry in own))}, the ends of its run folders' "
            "names); choose one with --variant."
        )
    return named[0] if named else None


def check_complete(
    entry: Entry, info: TaskInfo, setting: Setting, choice: Choice, runs: Path
) -> Record:
    """Return the entry's first record; raises UsageError unless all of it is there and alike."""
    _check_task(info.name)
    if missing := [seed for seed in info.seeds if seed not in entry.records]:
        command = _command(choice, info.name, runs, setting, (entry, info))
        raise UsageError(
            f"'{entry.method}' lacks seeds {format_seeds(missing)} of {info.name}; make them: "
            f"`{command}`."
        )
    records = [entry.records[seed] for seed in info.seeds]
    for key in SAME:
        values = {json.dumps(record[key], sort_keys=True) for record in records}
        if len(values) > 1:
            raise UsageError(
                f"The seeds of '{entry.method}' on {info.name} differ in {key}: "
                f"{' and '.join(sorted(values)[:2])}; delete {runs}/{info.name}/{entry.method}-… "
                "and run all of its seeds on one machine with one version."
            )
    if len({json.dumps([r["curve"]["phase"], r["curve"]["step"]]) for r in records}) > 1:
        raise UsageError(f"The curves of {info.name} have points at different steps; run it again.")
    return records[0]


def _command(
    choice: Choice,
    tasks: str,
    runs: Path,
    setting: Setting,
    like: tuple[Entry, TaskInfo] | None = None,
) -> str:
    """Return the command that makes runs that a submission lacks, as a shell reads it.

    like: what else was run on the task, whose hyperparameters and threads are to be repeated.
    """
    files = ",".join(choice.files.get(name, name) for name in tasks.split(","))
    words = ["ht-bench", "run", "--task", files, "--method", choice.named or choice.method]
    if like is not None:
        words += _changes(*like, choice)
    usual = {get_task(name).precision_on(setting.device) for name in tasks.split(",")}
    if usual != {setting.precision}:
        words += ["--precision", setting.precision]
    return shlex.join([*words, "--device", setting.device, "--out", str(runs)])


def _changes(entry: Entry, info: TaskInfo, choice: Choice) -> list[str]:
    """Return the --set and --threads that the entry's runs were given."""
    recipe = get_recipe(choice.named if choice.named.endswith(".toml") else entry.method)
    agent, regime = get_family(info.family).is_control, split_regime(entry.method)[1]
    usual = recipe.hyperparameters(info.name, agent, regime) if recipe else {}
    usual = {**choice.defaults, **usual}
    changes = [
        f"{key}={_value(value)}"
        for key, value in entry.hyperparameters.items()
        if key not in usual or usual[key] != value
    ]
    threads = max((r["software"].get("threads", 1) for r in entry.records.values()), default=1)
    words = ["--set", *changes] if changes else []
    return [*words, "--threads", str(threads)] if threads != 1 else words


def _value(value: Any) -> str:
    """Write a hyperparameter as --set reads it: JSON, or text that is no JSON."""
    try:
        json.loads(str(value))
    except ValueError:
        return value if isinstance(value, str) else json.dumps(value)
    return json.dumps(value)
