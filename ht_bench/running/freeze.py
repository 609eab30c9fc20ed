"""Freezing a suite: its tasks with the anchors' final metrics per seed, once, at release."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.ranking.admission import admission, least_gap
from ht_bench.ranking.entries import Entry, Groups, epoch, read_groups
from ht_bench.records.metrics import final_metric
from ht_bench.streams.catalog import get_task
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.spec import Spec
from ht_bench.streams.suite import Anchors
from ht_bench.version import EPOCH

ANCHORS = ("none", "full-reset")
_LIBRARIES = ("ht_bench", "torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib")
"""Software that anchors name, those of agents where they were used."""


def freeze(runs: Path, name: str, title: str, tasks: Sequence[str], folder: Path) -> Path:
    """Write `folder`/<name>.toml from the anchors' runs below `runs`; returns its path.

    Anchors are of the task's own precision. Every task must pass admission (PROTOCOL: anchors and
    score) on all of its evaluation seeds. Raises UsageError for a missing run, a task that does
    not pass, or a suite that exists: a released suite never changes.

    tasks: names, or TOML files, which the suite's file then names by their path from beside it.
    """
    path = folder.expanduser() / f"{name}.toml"
    if path.exists():
        raise UsageError(f"{path} exists and a released suite never changes; give a new name.")
    found = read_groups(runs, scored=True)
    if (own := epoch(found.records[0])) != EPOCH:
        raise UsageError(
            f"The runs below {runs} are of ht-bench {own}, this is {EPOCH}; run again."
        )
    groups, infos = found.groups, found.infos
    blocks = []
    for task in map(get_task, tasks):
        if task.status == "draft":
            raise UsageError(
                f'{task.name} is a draft, which may still change; take status = "draft" out of '
                "its file first."
            )
        entries = _entries(groups, task, runs)
        anchors = _anchors(task, entries, infos[task.name].classes if entries else 0)
        _admit(task, anchors, infos[task.name].random)
        blocks.append(_block(task.name, anchors))
    members = [_beside(task, folder) for task in tasks]
    head = {"name": name, "title": title, "benchmark": EPOCH, "tasks": members}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in head.items())
    write_atomically(path, text + "\n" + "\n".join(blocks))
    return path


def _beside(task: str, folder: Path) -> str:
    """Return how the suite's file names a task: a file by its path from there."""
    if not task.endswith(".toml"):
        return task
    return Path(os.path.relpath(Path(task).expanduser().resolve(), folder.resolve())).as_posix()


def _entries(groups: Groups, task: Spec, runs: Path) -> dict[str, Entry]:
    """Return the task's runs on the test split in its own precision, by method.

    Raises UsageError where there are such runs of several devices.
    """
    found = {
        setting: by_task[task.name]
        for setting, by_task in groups.items()
        if task.name in by_task
        and setting.split == "test"
        and setting.precision == task.precision_on(setting.device)
    }
    if len(found) > 1:
        raise UsageError(
            f"{runs} holds runs of {task.name} on several devices ({'; '.join(map(str, found))}), "
            "of which anchors may have one; keep the others in a folder of their own."
        )
    return next(iter(found.values()), {})


def _anchors(task: Spec, entries: dict[str, Entry], classes: int) -> Anchors:
    finals: dict[str, list[float]] = {}
    for method in ANCHORS:
        records = entries[method].records if method in entries else {}
        missing = [seed for seed in task.seeds if seed not in records]
        if missing:
            raise UsageError(
                f"'{method}' lacks seeds {format_seeds(missing)} on {task.name}; run it first: "
                f"ht-bench run --task {task.name} --method {method}."
            )
        finals[method] = [final_metric(records[s], task.family, classes) for s in task.seeds]
    first = entries["none"].records[task.seeds[0]]
    return Anchors(
        task_sha256=task.sha256,
        data_sha256=first["data_sha256"],
        seeds=format_seeds(task.seeds),
        none=tuple(finals["none"]),
        full_reset=tuple(finals["full-reset"]),
        precision=first["precision"],
        device=first["device"].partition(":")[0],
        software={key: first["software"][key] for key in _LIBRARIES if key in first["software"]},
    )


def _admit(task: Spec, anchors: Anchors, random: float | None) -> None:
    minimum = least_gap(anchors.full_reset, random)
    verdict = admission(anchors.none, anchors.full_reset, minimum)
    if not verdict.passes:
        gap = verdict.gap
        raise UsageError(
            f"{task.name} does not pass admission: full-reset over none is {gap.value:.4f} "
            f"[{gap.low:.4f}, {gap.high:.4f}]; leave it out of the suite."
        )


def _block(task: str, anchors: Anchors) -> str:
    lines = [f"[anchors.{task}]"]
    for key in ("task_sha256", "data_sha256", "seeds", "none", "full_reset"):
        value: Any = getattr(anchors, key)
        rounded = [round(v, 10) for v in value] if isinstance(value, tuple) else value
        lines.append(f"{key} = {json.dumps(rounded)}")
    if anchors.setting != "fp32 on cpu":
        lines += [f"{key} = {json.dumps(getattr(anchors, key))}" for key in ("precision", "device")]
    software = ", ".join(f"{k} = {json.dumps(v)}" for k, v in anchors.software.items())
    return "\n".join([*lines, f"software = {{ {software} }}"]) + "\n"
