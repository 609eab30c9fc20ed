"""Names to things: methods, recipes, tasks, suites, datasets, networks, parts, environments.

Each kind of thing has one `Registry`. What it knows is built in (by lazy string or file), was
registered by a decorator, or is offered by an installed package's entry point. Wherever a name may
stand, a reference may: "file.py:Name", "package.module:Name", or for a recipe, task or suite the
path of its TOML file. A built-in method is known by its recipe, `baselines/<name>.toml`.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from ht_bench.errors import UsageError, did_you_mean, telling
from ht_bench.files import folder, glance
from ht_bench.loading import (
    absolute,
    imported_sources,
    is_reference,
    is_same_definition,
    load_reference,
    place,
    user_file,
)

T = TypeVar("T")
C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
BUILT_IN = "built in"


class Registry:
    """Names of one kind of thing, each an object, a lazy "module:attribute" or a TOML file's path.

    kind: what one of them is called, in errors. group: the entry points' group. home: the module
    whose import calls `provide`, for things that the package has itself. toml: whether a thing may
    be a TOML file. plural: as `ht-bench list` has it.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        find_built_in: Callable[[], Mapping[str, Any]] = dict,
        *,
        home: str = "",
        toml: bool = False,
        plural: str = "",
    ) -> None:
        self.kind, self.toml, self.plural = kind, toml, plural or f"{kind}s"
        self._group, self._home, self._find_built_in = group, home, find_built_in
        self._searched = False
        self._entries: dict[str, Any] = {}
        self._points: dict[str, EntryPoint] = {}
        """Which entry point gave a name."""
        self._rivals: dict[str, str] = {}
        """Entry points whose name was there already; a built-in one stays itself."""

    @property
    def built_in(self) -> Mapping[str, Any]:
        """The package's own: name → "module:attribute", object or path."""
        if self._home:
            importlib.import_module(self._home)
        return self._find_built_in()

    def provide(self, find_built_in: Callable[[], Mapping[str, Any]]) -> None:
        """Say what the package has itself: a function that returns name → thing, asked each time.

        For the module that is this registry's `home`.
        """
        self._find_built_in = find_built_in

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its object under `name`.

        Raises UsageError for what cannot be a name, and when another object has it already, unless
        both are one definition: a file imported again, a notebook's cell run again.
        """
        files = (".py", ".toml")
        if not re.fullmatch(r"\w[\w.+/-]*", str(name)) or str(name).endswith(files):
            raise UsageError(
                f"{name!r} cannot name a {self.kind}; use letters, digits, '-', '_', '+', '.' and "
                "'/', a letter or digit first, and no file's name."
            )

        def keep(thing: T) -> T:
            present = self.built_in.get(name, self._entries.get(name))
            if present is not None and not is_same_definition(present, thing):
                raise UsageError(self.taken(name, thing))
            if name not in self.built_in:
                self._entries[name] = thing
            return thing

        return keep

    def taken(self, name: str, thing: Any) -> str:
        """Say that `thing` cannot have a name, and both places."""
        present = self.built_in.get(name, self._entries.get(name))
        return (
            f"The {self.kind} name '{name}' is taken by {place(present)}; give "
            f"{place(thing)} another."
        )

    def names(self) -> list[str]:
        """Return all known names: built in first, then registered, then entry points."""
        self._search()
        return list(dict.fromkeys((*self.built_in, *self._entries)))

    def get(self, name: str) -> Any:
        """Return the thing called `name`; raises UsageError with the nearest name otherwise."""
        self._search()
        built_in = self.built_in
        if name not in built_in and name not in self._entries:
            raise UsageError(self.unknown(name))
        if name in built_in:
            return _loaded(built_in[name])
        entry = self._entries[name]
        found = _loaded(entry)
        rival = self._rivals.get(name)
        if rival is not None and load_reference(rival) is not found:
            raise UsageError(
                f"The {self.kind} name '{name}' is given twice, to {place(entry)} and by an "
                f"installed package to {rival}; rename or uninstall one of them."
            )
        return found

    def unknown(self, name: str) -> str:
        """Say that there is no `name`, and the nearest."""
        return (
            f"Unknown {self.kind} '{name}'.{did_you_mean(name, self.names())} "
            f"`ht-bench list {self.plural}` shows all of them."
        )

    def find(self, reference: str, beside: Path | None = None) -> Any:
        """Return the thing that a name or a reference stands for.

        A path of a TOML file is returned as an absolute Path. beside: the file in which the
        reference stands, to whose folder a relative path belongs. Raises UsageError as `get` and
        `load_reference` do. Never call it with a text from an untrusted file: it runs code.
        """
        if self.toml and reference.endswith(".toml"):
            return Path(absolute(reference, beside))
        if is_reference(reference):
            return load_reference(reference, beside)
        return self.get(reference)

    def is_from_outside(self, name: str) -> bool:
        """Whether a name or reference is not the package's own."""
        return name not in self.built_in

    def origin(self, name: str) -> str:
        """Say where the thing called `name` is from: built in, a package, a file or a module."""
        if name in self.built_in:
            return BUILT_IN
        self._search()
        point = self._points.get(name)
        if point is not None and self._entries.get(name) == point.value:
            dist = point.dist
            return f"{dist.name} {dist.version}" if dist else "an installed package"
        thing = self._entries.get(name, name)
        return user_file(thing) or place(thing).rpartition(":")[0] or str(thing)

    def registered(self) -> Iterator[Any]:
        """Yield the objects that decorators have registered."""
        yield from (thing for thing in self._entries.values() if not isinstance(thing, str))

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        for point in entry_points(group=self._group):
            if point.name in self.built_in:
                continue
            present = self._entries.setdefault(point.name, point.value)
            if present == point.value:
                self._points[point.name] = point
            else:
                self._rivals[point.name] = point.value


def _loaded(entry: Any) -> Any:
    return load_reference(entry) if isinstance(entry, str) else entry


def _implementations() -> dict[str, str]:
    """Return the built-in methods' names and classes, as their recipes in `baselines/` say."""
    place = folder("baselines")
    return dict(_read_implementations(place, place.stat().st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _read_implementations(place: Path, changed: int) -> dict[str, str]:
    places = {path.stem: glance(path, "implementation") for path in place.glob("*.toml")}
    return {name: places[name] for name in sorted(places) if places[name]}


methods = Registry("method", "ht_bench.methods", _implementations)
recipes = Registry("recipe", "ht_bench.recipes", home="ht_bench.methods.recipe", toml=True)
tasks = Registry("task", "ht_bench.tasks", home="ht_bench.streams.catalog", toml=True)
suites = Registry("suite", "ht_bench.suites", home="ht_bench.streams.suite", toml=True)
datasets = Registry("dataset", "ht_bench.datasets", home="ht_bench.streams.data", plural="data")
networks = Registry("network", "ht_bench.networks", home="ht_bench.networks")
activations = Registry("activation", "ht_bench.activations", home="ht_bench.networks")
norms = Registry("norm", "ht_bench.norms", home="ht_bench.networks")
environments = Registry("environment", "ht_bench.environments")

KINDS: dict[str, Registry] = {
    each.kind: each
    for each in (
        *(methods, recipes, tasks, suites, datasets),
        *(networks, activations, norms, environments),
    )
}
"""Every kind of thing that may come from outside."""


def find(kind: str, reference: str, beside: Path | None = None) -> Any:
    """Return what a name or reference of a kind stands for, see `Registry.find`."""
    return KINDS[kind].find(reference, beside)


def made(things: Registry, reference: str) -> Any:
    """Return what a name or reference stands for, a function's answer if it is one.

    For kinds whose things are objects or files. Raises UsageError as `Registry.find` does, and
    where the function fails or returns the name that it was asked by.
    """
    thing = things.find(reference)
    if not callable(thing):
        return thing
    with telling(f"The function registered for the {things.kind} '{reference}' failed"):
        answer = thing()
    if answer == reference:  # it would be asked again, for ever
        raise UsageError(
            f"The function registered for '{reference}' returns its own name; no {things.kind}."
        )
    return answer


def sources() -> tuple[str, ...]:
    """Return the files and modules that another process must import to know the same names.

    Those of `--import`, and files imported by their path whose decorators registered something.
    """
    files = (user_file(thing) for each in KINDS.values() for thing in each.registered())
    return tuple(dict.fromkeys((*imported_sources(), *filter(None, files))))


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


def register_recipe(name: str) -> Callable[[T], T]:
    """Register the recipe of the method called `name`: a function that returns its TOML file.

    The function may also return a `Recipe`.
    """
    return recipes.register(name)


def register_task(name: str) -> Callable[[F], F]:
    """Register a function that returns a Task, or the path of its TOML file, under `name`."""
    return tasks.register(name)


def register_suite(name: str) -> Callable[[F], F]:
    """Register a function that returns a Suite, or the path of its TOML file, under `name`."""
    return suites.register(name)


def register_dataset(name: str) -> Callable[[F], F]:
    """Register a function that returns the arrays of a dataset under `name`."""
    return datasets.register(name)


def register_network(name: str) -> Callable[[T], T]:
    """Register `build(options, shape, classes) -> nn.Module` as a network for `[net] name`."""
    return networks.register(name)


def register_activation(name: str) -> Callable[[T], T]:
    """Register a non-linearity, a class or function `(dim) -> nn.Module`, for `[net] activation`.

    Its attribute `features` says how many features it makes of one unit; 1 where it has none.
    """
    return activations.register(name)


def register_norm(name: str) -> Callable[[T], T]:
    """Register a normalisation, `(units) -> nn.Module`, for `[net] linear_norm`."""
    return norms.register(name)


def register_environment(name: str) -> Callable[[T], T]:
    """Register an environment's class, or a function that makes one, as a Gymnasium id."""
    return environments.register(name)
