"""What a task names from outside: a path made absolute, and in its hash by the code it stands for.

A task file may name "my_net.py:build" beside it, or a network that a plug-in registers. The spec
that is hashed, and kept beside runs, holds "my_net.py:build@<16 hex of the code>" instead: it says
the same on every machine, and changes when the code does. Data are hashed by content already.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.loading import absolute
from ht_bench.local_code import local_files, module_file

TABLES = ("data", "net", "environment", "phases")
"""The tables of a task that may name things."""
KINDS = {
    ("net", "name"): "network",
    ("net", "activation"): "activation",
    ("net", "linear_norm"): "norm",
    ("environment", "id"): "environment",
    ("phases", "id"): "environment",
}
"""Where a registered name stands."""


def with_absolute_paths(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a task file's tables, what they name by a Python file with its absolute path."""

    def made(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: made(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [made(item) for item in value]
        return absolute(value, path) if isinstance(value, str) and _file(value) else value

    return {key: made(value) if key in TABLES else value for key, value in table.items()}


def identified(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec in which what is from outside is named by its code, not by its place."""

    def made(value: Any, table: str, key: str) -> Any:
        if isinstance(value, Mapping):
            return {name: made(item, table, name) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [made(item, table, key) for item in value]
        return _identity(value, table, key) if isinstance(value, str) else value

    return {key: made(value, key, "") if key in TABLES else value for key, value in spec.items()}


def _identity(value: str, table: str, key: str) -> str:
    file = _file(value)
    if file is not None:
        named = file.name + value.removeprefix(str(file))
        return named if table == "data" or not file.is_file() else f"{named}@{_digest(file)}"
    kind = registry.KINDS.get(KINDS.get((table, key), ""))
    if kind is None or re.search(r"@[0-9a-f]{16}$", value) or not kind.is_from_outside(value):
        return value
    place = _place(kind, value)
    return value if place is None else f"{value}@{_digest(place)}"


def _place(kind: registry.Registry, value: str) -> Path | None:
    """Return the file of what a text names, if it is known; a spec's text imports nothing here."""
    module, colon, _ = value.partition(":")
    if colon:  # a network's module was imported when the task was checked, an environment's not
        networks = kind is not registry.environments
        file = getattr(sys.modules.get(module), "__file__", None) if networks else None
        return Path(file) if file else None
    if value not in kind.names():  # a Gymnasium id that another package registers
        return None
    try:
        return module_file(kind.get(value))
    except UsageError:
        return None


def _file(text: str) -> Path | None:
    """Return the Python file that a text names, alone or with what is in it."""
    match = re.fullmatch(r"(.+\.py)(:\w+)?", text)
    return Path(match[1]) if match else None


def _digest(file: Path) -> str:
    texts = local_files(file).values()
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
