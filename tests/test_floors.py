"""Imports go only downward, and no file grows long."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ht_bench

PACKAGE = Path(__file__).parent.parent / "ht_bench"
FLOORS = (
    ("cli", "commands", "__main__"),
    ("testing", "doctor"),
    ("running",),
    ("diagnosis",),
    ("training",),
    ("sb3", "envs"),
    ("views",),
    ("leaderboard",),
    ("ranking",),
    ("records",),
    ("methods",),
    ("streams",),
    ("networks",),
    ("registry", "loading", "local_code", "files", "errors", "version"),
)
"""Top first. A module may import its own floor and those below it."""
FLOOR_OF = {name: index for index, names in enumerate(FLOORS) for name in names}
LONGEST = 350
FILES = sorted(PACKAGE.rglob("*.py"))
READ = [path for path in FILES if path != PACKAGE / "__init__.py"]  # it serves names lazily
PARTS = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, part of the package) of every import, also lazy ones by string."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            words = name.split(".")
            if words[0] != "ht_bench":
                continue
            assert len(words) > 1, f"line {node.lineno}: import the part that is needed"
            served = ht_bench._places().get(words[1], name)
            if served.split(".")[1] in PARTS:
                yield node.lineno, served.split(".")[1]


def violations(source: str, part: str) -> list[str]:
    return [
        f"line {line}: {part} imports {other}"
        for line, other in imported(ast.parse(source))
        if FLOOR_OF[other] < FLOOR_OF[part]
    ]


def test_every_part_has_a_floor() -> None:
    parts = {name for name in PARTS if not name.startswith(("_", ".", "py.typed", "py"))}
    assert parts <= set(FLOOR_OF)


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    source, part = path.read_text(encoding="utf-8"), part_of(path)
    assert not violations(source, part), f"{path}: {violations(source, part)}"


@pytest.mark.parametrize(
    ("source", "part", "caught"),
    [
        ("from ht_bench.running.job import run_stack", "records", True),
        ("from ht_bench import cli", "files", True),
        ("import ht_bench.running.evaluate", "methods", True),
        ("def late():\n    from ht_bench.records import record", "networks", True),
        ("if TYPE_CHECKING:\n    from ht_bench.running.tune import Search", "training", True),
        ("from ht_bench.testing import check_method", "training", True),
        ("from ht_bench.streams.task import Task", "methods", False),
        ("from ht_bench.commands.run import run", "cli", False),
        ("import torch", "networks", False),
        ("from ht_bench import Method", "streams", True),
        ("from ht_bench import UsageError", "streams", False),
    ],
)
def test_the_walk_sees_an_upward_import(source: str, part: str, caught: bool) -> None:
    assert bool(violations(source, part)) is caught


def test_only_registries_name_things_above_them_by_string() -> None:
    """Lazy references serve environment ids (and recipes, methods); one would hide an import."""
    pattern = re.compile(
        r"""import_module\(\s*f?["']ht_bench|["']ht_bench\.[\w.]+:\w+["']|["']-m["'],\s*["']ht_"""
    )
    users = {part_of(path) for path in READ if pattern.search(path.read_text(encoding="utf-8"))}
    assert users == {"envs"}


def test_files_stay_short() -> None:
    """Those of the package and of its tests; a longer one says why, in a docstring's "Long: …"."""
    long = []
    for path in (*FILES, *Path(__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        words = ast.get_docstring(ast.parse(text)) or ""
        if len(text.splitlines()) > LONGEST and not re.search(r"^Long: \w", words, re.MULTILINE):
            long.append(path)
    assert not long
