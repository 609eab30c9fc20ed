"""A TOML table → a frozen dataclass, every key and type checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ht_bench.errors import UsageError, did_you_mean

T = TypeVar("T")


def check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise UsageError for the first key of `table` that is not in `known`."""
    names = list(known)
    for key in table:
        if key not in names:
            raise UsageError(
                f"{where}: unknown key '{key}'.{did_you_mean(key, names)} "
                f"Known keys: {', '.join(names)}."
            )


def read_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from `table`; `where` names file and table in error sentences.

    Raises UsageError on an unknown key, a missing one, or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    check_keys(table, fields, where)
    hints = typing.get_type_hints(cls)
    values = {key: _convert(value, hints[key], f"{where}: '{key}'") for key, value in table.items()}
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            raise UsageError(f"{where}: the key '{name}' is missing; add it.")
    return cls(**values)


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, where)
    if origin is tuple:
        return _convert_tuple(value, typing.get_args(hint), where)
    if origin is typing.Literal:
        options = typing.get_args(hint)
        if value not in options:
            named = ", ".join(repr(option) for option in options)
            raise UsageError(f"{where} is {value!r}; it must be one of {named}.")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = dict if origin is not None else hint
    if (isinstance(value, bool) and expected is not bool) or not isinstance(value, expected):
        name = getattr(expected, "__name__", str(expected))
        raise UsageError(f"{where} is {value!r}; it must be of type {name}.")
    return value


def _convert_union(value: Any, hint: Any, where: str) -> Any:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    for option in options[:-1]:
        if isinstance(option, type) and isinstance(value, option):
            return value
    return _convert(value, options[-1], where)


def _convert_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where} is {value!r}; it must be a list.")
    variadic = len(arguments) == 2 and arguments[1] is Ellipsis
    if not variadic and len(value) != len(arguments):
        raise UsageError(f"{where} has {len(value)} values; it must have {len(arguments)}.")
    kinds = [arguments[0]] * len(value) if variadic else list(arguments)
    return tuple(
        _convert(item, kind, f"{where}[{index}]")
        for index, (item, kind) in enumerate(zip(value, kinds, strict=True))
    )
