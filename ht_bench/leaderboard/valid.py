"""Level *valid*: the schema, known tasks, hashes, all evaluation seeds, grids, numbers in range."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ht_bench.errors import did_you_mean
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.reading import (
    MOST_FAULTS,
    MOST_LISTED,
    Fault,
    Place,
    Refused,
    Submission,
    count_values,
    json_path,
    parse_untrusted,
    read_bounded,
    schema_faults,
    shown,
)
from ht_bench.records.metrics import metric_key
from ht_bench.streams.catalog import task_names
from ht_bench.streams.points import without_starts
from ht_bench.streams.seeds import format_seeds
from ht_bench.version import EPOCH, epoch_order


def read_submission(
    path: Path, history: Container[str] = ()
) -> tuple[Submission | None, list[Fault]]:
    """Return (the submission, no faults) or (None, why it is not valid).

    history: digests of committed files, which may be of an earlier epoch than this one.
    Raises UsageError where the file cannot be read at all.
    """
    try:
        data = read_bounded(path)
    except Refused as error:
        return None, [Fault("$", str(error))]
    return check_bytes(data, path, history)


def check_bytes(
    data: bytes, path: Path, history: Container[str] = ()
) -> tuple[Submission | None, list[Fault]]:
    """Do the same for what a file at `path` holds, or will hold."""
    try:
        content = parse_untrusted(data, path)
    except Refused as error:
        return None, [Fault("$", str(error))]
    faults = schema_faults(content, MOST_FAULTS if count_values(data) <= MOST_LISTED else 1)
    sha256 = hashlib.sha256(data).hexdigest()
    if not faults:
        found = _faults(content, path, committed=sha256 in history)
        faults = [*itertools.islice(found, MOST_FAULTS)]
    return (None, faults) if faults else (Submission(content, sha256), [])


def _faults(content: Mapping[str, Any], path: Path, *, committed: bool) -> Iterator[Fault]:
    if content["name"] != path.stem:
        yield Fault("$.name", f"is {content['name']}, but the file is {shown(path.name)}.")
    if sentence := _other_epoch(content["benchmark"], committed=committed):
        yield Fault("$.benchmark", sentence)
    for name, table in content["tasks"].items():
        known = find_known(name)
        place = ("tasks", name)
        if isinstance(known, str):
            hint = did_you_mean(name, task_names()) if "no task" in known else ""
            yield Fault(json_path(place), f"{known}.{hint}")
            continue
        own = known.task.precision_on(content["device"].partition(":")[0])
        if content["precision"] != own:
            yield Fault(
                "$.precision",
                f"is {content['precision']}, and {name} is of {own}; run it without --precision.",
            )
        yield from _task_faults(table, known, place)


def _other_epoch(benchmark: str, *, committed: bool) -> str:
    """Say why a file of this epoch is not valid here; "" if it is."""
    differ = f"is {benchmark}, this is {EPOCH}, and scores compare only within one"
    if epoch_order(benchmark) > epoch_order(EPOCH):
        return f"{differ}: check it with ht-bench {benchmark}."
    if benchmark == EPOCH or committed:
        return ""
    return (
        f"{differ}: make the runs with this version and submit them again (of an earlier version "
        "only committed files stay valid, those of which verified.json holds the digest)."
    )


def _task_faults(table: Mapping[str, Any], known: KnownTask, place: Place) -> Iterator[Fault]:
    task = known.task
    expected = {
        "task_sha256": task.sha256,
        "data_sha256": known.data_sha256,
        "stack": task.stack,
        "classes": known.classes,
    }
    for key, value in expected.items():
        if value is not None and table[key] != value:
            yield Fault(json_path((*place, key)), f"is {table[key]!r}, the task has {value!r}.")
    seeds = sorted(map(int, table["seeds"]))
    missing = sorted(set(task.seeds) - set(seeds))
    foreign = sorted(set(seeds) - set(task.seeds))
    if missing:
        yield Fault(json_path((*place, "seeds")), f"lacks seeds {format_seeds(missing)}.")
    if foreign:
        yield Fault(
            json_path((*place, "seeds")),
            f"holds seeds {format_seeds(foreign)}, which are not evaluation seeds of the task.",
        )
    yield from _grid_faults(table["grid"], known, place)
    for seed, run in table["seeds"].items():
        yield from _run_faults(run, table["grid"], known, (*place, "seeds", seed))


def _grid_faults(grid: Mapping[str, Any], known: KnownTask, place: Place) -> Iterator[Fault]:
    where = json_path((*place, "grid"))
    phases, steps = grid["phase"], grid["step"]
    if len(phases) != len(steps):
        yield Fault(where, f"has {len(phases)} phases for {len(steps)} steps.")
    elif known.grid is None:
        yield from _shape_faults(phases, steps, len(known.task.phases), where)
    elif (phases, steps) not in (known.grid, without_starts(*known.grid)):
        yield Fault(
            where,
            f"is not the task's: {len(known.grid[0])} points over {known.grid[0][-1] + 1} phases "
            f"and {known.grid[1][-1]} steps.",
        )


def _shape_faults(
    phases: Sequence[int], steps: Sequence[int], count: int, where: str
) -> Iterator[Fault]:
    """What can be asked of a grid without the data that decide its steps."""
    if sorted(set(phases)) != [*range(count)] or sorted(phases) != phases:
        yield Fault(where, f"does not go through the task's {count} phases.")
        return
    moves = itertools.pairwise(zip(phases, steps, strict=True))
    if steps[0] != 0 or any(
        after < before or (after == before and same == phase)
        for (phase, before), (same, after) in moves
    ):
        yield Fault(where, "has steps that do not rise from 0.")


def _run_faults(
    run: Mapping[str, Any], grid: Mapping[str, Any], known: KnownTask, place: Place
) -> Iterator[Fault]:
    key = metric_key(known.task.family)
    allowed = {"eval/return"} if known.is_control else {"test/accuracy", key}
    for name in sorted(allowed - run["curve"].keys()):
        yield Fault(json_path((*place, "curve")), f"lacks {name}, which the task asks for.")
    for name, values in run["curve"].items():
        where = json_path((*place, "curve", name))
        if name not in allowed:
            yield Fault(where, "is not asked for by the task; leave it out.")
        elif len(values) != len(grid["step"]):
            yield Fault(where, f"has {len(values)} points, the grid {len(grid['step'])}.")
        else:
            yield from _value_faults(values, run["status"], known.is_control, where)
    limit = grid["step"][-1]
    if not known.is_control and run["steps"] > limit:
        yield Fault(json_path((*place, "steps")), f"is {run['steps']}, the task allows {limit}.")
    yield from _retention_faults(run, known, place)


def _value_faults(
    values: Sequence[float | None], status: str, control: bool, where: str
) -> Iterator[Fault]:
    present = [value for value in values if value is not None]
    if not control and any(not 0 <= value <= 1 for value in present):
        yield Fault(where, "has an accuracy outside 0 to 1.")
    gaps = [index for index, value in enumerate(values) if value is None]
    if not gaps:
        return
    if status == "finished" or not control or gaps[0] == 0:
        yield Fault(where, f"has no number at point {gaps[0]}.")
    elif gaps != list(range(gaps[0], len(values))):
        yield Fault(where, "has numbers after the run diverged.")


def _retention_faults(run: Mapping[str, Any], known: KnownTask, place: Place) -> Iterator[Fault]:
    where, phases = json_path((*place, "retention")), len(known.task.phases)
    retention: Sequence[float] | None = run["retention"]
    if (retention is not None) != known.retains(run["status"]):
        said = (
            "null, the task asks for it."
            if retention is None
            else ("given, the task does not ask for it; write null.")
        )
        yield Fault(where, f"is {said}")
    elif retention is None:
        return
    elif len(retention) != phases:
        yield Fault(where, f"has {len(retention)} values for {phases} phases.")
    elif not known.is_control and any(not 0 <= value <= 1 for value in retention):
        yield Fault(where, "has an accuracy outside 0 to 1.")
