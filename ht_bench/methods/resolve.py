"""What a user names (a name, a class, an instance, "file.py:Class") → a method to run."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ht_bench import loading, registry
from ht_bench.errors import Unsuitable, UsageError, did_you_mean
from ht_bench.methods.base import Method
from ht_bench.methods.composed import Composed, compose, parts_in, prefixed, spread
from ht_bench.methods.contract import own_name
from ht_bench.methods.hyperparameters import plain
from ht_bench.methods.recipe import Recipe, Regime, get_recipe, split_regime
from ht_bench.methods.source import source_of
from ht_bench.streams.tables import fits

Named = str | type[Method] | Method
_NOR_ANY = (  # "It has: none." could be read as the method `none`
    ', nor any other; name the method that has it: plasticity="hare-tortoise", say, or '
    "--method hare-tortoise."
)


@dataclass(frozen=True)
class MethodSpec:
    """A method with its hyperparameters, picklable, so that a worker process can build it.

    reference: a registered name or "path/to/file.py:Class"; or the class itself. recipe: the name
    or TOML file of its recipe, which need not be there.
    """

    name: str
    reference: str | type[Method]
    hyperparameters: Mapping[str, Any]
    source_sha256: str
    recipe: str = ""

    def build(self) -> Method:
        """Return a new, unattached method."""
        return find_class(self.reference)(**self.hyperparameters)

    def traits(self) -> dict[str, Any]:
        """Return what a reader of results asks of the method's class, as JSON.

        needs_boundaries: whether it is told when the data change. network: what it changes in a
        task's `[net]`.
        """
        cls = find_class(self.reference)
        return {
            "needs_boundaries": needs_boundaries(cls, self.recipe or self.name),
            "network": dict(cls.network),
        }

    @property
    def built_in(self) -> bool:
        """Whether the method's class is the package's own; of a combination every part's."""
        cls = find_class(self.reference)
        parts = getattr(cls, "classes", (cls,))
        return all(part.__module__.startswith("ht_bench.") for part in parts)

    @property
    def has_source(self) -> bool:
        """Whether the method's code lies in files, so that a later run can tell if it is as now."""
        return source_of(find_class(self.reference)).known

    def check_source(self) -> None:
        """Raise UsageError where this process has imported other code than `resolve` did."""
        source = source_of(find_class(self.reference))
        if source.known and self.source_sha256 not in ("", source.sha256):
            raise UsageError(
                f"The code of '{self.name}' was edited after this command had begun; run the same "
                "command again: finished runs of the code as it was are not taken for its own."
            )


def resolve(
    named: Named,
    task: str = "",
    overrides: Mapping[str, Any] | None = None,
    *,
    agent: bool = False,
) -> MethodSpec:
    """Return the method to run on `task`: recipe first, then `overrides` (not for an instance).

    named: a name, "file.py:Class", the TOML file of a recipe, which names the class, a class or an
    instance. "name@first" takes what a search on the first share of the task's stream chose, and
    keeps that name. agent: the task trains a reinforcement-learning agent, for which recipes have a
    table.
    Raises UsageError for an unknown name or hyperparameter, or a value the method refuses.
    """
    changes = dict(overrides or {})
    if isinstance(named, Method):
        values = {**_fields(named), **changes}
        return _spec(type(named), own_name(type(named)), type(named), values)
    if not isinstance(named, str):
        return _spec(find_class(named), own_name(named), named, changes)
    named, regime = split_regime(named)
    place = _place(named)
    if is_composed(place):
        return _resolve_composed(named, place, task, changes, agent, regime)
    if loading.is_reference(place):
        loading.forget_if_edited(Path(place.rpartition(":")[0]))
    cls = find_class(place)
    name = own_name(cls) if loading.is_reference(named) else named
    recipe = get_recipe(name)
    if recipe is not None and named.endswith(".toml"):
        name = recipe.method
    settings = recipe.hyperparameters(task, agent, regime) if recipe else {}
    # A worker process has not registered what this one has: it gets the class.
    reference = place if loading.is_reference(place) else cls
    values = {**settings, **changes}
    spec = _spec(cls, name, reference, values, _suffix(named, recipe, task, regime))
    return _of_file(spec, named)


def is_composed(named: str) -> bool:
    """Whether a name stands for several methods, "a+b"; a registered name with a plus does not."""
    file, _, attribute = named.rpartition(":")
    if "+" not in attribute and Path(file).is_file():  # a plus in a file's path
        return False
    several = len(parts_in(named)) > 1 and not named.endswith(".toml")
    return several and named not in registry.methods.names()


def _resolve_composed(
    named: str,
    composed: str,
    task: str,
    changes: Mapping[str, Any],
    agent: bool,
    regime: Regime,
) -> MethodSpec:
    """Resolve "a+b": each part's recipe, then the combination's own, then `changes`.

    named: that, or the file of the combination's recipe.
    """
    parts = [resolve(part, task, agent=agent) for part in parts_in(composed)]
    cls = compose(tuple(find_class(part.reference) for part in parts))
    settings = {
        prefixed(part.name, key): value
        for part in parts
        for key, value in part.hyperparameters.items()
    }
    _check_words(cls, changes)
    recipe = get_recipe(named if named.endswith(".toml") else cls.name)
    if recipe is not None:
        settings |= spread(cls, recipe.hyperparameters(task, agent, regime))
    suffix = _suffix(named, recipe, task, regime)
    reference = "+".join(
        part.reference if isinstance(part.reference, str) else word
        for part, word in zip(parts, parts_in(composed), strict=True)
    )
    values = {**settings, **spread(cls, changes)}
    return _of_file(_spec(cls, cls.name, reference, values, suffix), named)


def _check_words(cls: type[Composed], changes: Mapping[str, Any]) -> None:
    """Refuse a setting that none of a combination's methods has, in the words that are written."""
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    parts = {own_name(part): dataclasses.fields(part) for part in cls.classes}
    known = [f"{name}.{field.name}" for name, own in parts.items() for field in own if field.init]
    for key in changes:
        if not {*spread(cls, {key: None})} <= fields:
            raise UsageError(
                f"Method '{cls.name}' has no hyperparameter '{key}'.{did_you_mean(key, known)} "
                f"It has: {', '.join(known)}."
            )


def _of_file(spec: MethodSpec, named: str) -> MethodSpec:
    """Let a method that was named by its recipe's file keep the file."""
    if not named.endswith(".toml"):
        return spec
    return dataclasses.replace(spec, recipe=loading.absolute(named))


def _suffix(named: str, recipe: Recipe | None, task: str, regime: Regime) -> str:
    """Return "@first" for what was tuned so; a method with nothing to tune has one name."""
    if regime == "whole":
        return ""
    if recipe is None:
        raise Unsuitable(f"'{named}' has no recipe that a search on a first share could be in.")
    return f"@{regime}" if not task or recipe.settled_on(task, regime) in recipe.first else ""


def _place(named: str) -> str:
    """Return what tells the class: a registered name, or the reference that a recipe gives."""
    if is_composed(named):
        return named
    if named in registry.methods.names() or loading.is_reference(named):
        return loading.absolute(named)
    recipe = get_recipe(named)
    if recipe is None or recipe.method in registry.methods.names():
        return recipe.method if recipe else named
    if not recipe.implementation and is_composed(recipe.method):
        return recipe.method
    if not recipe.implementation:
        raise UsageError(
            f"{named} gives no class of the method '{recipe.method}'; add "
            'implementation = "file.py:Class".'
        )
    return recipe.implementation


def find_class(reference: str | type[Method]) -> type[Method]:
    """Return the class behind a name, "file.py:Class", a recipe's TOML file or the class itself."""
    cls: Any = reference
    if isinstance(reference, str):
        place = _place(split_regime(reference)[0])
        if is_composed(place):
            return compose(tuple(map(find_class, parts_in(place))))
        cls = registry.methods.find(place)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UsageError(f"{reference} is not a subclass of ht_bench.Method; make it one.")
    own = vars(cls)
    if own.get("__annotations__") and not {"__dataclass_fields__", "__init__"} & set(own):
        dataclasses.dataclass(eq=False)(cls)  # as registering it does: fields are hyperparameters
    return cls


def _spec(
    cls: type[Method],
    name: str,
    reference: str | type[Method],
    values: Mapping[str, Any],
    suffix: str = "",
) -> MethodSpec:
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UsageError(
            f"The method name {name!r} cannot name a folder of runs; use letters, digits, "
            "'-', '_', '+' and '.', a letter or digit first."
        )
    if name in registry.methods.names():
        registered = registry.methods.get(name)
        if not loading.is_same_definition(registered, cls):
            raise UsageError(registry.methods.taken(name, cls))
    fields = [field.name for field in dataclasses.fields(cls) if field.init]
    for key in values:
        if key not in fields:
            it_has = f".{did_you_mean(key, fields)} It has: {', '.join(fields)}."
            raise UsageError(
                f"Method '{name}' has no hyperparameter '{key}'{it_has if fields else _NOR_ANY}"
            )
    values = plain(cls, values)
    _check_types(cls, name, values)
    for field in dataclasses.fields(cls):
        if field.init and field.name not in values and _no_default(field):
            raise UsageError(
                f"Method '{name}' has no value for '{field.name}'; give the field a default, or "
                f"--set {field.name}=…."
            )
    built = cls(**values)
    return MethodSpec(name + suffix, reference, _fields(built), source_of(cls).sha256)


def _no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _check_types(cls: type[Method], name: str, values: Mapping[str, Any]) -> None:
    """Refuse a value of another type than the field's: `--set decay=fast`, `--set decay=null`."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # a user's annotation that only a type checker can resolve
        return
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"Method '{name}': {key} = {value} is not a finite number.")
        if not fits(value, hints.get(key, Any)):
            expected = str(getattr(hints[key], "__name__", hints[key])).replace("typing.", "")
            raise UsageError(f"Method '{name}': {key} = {value!r} is not of type {expected}.")


def _fields(method: Method) -> dict[str, Any]:
    return {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.init}


def needs_boundaries(cls: type[Method], name: str = "") -> bool:
    """Say whether a method's rule needs to be told when the data change.

    Its recipe may say so; otherwise whether it overrides `on_phase` or `phase_steps` does.
    """
    recipe = get_recipe(name) if name else None
    if recipe is not None and recipe.needs_boundaries is not None:
        return recipe.needs_boundaries
    parts = getattr(cls, "classes", ())
    if parts:
        return any(needs_boundaries(part, part.name) for part in parts)
    return cls.overrides("on_phase") or cls.overrides("phase_steps")
