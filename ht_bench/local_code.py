"""Which files a Python file runs: itself, and what it imports from beside it, file by file.

Read from the text, so that imports inside functions count, and nothing is imported. Installed
libraries and the standard library are left out: they come with versions.
"""

from __future__ import annotations

import ast
import functools
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
METHODS = PACKAGE / "methods"
INSTALLED = ("site-packages", "dist-packages")


def local_files(start: Path) -> dict[Path, str]:
    """Return file → text: `start`, then what it imports, in the order of their first import.

    Of this package only the methods' own files are followed, of an installed one its own.
    """
    files: dict[Path, str] = {}
    waiting = [start.resolve()]
    while waiting:
        file = waiting.pop(0)
        if file in files:
            continue
        # Universal newlines: a checkout with other line ends is the same code.
        files[file] = file.read_text(encoding="utf-8", errors="replace")
        waiting += _imported(file, files[file])
    return files


def module_file(thing: Any) -> Path | None:
    """Return the file of the module that a class or function says it is from, if it has one."""
    name = getattr(sys.modules.get(thing.__module__), "__file__", None)
    path = Path(name) if name else None
    return path.resolve() if path and path.suffix == ".py" and path.is_file() else None


def class_names(text: str) -> frozenset[str]:
    """Return the names of all classes that a Python text defines, nested ones too."""
    return _parsed(text)[1]


def is_installed(file: Path) -> bool:
    """Whether a file belongs to Python or to an installed distribution."""
    standard = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib")]
    return not set(INSTALLED).isdisjoint(file.parts) or any(
        file.is_relative_to(folder) for folder in standard
    )


def _imported(file: Path, text: str) -> list[Path]:
    own = file.is_relative_to(PACKAGE)
    within = _installed_package(file)
    found = []
    for level, name in _parsed(text)[0]:
        is_ours = name.partition(".")[0] == PACKAGE.name and not level
        if is_ours != own:
            continue
        if within is not None and not level and name.partition(".")[0] != within.stem:
            continue  # another installed library, which has a version
        roots = [file.parents[min(level, len(file.parents)) - 1]] if level else _roots(file)
        for root in roots:
            if files := list(_files_of(root, name)):
                found += files
                break
    if own:
        return [path for path in found if path.is_relative_to(METHODS)]
    return found if within is None else [path for path in found if path.is_relative_to(within)]


def _installed_package(file: Path) -> Path | None:
    """Return the folder of the installed package that a file is of, or the lone file; else None."""
    for folder in (file, *file.parents):
        if folder.parent.name in INSTALLED:
            return folder
    return None


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[tuple[tuple[int, str], ...], frozenset[str]]:
    """Return what a text imports, as (dots before the name, name), and the classes in it."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):  # importing it tells what is wrong
        return (), frozenset()
    classes = frozenset(node.name for node in nodes if isinstance(node, ast.ClassDef))
    return tuple(dict.fromkeys(place for node in nodes for place in _places(node))), classes


def _places(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((0, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        words = [node.module] if node.module else []
        for alias in node.names:
            yield node.level, ".".join([*words, alias.name] if alias.name != "*" else words)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        first = node.args[0] if node.args else None
        if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
            name = str(first.value)
            yield len(name) - len(name.lstrip(".")), name.lstrip(".")


def _roots(file: Path) -> Iterator[Path]:
    """Yield the folders that a file imports from: its own, its package's, the program's."""
    yield file.parent
    package = file.parent
    while (package / "__init__.py").is_file():
        package = package.parent
    yield package
    for entry in sys.path:
        folder = Path(entry or ".").resolve()
        if folder.is_dir() and not is_installed(folder):
            yield folder


def _files_of(root: Path, name: str) -> Iterator[Path]:
    """Yield the files that importing "a.b.c" from `root` runs: packages' own, then the module."""
    place = root
    for word in name.split(".") if name else ():
        if (place / word / "__init__.py").is_file():
            yield (place / word / "__init__.py").resolve()
        elif (place / f"{word}.py").is_file():
            yield (place / f"{word}.py").resolve()
            return
        elif not (place / word).is_dir():
            return
        place = place / word
