"""What a search writes into a recipe, beside what stands there by hand."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.files import glance, write_atomically
from ht_bench.loading import absolute
from ht_bench.local_code import is_installed
from ht_bench.methods.recipe import Recipe, get_recipe, recipe_files, recipe_names
from ht_bench.methods.resolve import resolve
from ht_bench.running.tune import Search, Trial
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.tables import read_table

OUT = Path("runs-tuning")
MARKER = "# ---- Below: written by `ht-bench tune --write`. ----\n"
TABLES = {"whole": ("tasks", "search"), "first": ("first", "search_first")}
"""Regime → the recipe's tables of chosen values and of searches."""


def recipe_file(method: str, out: Path) -> tuple[Path | None, Path]:
    """Return the recipe file to read for a method, None if there is none, and the one to write.

    A recipe that was named by its file is written itself; so are those of baselines/ in a checkout.
    Those of installed packages stay as they are: `out`/recipes/<method>.toml is read, where it is
    there already, and written; `ht-bench run --method out/recipes/<method>.toml` uses it.
    """
    if method.endswith(".toml"):
        return Path(method), Path(method)
    name = resolve(method).name
    source = recipe_files().get(name)
    if source is not None and not _is_packaged(source):
        return source, source
    own = out / "recipes" / f"{name}.toml"
    if own.is_file():
        return own, own
    if source is None and name in recipe_names():
        made = registry.made(registry.recipes, name)
        source = Path(made) if isinstance(made, str | Path) else None
    return source, own


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
    text = _head(found) if source is None else _copied(source, path)
    if source != path:  # a copy of one's own: the search takes the place of the package's choice
        text = _without(text, f"{TABLES[found.regime][0]}.{found.task.name}")
    head = text.partition(MARKER)[0].rstrip() + "\n\n"
    recipe = read_table(Recipe, tomllib.loads(text), str(source or path))
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


def _copied(source: Path, path: Path) -> str:
    """Return a recipe's text for another place, from where a relative path would lead nowhere."""
    text = source.read_text(encoding="utf-8")
    named = glance(source, "implementation")
    if source == path or absolute(named, source) == named:
        return text
    return text.replace(json.dumps(named), json.dumps(absolute(named, source)), 1)


def _without(text: str, table: str) -> str:
    """Return TOML text without one of its tables."""
    return re.sub(rf"^\[{re.escape(table)}\]\n(?:(?!\[).*\n?)*", "", text, flags=re.MULTILINE)


def _head(found: Search) -> str:
    """Say what a method is that has no recipe file; a class without a recipe names itself alone."""
    name = resolve(found.method).name
    recipe = get_recipe(name) or Recipe(name, f"{name}, tuned.", "-")
    implementation = recipe.implementation or (found.method if ":" in found.method else "")
    table = {
        "method": recipe.method,
        "implementation": absolute(implementation) if implementation else "",
        "summary": recipe.summary,
        "source": recipe.source,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if value]
    tables = {key: getattr(recipe, key) for key in ("default", "agents", "grid", "space")}
    written = [f"\n[{key}]\n{_lines(table)}" for key, table in tables.items() if table]
    return "\n".join([*lines, *written]) + "\n"


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
