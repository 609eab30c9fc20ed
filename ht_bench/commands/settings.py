"""Options of the command line that take KEY=VALUE, several at a time and as often as one likes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any

import tyro

from ht_bench.errors import UsageError

Settings = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]
"""What stands behind each occurrence of the option: `--set a=1 b=2` and `--set a=1 --set b=2`."""
METAVAR = "KEY=VALUE …"
EXAMPLES = {"--set": "decay=0.99", "--slurm": "partition=gpu"}
_TWO_IN_ONE = re.compile(r",\s*[A-Za-z_][\w.+-]*=")


def read_settings(given: Iterable[Iterable[str]], option: str = "--set") -> dict[str, Any]:
    """Return all settings by key, their values JSON where they can be, text otherwise.

    Raises UsageError for what is no setting, and for one key with two values.
    """
    settings: dict[str, Any] = {}
    for text in (text for words in given for text in words):
        key, value = _read(text, option)
        if key in settings and repr(settings[key]) != repr(value):
            raise UsageError(
                f"{option} gives {key} twice, {settings[key]!r} and {value!r}; leave one of them "
                "out."
            )
        settings[key] = value
    return settings


def _read(text: str, option: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        example = EXAMPLES[option]
        raise UsageError(f"{option} {text}: write key=value, e.g. {option} {example}.")
    try:
        return key, json.loads(value)
    except ValueError:
        pass
    if option == "--set" and _TWO_IN_ONE.search(value):
        parts = " ".join(re.split(r",\s*(?=[A-Za-z_][\w.+-]*=)", text))
        raise UsageError(
            f"{option} {text}: separate settings by spaces, not commas: {option} {parts}."
        )
    return key, value
