"""What a search writes into a recipe, beside what stands there by hand."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import folder, write_atomically
from ht_bench.local_code import is_installed
from ht_bench.methods.recipe import Recipe
from ht_bench.running.tune import Search, Trial
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.tables import read_table, read_toml

OUT = Path("runs-tuning")
MARKER = "# ---- Below: written by `ht-bench tune --write`. ----\n"
TABLES = {"whole": ("tasks", "search"), "first": ("first", "search_first")}
"""Regime → the recipe's tables of chosen values and of searches."""


def recipe_file(method: str, out: Path) -> tuple[Path, Path]:
    """Return the recipe to read for a method, and the file to write.

    A recipe that was named by its file is written itself; so are those of baselines/ in a checkout.
    An installed package's stay as they are: `out`/recipes/<method>.toml is read, where it is there
    already, and written.
    """
    if method.endswith(".toml"):
        return Path(method), Path(method)
    shipped = folder("baselines") / f"{method}.toml"
    if shipped.is_file() and not _is_packaged(shipped):
        return shipped, shipped
    own = out / "recipes" / f"{method.rpartition(':')[2]}.toml"
    return own if own.is_file() else shipped, own


def _is_packaged(file: Path) -> bool:
    return is_installed(file) or file.parent.parent.name == "_data"


def write_recipe(
    found: Search, versions: Mapping[str, str], out: Path = Path("runs-tuning")
) -> str:
    """Record a search and its choice in the method's recipe; returns the file's path.

    out: the folder for recipes whose own file is none of the user's. Raises UsageError where the
    task's hyperparameters were written there by hand.
    """
    source, path = recipe_file(found.method, out)
    text = source.read_text(encoding="utf-8") if source.is_file() else _head(found)
    head = text.partition(MARKER)[0].rstrip() + "\n\n"
    recipe = read_table(Recipe, tomllib.loads(text), str(source))
    by_hand = tomllib.loads(head)
    blocks: list[str] = []
    searches: list[str] = []
    for regime, (choices, search) in TABLES.items():
        written = {
            key: {
                name: table
                for name, table in getattr(recipe, key).items()
                if name not in by_hand.get(key, {})
            }
            for key in (choices, search)
        }
        if regime == found.regime:
            if found.task.name in by_hand.get(choices, {}):
                raise UsageError(
                    f"{source}: [{choices}.{found.task.name}] was written by hand; delete it to "
                    "record a search."
                )
            written[choices][found.task.name] = dict(found.best.hyperparameters)
            written[search][found.task.name] = _entry(found, versions)
        blocks += _blocks(choices, written[choices])
        searches += _blocks(search, written[search])
    write_atomically(path, head + MARKER + "\n" + "\n".join(blocks + searches))
    return str(path)


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a file."""
    return read_table(Recipe, read_toml(path), str(path))


def _head(found: Search) -> str:
    """A recipe for a method that has none: what it is must be filled in by hand."""
    lines = [f"method = {json.dumps(found.method.rpartition(':')[2])}"]
    lines += ['summary = "(say in a sentence what it does)"', 'source = "-"']
    return "\n".join(lines) + "\n"


def _entry(found: Search, versions: Mapping[str, str]) -> dict[str, Any]:
    share = {"share": found.share} if found.regime == "first" else {}
    return {
        "task_sha256": found.task.sha256,
        "seeds": format_seeds(found.seeds),
        "split": "validation",
        "regime": found.regime,
        **share,
        "sampler": found.sampler,
        "runs": found.runs,
        **versions,
        "tried": [_row(trial) for trial in found.trials],
    }


def _row(trial: Trial) -> dict[str, Any]:
    numbers = {"mean": round(trial.mean, 5), "standard_error": round(trial.standard_error, 5)}
    return {**trial.hyperparameters, **numbers}


def _blocks(name: str, tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"[{name}.{_key(task)}]\n{_lines(tables[task])}" for task in sorted(tables)]


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        if not value:
            return "[]"
        return "[\n" + "".join(f"    {_value(item)},\n" for item in value) + "]"
    return json.dumps(value)
