"""What a reader under test is: honest files, mutations of them, and the call that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

Files = Mapping[str, bytes]
"""Name → content; a name may have folders."""


@dataclass(frozen=True)
class Reader:
    """One reader of files that come from outside.

    files: returns the honest files. mutate: returns those that a case changes. read: reads the
    folder that holds them all; raises UsageError or returns.
    """

    files: Callable[[], Files]
    mutate: Callable[[Files, Random], Files]
    read: Callable[[Path], Any]


def one_file(mutate: Callable[[bytes, Random], bytes]) -> Callable[[Files, Random], Files]:
    """Return a mutation of one file, drawn among all."""

    def mutated(files: Files, draw: Random) -> Files:
        name = draw.choice(sorted(files))
        return {name: mutate(files[name], draw)}

    return mutated


def put(folder: Path, files: Files) -> None:
    """Write the files."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
