"""What can be said of a method's class before anything runs: its fields and its hooks' names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType

from ht_bench.errors import did_you_mean
from ht_bench.methods.base import Method

PREFIXES = ("on_", "after_", "before_", "enter_")
"""How hooks' names begin that one is easily mistaken for."""


def check_class(cls: type[Method]) -> None:
    """Raise AssertionError for fields that are none, hooks that nothing calls or that cannot be.

    Annotated names of a class that is no dataclass are no hyperparameters: `--set` and results
    would not know them. A hook must take what loops call it with.
    """
    if undeclared := [*undeclared_fields(cls)]:
        raise AssertionError(
            f"{cls.__name__} has fields that are no hyperparameters ({', '.join(undeclared)}), "
            "since it is no dataclass; write @dataclass(eq=False) above it, or register it."
        )
    for own in _own_classes(cls):
        for name, function in vars(own).items():
            if isinstance(function, FunctionType):
                _check_hook(own, name, function)


def undeclared_fields(cls: type[Method]) -> Iterator[str]:
    """Yield annotated names, ClassVar aside, that are no dataclass fields."""
    fields = cls.__dataclass_fields__
    for own in _own_classes(cls):
        for name, hint in vars(own).get("__annotations__", {}).items():
            if name not in fields and "ClassVar" not in str(hint):
                yield name


def _own_classes(cls: type[Method]) -> list[type]:
    """Return the classes of a method that are not of the contract itself."""
    return [own for own in cls.__mro__ if own not in Method.__mro__]


def _check_hook(own: type, name: str, function: FunctionType) -> None:
    hook = getattr(Method, name, None)
    if hook is None:
        known = [n for n in dir(Method) if n.startswith(PREFIXES)]
        hint = did_you_mean(name, known)
        if name.startswith(PREFIXES) and hint:
            raise AssertionError(
                f"{own.__name__}.{name} is no hook, and no loop calls it.{hint} Let a helper "
                "of your own begin with an underscore."
            )
        return
    if name.startswith("_") or not inspect.isfunction(hook):
        return
    wanted = inspect.signature(hook)
    places = [p for p in wanted.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    try:
        inspect.signature(function).bind(*range(len(places)))
    except TypeError as error:
        raise AssertionError(
            f"{own.__name__}.{name} takes {inspect.signature(function)}; a loop calls it as "
            f"{name}{wanted.replace(return_annotation=inspect.Signature.empty)}."
        ) from error
