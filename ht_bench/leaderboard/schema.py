"""The published JSON Schema of a submission file, which the writer and the checker both use."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs

from ht_bench.leaderboard.reading import plain, shown

SCHEMA_FILE = Path(__file__).with_name("submission.schema.json")
MOST_FAULTS = 20
MOST_LISTED = 20_000
"""Values of a file whose faults are all asked for: the library makes an object of each fault."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where in the file (a JSON path) and what, in a sentence.

    Both are one line of printable ASCII of bounded length, whatever they quote.
    """

    path: str
    sentence: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", plain(self.path))
        object.__setattr__(self, "sentence", plain(self.sentence))

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}"


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) as a dict."""
    return dict(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def schema_faults(document: Any) -> list[Fault]:
    """Return what in a parsed file breaks the schema, at most MOST_FAULTS of it.

    Of a document of more than MOST_LISTED values, the first. A whole number is to be written
    without a point, though JSON Schema takes 1.0 for one.
    """
    if _validator().is_valid(document):
        return [*itertools.islice(_pointed(document, schema(), ()), MOST_FAULTS)]
    if _has_more(document, MOST_LISTED):
        try:
            _validator().validate(document)
        except jsonschema_rs.ValidationError as error:
            return [_fault(error, document)]
    found = _validator().iter_errors(document)
    return [_fault(one, document) for one in itertools.islice(found, MOST_FAULTS)]


def json_path(parts: Iterable[str | int]) -> str:
    """Write a place in a file: $.tasks['permuted-digits-v1'].seeds['100'].curve."""
    return "$" + "".join(map(_step, parts))


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.isidentifier() and part.isascii() else f"[{shown(part)}]"


def _fault(error: Any, document: Any) -> Fault:
    return Fault(json_path(_place(error.instance_path, document)), f"{plain(error.message)}.")


def _place(parts: Iterable[str | int], document: Any) -> Iterator[str | int]:
    """Yield a place's steps: the library gives a key of digits, such as a seed's, as a number."""
    for part in parts:
        if isinstance(document, dict):
            part = str(part)
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int):
            document = document[part]
        yield part


def _has_more(document: Any, most: int) -> bool:
    waiting, count = [document], 0
    while waiting and count <= most:
        value = waiting.pop()
        items = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            count += len(value)
            waiting += [item for item in items if isinstance(item, dict | list)]
    return count > most


Place = tuple[str | int, ...]


def _pointed(value: Any, rule: Mapping[str, Any], path: Place) -> Iterator[Fault]:
    """Yield the numbers with a point where only integers may stand; the document is valid."""
    rules = [_followed(option) for option in _followed(rule).get("anyOf", [rule])]
    if isinstance(value, float) and not any("number" in one.get("type", ()) for one in rules):
        yield Fault(json_path(path), f"is {value}: a whole number is written without a point.")
    for key, item in _items(value):
        for below in _rules_of(key, rules):
            yield from _pointed(item, below, (*path, key))


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _rules_of(key: str | int, rules: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield what the first rule that knows `key` asks of the value there."""
    for rule in rules:
        if isinstance(key, int):
            below = rule.get("items")
        else:
            below = rule.get("properties", {}).get(key) or rule.get("additionalProperties")
        if below:
            yield below
            return


def _followed(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    name = rule.get("$ref", "").rpartition("/")[2]
    return _definitions()[name] if name else rule


@functools.cache
def _definitions() -> dict[str, Any]:
    return dict(schema()["$defs"])


@functools.cache
def _validator() -> Any:
    return jsonschema_rs.validator_for(schema(), mask="the value")
