"""The published JSON Schema of a submission file, which the writer and the checker both use."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs

from ht_bench.leaderboard.untrusted import shown

SCHEMA_FILE = Path(__file__).with_name("submission.schema.json")
MOST_FAULTS = 20
LONGEST_SENTENCE = 240


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where in the file (a JSON path) and what, in a sentence."""

    path: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}"


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) as a dict."""
    return dict(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def schema_faults(document: Any) -> list[Fault]:
    """Return what in a parsed file breaks the schema, at most MOST_FAULTS of it."""
    found = itertools.islice(_validator().iter_errors(document), MOST_FAULTS)
    return [Fault(json_path(error.instance_path), _sentence(error)) for error in found]


def json_path(parts: Iterable[str | int]) -> str:
    """Write a place in a file: $.tasks['permuted-digits-v1'].seeds['100'].curve."""
    return "$" + "".join(map(_step, parts))


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.isidentifier() and part.isascii() else f"[{shown(part)}]"


def _sentence(error: Any) -> str:
    # The library's sentence quotes the value, which may be long and hostile: escape and cut it.
    text = error.message.encode("ascii", "backslashreplace").decode()
    cut = text if len(text) <= LONGEST_SENTENCE else text[:LONGEST_SENTENCE] + "…"
    return f"{cut}."


@functools.cache
def _validator() -> Any:
    return jsonschema_rs.validator_for(schema(), mask="the value")
