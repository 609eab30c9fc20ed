"""Names to things: built in by lazy string, registered in a program, or found by entry point.

A built-in method is known by its recipe, `baselines/<name>.toml`, which names its class.

`register_method` and `register_task` are the decorators that add a user's own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from ht_bench.errors import UsageError, did_you_mean, reason
from ht_bench.files import folder, glance
from ht_bench.local_code import local_files, module_file

T = TypeVar("T")
C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """Names of one kind of thing, each an object or a lazy "module:attribute" string."""

    def __init__(
        self, kind: str, group: str, find_built_in: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self.kind, self._group, self._find_built_in = kind, group, find_built_in
        self._searched = False
        self._rivals: dict[str, str] = {}
        """Entry points whose name was there already; a built-in one stays itself."""

    @functools.cached_property
    def built_in(self) -> Mapping[str, str]:
        """The package's own: name → "module:attribute"."""
        return self._find_built_in()

    @functools.cached_property
    def _entries(self) -> dict[str, Any]:
        return dict(self.built_in)

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its object under `name`.

        Raises UsageError when another object has the name already, unless both are one
        definition: a file imported again, a notebook's cell run again.
        """

        def keep(thing: T) -> T:
            present = self._entries.get(name)
            if present is not None and not is_same_definition(present, thing):
                raise UsageError(self.taken(name, thing))
            self._entries[name] = thing
            return thing

        return keep

    def taken(self, name: str, thing: Any) -> str:
        """Say that `thing` cannot have a name, and both places."""
        return (
            f"The {self.kind} name '{name}' is taken by {place(self._entries[name])}; give "
            f"{place(thing)} another."
        )

    def names(self) -> list[str]:
        """Return all known names: built in first, then registered, then entry points."""
        self._search()
        return list(self._entries)

    def get(self, name: str) -> Any:
        """Return the thing called `name`; raises UsageError with the nearest name otherwise."""
        self._search()
        if name not in self._entries:
            raise UsageError(
                f"Unknown {self.kind} '{name}'.{did_you_mean(name, self._entries)} "
                f"`ht-bench list {self.kind}s` shows all of them."
            )
        entry = self._entries[name]
        found = load_reference(entry) if isinstance(entry, str) else entry
        rival = self._rivals.get(name)
        if rival is not None and load_reference(rival) is not found:
            raise UsageError(
                f"The {self.kind} name '{name}' is given twice, to {place(entry)} and by an "
                f"installed package to {rival}; rename or uninstall one of them."
            )
        return found

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        for point in entry_points(group=self._group):
            present = self._entries.setdefault(point.name, point.value)
            if present != point.value and point.name not in self.built_in:
                self._rivals[point.name] = point.value


def load_reference(reference: str) -> Any:
    """Import "package.module:attribute" or "path/to/file.py:attribute".

    Raises UsageError when the file, the module or the attribute does not exist, or when the file
    fails while it is imported.
    """
    place, _, attribute = reference.rpartition(":")
    if not place:
        raise UsageError(f"'{reference}' names no module; write package.module:Name.")
    module = load_file(Path(place)) if place.endswith(".py") else _import_module(place)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise UsageError(
            f"{place} has no '{attribute}'.{did_you_mean(attribute, vars(module))}"
        ) from error


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
        raise UsageError(f"There is no file {path}; write path/to/file.py:ClassName.")
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, _Loader(name, str(path)))
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as Python; write path/to/file.py:ClassName.")
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
        return present == f"{thing.__module__}:{thing.__qualname__}"
    if getattr(present, "__qualname__", 0) != getattr(thing, "__qualname__", 1):
        return False
    files = module_file(present), module_file(thing)
    return files[0] == files[1] if all(files) else present.__module__ == thing.__module__


def place(thing: Any) -> str:
    """Say where a class or function is defined."""
    if isinstance(thing, str):
        return thing
    return f"{module_file(thing) or thing.__module__}:{thing.__qualname__}"


def _implementations() -> dict[str, str]:
    """Return the built-in methods' names and classes, as their recipes in `baselines/` say."""
    recipes = folder("baselines").glob("*.toml")
    places = {path.stem: glance(path, "implementation") for path in recipes}
    return {name: places[name] for name in sorted(places) if places[name]}


methods = Registry("method", "ht_bench.methods", _implementations)
tasks = Registry("task", "ht_bench.tasks")


def register_method(name: str) -> Callable[[C], C]:
    """Register a Method subclass under `name`, which becomes its `name` too.

    The class is made a dataclass if it is not one, so that its annotated fields are its
    hyperparameters. Raises UsageError when the name is taken.
    """

    def keep(cls: C) -> C:
        if "__dataclass_fields__" not in vars(cls):
            dataclass(eq=False)(cls)
        methods.register(name)(cls)
        cls.name = name  # type: ignore[attr-defined]
        return cls

    return keep


def register_task(name: str) -> Callable[[F], F]:
    """Register a function that returns a Task, or the path of its TOML file, under `name`."""
    return tasks.register(name)
