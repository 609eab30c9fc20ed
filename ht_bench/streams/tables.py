"""A TOML table → a frozen dataclass, every key and type checked, nested tables too."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ht_bench.errors import UsageError, did_you_mean, reason, shown

T = TypeVar("T")
_hints = functools.cache(typing.get_type_hints)


LARGEST_FILE = 2**22
"""Bytes of a TOML file at most."""
LARGEST_NUMBER = 10**15
"""Whole numbers beyond are a slip of the finger, whatever the key."""
MOST_TABLES = 10_000
"""Tables that one key may hold, repeated ones counted each time."""
DEEPEST = 32
"""Tables and lists within one another, and parts of one key."""
LONGEST_KEY = 200
_TOKENS = re.compile(
    r'''(?P<dot>\.)|(?P<rest>"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?|'{3}(?:[^']++|'(?!''))*+(?:'{3})?'''
    r"""|"(?:[^"\\\n]++|\\.)*+"?|'[^'\n]*+'?|[\w-]++|[ \t]++)|(?:\#[^\n]*+|[^.])""",
    re.DOTALL,
)


def read_toml(path: Path, cure: str = "fix that line") -> dict[str, Any]:
    """Return a file's tables; raises UsageError, which ends with `cure`, for what is no TOML."""
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > LARGEST_FILE):
            raise UsageError(f"{path} is no file of at most {LARGEST_FILE:,} bytes; {cure}.")
        text = path.read_text(encoding="utf-8-sig")  # editors may add a mark
        _check_keys(text)
        table = tomllib.loads(text)
    except UsageError:
        raise
    except OSError as error:
        why = f"Could not read {path}: {error.strerror or error}"
        raise UsageError(f"{why}; correct the path, or the file's permissions.") from error
    except (ValueError, RecursionError) as error:  # of TOML, of encoding, of 5,000 digits
        raise UsageError(f"{path} is not valid TOML: {reason(error)}; {cure}.") from error
    check_values(table, str(path))
    return table


def _check_keys(text: str) -> None:
    """Raise ValueError for a key of many parts: the parser's time and memory grow by its square."""
    if all(line.count(".") <= DEEPEST for line in text.split("\n")):
        return
    dots = 0
    for token in _TOKENS.finditer(text):
        dots = dots + 1 if token["dot"] else dots if token["rest"] else 0
        if dots > DEEPEST:
            raise ValueError(f"a key of more than {DEEPEST} parts")


_MARKS = {"recipe": "summary", "suite": "tasks", "task": "phases"}
"""A key that files of one kind have; the first tells most, since recipes have [tasks] too."""


def check_kind(table: Mapping[str, Any], kind: str, where: str) -> None:
    """Raise UsageError for a file that is plainly of another kind: a suite, not a task."""
    others = [other for other, mark in _MARKS.items() if other != kind and mark in table]
    if others and _MARKS[kind] not in table:
        how = "--method" if others[0] == "recipe" else f"--{others[0]}"
        raise UsageError(f"{where} is a {others[0]}, no {kind}; name it with {how}.")


def check_values(value: Any, where: str, key: str = "", depth: int = 0) -> None:
    """Raise UsageError naming the first key whose value no file of the benchmark can hold.

    Those are dates and times, whole numbers beyond all measure (seeds may be any), and what is
    nested too deeply; no key is longer than LONGEST_KEY or holds what cannot be shown.
    """
    if depth > DEEPEST:
        raise UsageError(f"{where}: {shown(key)} is nested more than {DEEPEST} deep; flatten it.")
    if isinstance(value, Mapping):
        for name, item in value.items():
            if len(str(name)) > LONGEST_KEY or not str(name).isprintable():
                raise UsageError(f"{where}: the key {shown(name)} is no key here; correct it.")
            check_values(item, where, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_values(item, where, f"{key}[{index}]", depth + 1)
    elif isinstance(value, datetime.date | datetime.time):
        raise UsageError(
            f"{where}: {shown(key)} is the date or time {value}; quote it, or correct it."
        )
    elif isinstance(value, int) and abs(value) > LARGEST_NUMBER and not key.startswith("seeds"):
        size = f"{value:.3g}" if abs(value) < 10**300 else "too long to show"
        raise UsageError(
            f"{where}: {shown(key)} is {size}; at most {LARGEST_NUMBER:,} is read. Correct it."
        )


def read_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from `table`; `where` names file and table in error sentences.

    A field that is a dataclass, a mapping or a tuple of dataclasses is read from [key], from
    [key.name] and from [[key]], where `repeat` says how often a table stands.
    Raises UsageError on an unknown key, a missing one, or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise UsageError(
                f"{where}: unknown key {shown(key)}.{did_you_mean(key, fields)} "
                f"Known keys: {', '.join(fields)}."
            )
    hints = _hints(cls)  # type: ignore[arg-type]
    values = {key: _read(value, hints[key], where, key) for key, value in table.items()}
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UsageError(f"{where}: the key '{name}' is missing; add it.")
    return cls(**values)


def _read(value: Any, hint: Any, where: str, key: str) -> Any:
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return read_table(typing.cast(type, hint), _table(value, where, key), f"{where} [{key}]")
    if arguments and dataclasses.is_dataclass(arguments[0]):
        return _read_repeated(arguments[0], value, where, key)
    if arguments and dataclasses.is_dataclass(arguments[-1]):
        names = _table(value, where, key)
        return {name: _read(names[name], arguments[-1], where, f"{key}.{name}") for name in names}
    return _convert(value, hint, f"{where}: '{key}'")


def _table(value: Any, where: str, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: '{key}' must be a table; write [{key}] above its keys.")
    return value


def _read_repeated(cls: Any, tables: Any, where: str, key: str) -> tuple[Any, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise UsageError(f"{where}: '{key}' must be tables; write [[{key}]] above each one.")
    rows: list[Any] = []
    for index, table in enumerate(tables, start=1):
        values = dict(table)
        repeat = values.pop("repeat", 1)
        place = f"{where} [[{key}]] {index}"
        if not fits(repeat, int) or repeat < 1:
            raise UsageError(f"{place}: 'repeat' is {shown(repeat)}; it must be 1 or more.")
        if len(rows) + repeat > MOST_TABLES:
            raise UsageError(
                f"{place}: 'repeat' is {repeat}; at most {MOST_TABLES:,} [[{key}]] are read."
            )
        rows += [read_table(cls, values, place)] * repeat
    return tuple(rows)


def fits(value: Any, hint: Any) -> bool:
    """Whether a field annotated `hint` takes `value`; plain types and their unions are checked.

    A float takes whole numbers too; a bool is no number.
    """
    if hint in (float, int):
        numbers = int | float if hint is float else int
        return isinstance(value, numbers) and not isinstance(value, bool)
    if hint in (bool, str, dict, type(None)):
        return isinstance(value, hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(hint))
    return True


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        fitting = (option for option in arguments if fits(value, option))
        return _convert(value, next(fitting, arguments[0]), where)
    if origin is tuple:
        return _convert_tuple(value, arguments, where)
    if origin is typing.Literal:
        if value not in arguments:
            options = ", ".join(map(repr, arguments))
            raise UsageError(f"{where} is {shown(value)}; it must be one of {options}.")
        return value
    expected = hint if origin is None else dict
    if not fits(value, expected):
        raise UsageError(f"{where} is {shown(value)}; it must be of type {expected.__name__}.")
    return float(value) if hint is float else value


def _convert_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where} is {shown(value)}; it must be a list.")
    variadic = len(arguments) == 2 and arguments[1] is Ellipsis
    if not variadic and len(value) != len(arguments):
        raise UsageError(f"{where} has {len(value)} values; it must have {len(arguments)}.")
    kinds = [arguments[0]] * len(value) if variadic else list(arguments)
    return tuple(
        _convert(item, kind, f"{where}[{index}]")
        for index, (item, kind) in enumerate(zip(value, kinds, strict=True))
    )
