"""Level *valid*: the schema, known tasks, hashes, all evaluation seeds, grids, numbers in range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.schema import MOST_FAULTS, Fault, json_path, schema_faults
from ht_bench.leaderboard.submission import Submission, file_sha256
from ht_bench.leaderboard.untrusted import Refused, read_untrusted, shown
from ht_bench.results.metrics import metric_key
from ht_bench.streams.seeds import format_seeds
from ht_bench.suggestions import did_you_mean
from ht_bench.version import EPOCH


def read_submission(path: Path) -> tuple[Submission | None, list[Fault]]:
    """Return (the submission, no faults) or (None, why it is not valid).

    Raises UsageError where the file cannot be read at all.
    """
    try:
        content = read_untrusted(path)
    except Refused as error:
        return None, [Fault("$", str(error))]
    faults = schema_faults(content)
    if not faults:
        faults = [*_first(_faults(content, path))]
    return (None, faults) if faults else (Submission(content, file_sha256(path)), [])


def _first(found: Iterator[Fault]) -> Iterator[Fault]:
    for _, fault in zip(range(MOST_FAULTS), found, strict=False):
        yield fault


def _faults(content: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    if content["name"] != path.stem:
        yield Fault("$.name", f"is {content['name']}, but the file is {shown(path.name)}.")
    if content["benchmark"] != EPOCH:
        yield Fault(
            "$.benchmark",
            f"is {content['benchmark']}, this is {EPOCH}; scores compare only within one.",
        )
    for name, table in content["tasks"].items():
        known = find_known(name)
        place = ("tasks", name)
        if isinstance(known, str):
            hint = did_you_mean(name, _names()) if "no task" in known else ""
            yield Fault(json_path(place), f"{known}.{hint}")
            continue
        yield from _task_faults(table, known, place)


def _names() -> list[str]:
    from ht_bench.streams.catalog import task_names

    return task_names()


Place = tuple[str | int, ...]


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
    elif known.grid is not None and (phases, steps) != known.grid:
        yield Fault(
            where,
            f"is not the task's: {len(known.grid[0])} points over {known.grid[0][-1] + 1} phases "
            f"and {known.grid[1][-1]} steps.",
        )
    elif phases[-1] + 1 != len(known.task.phases):
        yield Fault(where, f"has {phases[-1] + 1} phases, the task {len(known.task.phases)}.")


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
    yield from _retention_faults(run["retention"], known, place)


def _value_faults(
    values: Sequence[float | None], status: str, control: bool, where: str
) -> Iterator[Fault]:
    present = [value for value in values if value is not None]
    if not control and any(not 0 <= value <= 1 for value in present):
        yield Fault(where, "has an accuracy outside 0 to 1.")
    if any(abs(value) > 1e12 for value in present):
        yield Fault(where, "has a return beyond a million millions.")
    gaps = [index for index, value in enumerate(values) if value is None]
    if not gaps:
        return
    if status == "finished" or not control:
        yield Fault(where, f"has no number at point {gaps[0]}.")
    elif gaps != list(range(gaps[0], len(values))):
        yield Fault(where, "has numbers after the run diverged.")


def _retention_faults(
    retention: Sequence[float] | None, known: KnownTask, place: Place
) -> Iterator[Fault]:
    if retention is None:
        return
    where, phases = json_path((*place, "retention")), len(known.task.phases)
    if len(retention) != phases:
        yield Fault(where, f"has {len(retention)} values for {phases} phases.")
    elif not known.is_control and any(not 0 <= value <= 1 for value in retention):
        yield Fault(where, "has an accuracy outside 0 to 1.")
    elif any(abs(value) > 1e12 for value in retention):
        yield Fault(where, "has a return beyond a million millions.")
