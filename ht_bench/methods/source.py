"""Which code a method is: a hash over the files that define it, so that an edit trains again."""

from __future__ import annotations

import functools
import hashlib
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ht_bench.local_code import PACKAGE, class_names, is_installed, local_files, module_file

Plain = (int, float, complex, str, bytes, type(None))


@dataclass(frozen=True)
class Source:
    """The hash of a class's code; known: whether its code lies in files.

    The hash of a class without files, as in a notebook, is random: it equals no other run's.
    """

    sha256: str
    known: bool


def source_hash(cls: type) -> str:
    """Return the sha256 of a class's code, see `source_of`."""
    return source_of(cls).sha256


def source_of(cls: type) -> Source:
    """Hash the files that define the class and its bases, and what they import beside them.

    Whole files, since constants and functions beside a class are part of its rule. Of installed
    libraries and of Python, which have versions, the names of bases count. Of a combination
    the parts count.
    """
    parts = [source_of(part) for part in getattr(cls, "classes", ())]
    if not parts:
        return _source_of(cls)
    content = "\n".join(part.sha256 for part in parts)
    known = all(part.known for part in parts)
    return Source(hashlib.sha256(content.encode()).hexdigest(), known)


@functools.cache  # parsing files takes milliseconds, and agents are made again and again
def _source_of(cls: type) -> Source:
    texts: dict[Path, str] = {}
    words: list[str] = []
    for base in cls.__mro__[:-1]:
        if base is not cls and _is_foreign(base, cls):
            words.append(f"{base.__module__}.{base.__qualname__}")
            continue
        file, around = _file_of(base), _values_around(base)
        if file is None or around is None:
            return Source(secrets.token_hex(32), known=False)
        texts |= local_files(file)
        words += around
    content = "\n".join([cls.__qualname__, *words, *texts.values()])
    return Source(hashlib.sha256(content.encode()).hexdigest(), known=True)


def _is_foreign(base: type, cls: type) -> bool:
    """Whether a base is of Python or of an installed library other than the class's own."""
    packages = [name.partition(".")[0] for name in (base.__module__, cls.__module__)]
    if packages[0] in (PACKAGE.name, packages[1], "__main__"):
        return False
    file = getattr(sys.modules.get(base.__module__), "__file__", None)
    return base.__module__ in sys.builtin_module_names or bool(file and is_installed(Path(file)))


def _file_of(cls: type) -> Path | None:
    """Return the file whose text defines the class; None where there is none."""
    file = module_file(cls)
    if file is None:  # its module was made by hand and is registered nowhere
        functions = (v for v in vars(cls).values() if isinstance(v, FunctionType))
        places = (Path(function.__code__.co_filename) for function in functions)
        file = next((path.resolve() for path in places if path.is_file()), None)
    if file is None:
        return None
    defined = class_names(file.read_text(encoding="utf-8", errors="replace"))
    return file if cls.__name__ in defined else None


def _values_around(cls: type) -> list[str] | None:
    """Return what a class made inside a function took from there, None where that is no text."""
    if "<locals>" not in cls.__qualname__:
        return []
    values = {k: v for k, v in vars(cls).items() if isinstance(v, Plain) and k[:2] != "__"}
    for function in vars(cls).values():
        function = getattr(function, "__func__", getattr(function, "fget", function))
        # What dataclasses wrote ("<string>") holds the fields' types and defaults, known elsewhere.
        if isinstance(function, FunctionType) and function.__code__.co_filename != "<string>":
            cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            values |= {k: _content(cell) for k, cell in cells if k != "__class__"}
    written = {key: _written(value) for key, value in sorted(values.items())}
    return None if None in written.values() else [f"{k} = {v}" for k, v in written.items()]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


def _written(value: Any) -> str | None:
    if isinstance(value, Plain):
        return repr(value)
    if isinstance(value, tuple | list):
        items = [_written(item) for item in value]
        return None if None in items else str(items)
    if isinstance(value, ModuleType):
        return value.__name__
    # Code of its own that lies in a file, unless it too was made inside a function.
    name = getattr(value, "__qualname__", "<locals>")
    return None if "<locals>" in name else f"{value.__module__}.{name}"
