"""Names to things: built in by lazy string, registered in a program, or found by entry point.

A built-in method is known by its recipe, `baselines/<name>.toml`, which names its class.

`register_method` and `register_task` are the decorators that add a user's own.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ht_bench.errors import UsageError, did_you_mean, reason
from ht_bench.files import folder, glance

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

    @functools.cached_property
    def built_in(self) -> Mapping[str, str]:
        """The package's own: name → "module:attribute"."""
        return self._find_built_in()

    @functools.cached_property
    def _entries(self) -> dict[str, Any]:
        return dict(self.built_in)

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its object under `name`.

        Raises UsageError when another object has the name already.
        """

        def keep(thing: T) -> T:
            present = self._entries.get(name)
            if present is not None and not _same_place(present, thing):
                raise UsageError(f"The {self.kind} name '{name}' is taken; choose another.")
            self._entries[name] = thing
            return thing

        return keep

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
        return load_reference(entry) if isinstance(entry, str) else entry

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        for point in entry_points(group=self._group):
            self._entries.setdefault(point.name, point.value)


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
    name = f"ht_bench_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as Python; write path/to/file.py:ClassName.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # files beside it, as for a script; it may import later
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise UsageError(
                f"{path} failed while it was imported: {type(error).__name__}: {error}."
            ) from error
        raise
    return module


def _same_place(present: Any, thing: Any) -> bool:
    """Whether two objects are one definition, imported twice (a script run as __main__)."""
    if isinstance(present, str):
        return present == f"{thing.__module__}:{thing.__qualname__}"
    return getattr(present, "__qualname__", 0) == getattr(thing, "__qualname__", 1)


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
        cls.name = name  # type: ignore[attr-defined]
        return methods.register(name)(cls)

    return keep


def register_task(name: str) -> Callable[[F], F]:
    """Register a function that returns a Task, or the path of its TOML file, under `name`."""
    return tasks.register(name)
