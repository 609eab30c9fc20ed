"""Count the package: `python docs/house.py [CHECKOUT]` prints modules, lines, rooms and imports.

A room is a folder of ht_bench/ or a module beside them; an import between rooms is a pair of rooms
one of which imports the other, however often. `tests/test_floors.py` holds the order of the rooms.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LONG = 350


def room_of(path: Path, package: Path) -> str:
    """Return the room that a module of the package stands in."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_rooms(path: Path, rooms: set[str]) -> Iterator[str]:
    """Yield the room of every import of a module, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for words in (name.split(".") for name in names):
            if words[0] == "ht_bench":
                yield words[1] if len(words) > 1 and words[1] in rooms else "__init__"


def lines_of(files: list[Path]) -> int:
    """Return the lines of files, blank ones included."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def counts(checkout: Path) -> dict[str, int]:
    """Return what there is of what in a checkout."""
    package, tests = checkout / "ht_bench", checkout / "tests"
    modules, test_files = sorted(package.rglob("*.py")), sorted(tests.rglob("*.py"))
    rooms = {room_of(path, package) for path in modules}
    pairs = {
        (room, other)
        for path in modules
        for other in imported_rooms(path, rooms)
        if (room := room_of(path, package)) != other
    }
    long = [path for path in (*modules, *test_files) if lines_of([path]) > LONG]
    return {
        "modules of the package": len(modules),
        "lines of the package": lines_of(modules),
        "lines of tests": lines_of(test_files),
        "rooms": len(rooms),
        "imports between rooms": len(pairs),
        f"modules of over {LONG} lines": sum(package in path.parents for path in long),
        f"test files of over {LONG} lines": sum(tests in path.parents for path in long),
    }


if __name__ == "__main__":
    for name, number in counts(Path(sys.argv[1] if len(sys.argv) > 1 else ".")).items():
        print(f"{name:32} {number:7,}")
