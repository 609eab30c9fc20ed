"""A user's own code: Python files by path, "file.py:Name" and "module:Name".

A file is imported once, under a name made from its path, with what stands beside it at hand as for
a script. `import_sources` serves `--import`: files or modules whose decorators register things.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from ht_bench.errors import UsageError, did_you_mean, reason
from ht_bench.local_code import local_files, module_file

_imported: dict[str, None] = {}


def import_sources(sources: Iterable[str]) -> None:
    """Import Python files and modules whose decorators register things, as `--import` names them.

    Raises UsageError for one that is not there or fails. Worker processes import the same.
    """
    for source in sources:
        _imported[load_module(source)] = None


def imported_sources() -> tuple[str, ...]:
    """Return what `import_sources` has imported, files by their absolute path."""
    return tuple(_imported)


def load_module(source: str, beside: Path | None = None) -> str:
    """Import "path/to/file.py" or "package.module"; returns it, a file with its absolute path.

    beside: the file that names it, to whose folder a relative path belongs.
    """
    source = absolute(source, beside)
    if source.endswith(".py"):
        load_file(Path(source))
    else:
        _import_module(source)
    return source


def is_reference(text: str) -> bool:
    """Whether a text says where a thing is, "file.py:Name" or "module:Name", and is no name."""
    return ":" in text or text.endswith(".py")


def absolute(reference: str, beside: Path | None = None) -> str:
    """Return "file.py", "file.py:Name" or a TOML file's path with an absolute path; else itself.

    beside: the file that names it, to whose folder a relative path belongs; None is the present
    folder.
    """
    path, colon, name = _divided(reference)
    if not path.endswith((".py", ".toml")):
        return reference
    folder = Path() if beside is None else beside.expanduser().resolve().parent
    return f"{(folder / Path(path).expanduser()).resolve()}{colon}{name}"


def load_reference(reference: str, beside: Path | None = None) -> Any:
    """Import "package.module:attribute" or "path/to/file.py:attribute".

    beside: the file that names it, to whose folder a relative path belongs. Raises UsageError when
    the file, the module or the attribute does not exist, or when the file fails while it is
    imported.
    """
    place, colon, attribute = _divided(reference)
    if place.endswith(".py") and not colon:
        raise UsageError(f"{place} is a file; say what in it too: {place}:Name.")
    if not place or not colon:
        raise UsageError(f"'{reference}' names no module; write package.module:Name.")
    if place.endswith(".py"):
        module = load_file(Path(absolute(place, beside)))
    else:
        module = _import_module(place)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise UsageError(
            f"{place} has no '{attribute}'.{did_you_mean(attribute, vars(module))}"
        ) from error


def user_file(thing: Any) -> str:
    """Return the file, imported by its path, that a class or function is from; "" for others."""
    names = getattr(sys.modules.get(_module(thing)), "__dict__", {})
    return str(names["__file__"]) if FILES in names else ""


def _divided(reference: str) -> tuple[str, str, str]:
    """Return place, colon and name; the colon of a lone path (a drive's) is none."""
    if reference.endswith((".py", ".toml")):
        return reference, "", ""
    return reference.rpartition(":")


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"Could not import {name}: {error}.") from error
    except Exception as error:  # whatever another's module does when it is imported
        raise UsageError(
            f"{name} failed while it was imported: {type(error).__name__}: {reason(error)}."
        ) from error


def load_file(path: Path) -> ModuleType:
    """Import a Python file by its path, once; raises UsageError when it is not there or fails."""
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"There is no file {path}; write path/to/file.py:Name.")
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, _Loader(name, str(path)))
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as Python; write path/to/file.py:Name.")
    files = local_files(path)
    _make_room(path, files)
    module = importlib.util.module_from_spec(spec)
    module.__dict__[FILES] = files
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # files beside it, as for a script; it may import later
    try:
        with _as_script(path):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise UsageError(
                f"{path} failed while it was imported: {type(error).__name__}: {error}"
                f"{_line(error, path)}."
            ) from error
        raise
    return module


def forget_if_edited(path: Path) -> None:
    """Have `load_file` import a file anew where it, or what it imports beside it, has changed."""
    path = path.resolve()
    loaded = sys.modules.get(_module_name(path))
    if loaded is None or not path.is_file():
        return
    before, now = vars(loaded)[FILES], local_files(path)
    if before == now:
        return
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name != "__main__" and file and Path(file).resolve() in {*before, *now}:
            del sys.modules[name]


FILES = "__ht_bench_files__"


def _module_name(path: Path) -> str:
    return f"ht_bench_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


class _Loader(SourceFileLoader):
    """Reads the text itself: bytecode counts as current when an edit kept second and size."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


@contextlib.contextmanager
def _as_script(path: Path) -> Iterator[None]:
    """Import from beside a file before anywhere else, and leave no bytecode there."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(path.parent))
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(path.parent))


def _make_room(path: Path, files: Iterable[Path]) -> None:
    """Forget modules of other methods' files that are called as those beside this one.

    Raises UsageError where such a module is the program's own.
    """
    modules = [getattr(module, "__dict__", {}) for module in list(sys.modules.values())]
    loaded = [names[FILES] for names in modules if FILES in names]
    for file in files:
        if file == path or not file.is_relative_to(path.parent):
            continue
        name = ".".join(file.relative_to(path.parent).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        present = getattr(sys.modules.get(name), "__file__", None)
        if present is None or Path(present).resolve() == file:
            continue
        if not any(Path(present).resolve() in others for others in loaded):
            raise UsageError(
                f"{path} imports {name} from beside it, but this process has another {name} "
                f"already, {present}; rename {file.name}."
            )
        del sys.modules[name]


def _line(error: Exception, path: Path) -> str:
    """Return " (line n)" for the file's own line that raised; a syntax error has it in its text."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


def is_same_definition(present: Any, thing: Any) -> bool:
    """Whether two objects are one definition, imported twice (a script run as __main__)."""
    if present is thing:
        return True
    if isinstance(present, str):
        return present in (f"{_module(thing)}:{getattr(thing, '__qualname__', '')}", place(thing))
    if getattr(present, "__qualname__", 0) != getattr(thing, "__qualname__", 1):
        return False
    files = module_file(present), module_file(thing)
    return files[0] == files[1] if all(files) else _module(present) == _module(thing)


def place(thing: Any) -> str:
    """Say where a class or function is defined, or which file or reference it is."""
    if not hasattr(thing, "__qualname__"):
        return str(thing)
    return f"{module_file(thing) or _module(thing)}:{thing.__qualname__}"


def _module(thing: Any) -> str:
    return str(getattr(thing, "__module__", ""))
