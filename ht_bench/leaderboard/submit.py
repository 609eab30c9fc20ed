"""Finished runs → a submission file, checked before it is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.leaderboard.choosing import SAME, Choice, check_complete, choose_runs
from ht_bench.leaderboard.extend import read_entry, with_entry
from ht_bench.leaderboard.reading import CURVES, SCHEMA, parse_untrusted, read_bounded
from ht_bench.leaderboard.valid import check_bytes
from ht_bench.methods.recipe import get_recipe, split_regime
from ht_bench.ranking.entries import Entry, TaskInfo, read_groups
from ht_bench.ranking.pairs import NONE
from ht_bench.records.metrics import Record, metric_key


@dataclass(frozen=True)
class About:
    """What the runs do not say: who submits, and how the hyperparameters were chosen.

    how, runs: how they were chosen and the training runs that took; "" and None take the search
    of the method's recipe. summary, citation: "" takes the recipe's. traits: "needs_boundaries"
    and "network" of the method's class, where the records do not tell. recipe: the recipe's file,
    where it is not the one known by the method's name.
    """

    name: str
    authors: tuple[str, ...]
    link: str
    summary: str = ""
    citation: str = ""
    how: str = ""
    runs: int | None = None
    traits: Mapping[str, Any] | None = None
    recipe: str = ""


def make_submission(
    runs: Path, choice: Choice, about: About, extended: Path | None = None
) -> dict[str, Any]:
    """Return the content of a submission file from the runs below `runs`.

    extended: an entry of the same method, whose other tasks are kept. What `about` leaves out and
    no recipe says is then the entry's.

    Raises UsageError, saying what is missing and the command that makes it, when a task lacks
    evaluation seeds, when runs of two settings, sources or versions mix, or when nothing is there.
    """
    entry = read_entry(extended) if extended else None
    about = _completed(about, entry) if entry else about
    found = read_groups(runs, scored=True)
    for note in found.notes:
        print(note, file=sys.stderr)
    groups, infos = found.groups, found.infos
    setting, entries = choose_runs(groups, choice, runs)
    tables, sources, traits = {}, set(), []
    for task, group in entries.items():
        first = check_complete(group, infos[task], setting, choice, runs)
        sources.add(first["source_sha256"])
        traits.append(first.get("traits"))
        none = groups[setting][task].get(NONE)
        tables[task] = _task_table(group, infos[task], none)
    _check_sources(sources, choice, runs, list(entries))
    content = {
        "schema": SCHEMA,
        "benchmark": first["benchmark"],
        "name": about.name,
        "authors": list(about.authors),
        "link": about.link,
        "method": _method(choice.method, about, sources.pop(), traits),
        "tuning": {},
        "split": setting.split,
        "precision": setting.precision,
        "device": setting.device,
        "tasks": tables,
    }
    if entry and extended:
        content["tasks"] = with_entry(entry, content, extended)
    content["tuning"] = _tuning(choice.method, about, tuple(content["tasks"]))
    return content


def _check_sources(sources: set[str], choice: Choice, runs: Path, tasks: Sequence[str]) -> None:
    """Raise UsageError unless all runs are of one version of the method, its file's if named."""
    if len(sources) > 1:
        raise UsageError(
            f"'{choice.method}' was run from {len(sources)} versions of its source; run "
            f"{', '.join(tasks)} again with one version, or name fewer tasks with --task."
        )
    if choice.source and sources != {choice.source}:
        raise UsageError(
            f"The runs of '{choice.method}' below {runs} were made by other code than "
            f"{choice.named} holds now; run them again, or put that code back."
        )


def _completed(about: About, entry: Mapping[str, Any]) -> About:
    """Fill in from an entry what neither its author nor a recipe says."""
    method, tuning = entry["method"], entry["tuning"]
    recipe = get_recipe(about.recipe or method["name"])
    return replace(
        about,
        authors=about.authors or tuple(entry["authors"]),
        link=about.link or entry["link"],
        summary=about.summary or method["summary"],
        citation=about.citation or method["citation"],
        how=about.how or ("" if recipe else tuning["how"]),
        runs=tuning["runs"] if about.runs is None and not recipe else about.runs,
    )


def write_submission(path: Path, content: Mapping[str, Any]) -> None:
    """Write a submission file: a line per curve, so that a reader and a diff can follow it.

    Raises UsageError, and writes nothing, for what `ht-bench verify` would not call valid, and
    where an entry of another epoch stands.
    """
    text = _lines(content, 0) + "\n"
    _, faults = check_bytes(text.encode(errors="surrogatepass"), path)
    for fault in faults:
        raise UsageError(f"This cannot be submitted: {fault}")
    _check_history(path, content)
    write_atomically(path, text)


def _check_history(path: Path, content: Mapping[str, Any]) -> None:
    """Raise UsageError rather than write over an entry of another epoch, whose board is kept."""
    if not path.is_file():
        return
    try:
        epoch = dict(parse_untrusted(read_bounded(path), path)).get("benchmark")
    except (UsageError, TypeError, ValueError):  # no submission: nothing to keep
        return
    if isinstance(epoch, str) and epoch != content["benchmark"]:
        place = path.parent / epoch / path.name
        raise UsageError(
            f"{path} is an entry of {epoch}, whose board is kept; move it first: "
            f"`mkdir -p {place.parent} && git mv {path} {place}`."
        )


def _task_table(entry: Entry, info: TaskInfo, none: Entry | None) -> dict[str, Any]:
    records = [entry.records[seed] for seed in info.seeds]
    first = records[0]
    return {
        "task_sha256": first["task_sha256"],
        "data_sha256": first["data_sha256"],
        **{key: first[key] for key in SAME if key != "source_sha256"},
        "none_cost": _mean_cost(none, info, first),
        "grid": {key: first["curve"][key] for key in ("phase", "step")},
        "seeds": {str(record["seed"]): _seed_table(record, info.family) for record in records},
    }


def _seed_table(record: Record, family: str) -> dict[str, Any]:
    unasked = {"train/accuracy"} - {metric_key(family)}
    return {
        "status": record["status"],
        "steps": record["steps"],
        "seconds": round(record["cost"]["seconds"], 3),
        "peak_memory_bytes": record["cost"]["peak_memory_bytes"],
        "retention": record["retention"],
        "curve": {k: record["curve"][k] for k in CURVES if k in record["curve"].keys() - unasked},
    }


def _mean_cost(none: Entry | None, info: TaskInfo, own: Record) -> dict[str, Any] | None:
    """Return what a run of `none` costs on the machine of these runs; None if it is not there."""
    records = [none.records[s] for s in info.seeds if s in none.records] if none else []
    costs = [record["cost"] for record in records if record["hardware"] == own["hardware"]]
    if not costs:
        return None
    seconds, memory = (
        float(np.mean([cost[key] for cost in costs])) for key in ("seconds", "peak_memory_bytes")
    )
    return {"seconds": round(seconds, 3), "peak_memory_bytes": int(memory)}


def _method(name: str, about: About, source: str, traits: Sequence[Any]) -> dict[str, Any]:
    own = about.traits or next((table for table in traits if table), None)
    if own is None:
        raise UsageError(
            f"The runs of '{name}' do not say what the method is (an older version made them); "
            f"name its class, --method file.py:ClassName, or run it again."
        )
    recipe = get_recipe(about.recipe or name)
    summary = about.summary or (recipe.summary if recipe else "")
    if not summary:
        raise UsageError(f"Say in a sentence what '{name}' does: --summary \"…\".")
    return {
        "name": name,
        "summary": summary,
        "citation": about.citation or (recipe.source if recipe else ""),
        "source_sha256": source,
        "needs_boundaries": own["needs_boundaries"],
        "network": dict(own["network"]),
    }


def _tuning(name: str, about: About, tasks: tuple[str, ...]) -> dict[str, Any]:
    recipe = get_recipe(about.recipe or name)
    how, runs = recipe.searched(tasks, split_regime(name)[1]) if recipe else ("", None)
    how, runs = about.how or how, runs if about.runs is None else about.runs
    if not how or runs is None:
        raise UsageError(
            f"Say how the hyperparameters of '{name}' were chosen: --tuning \"…\" "
            "--tuning-runs N (0 for none)."
        )
    return {"how": how, "runs": runs}


def _lines(value: Any, depth: int) -> str:
    nested = isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values())
    if not nested:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    pad = " " * (depth + 1)
    items = (f"{pad}{json.dumps(key)}: {_lines(item, depth + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(items) + "\n" + " " * depth + "}"
