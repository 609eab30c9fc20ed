"""Reading a file that a stranger wrote: bounded in size and depth, plain JSON and nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from ht_bench.errors import UsageError

LARGEST_FILE = 8 * 2**20
"""Bytes of a submission; 20 tasks × 20 seeds of long curves take less than two million."""
DEEPEST = 12
LONGEST_NUMBER = 40


class Refused(UsageError):
    """The file is no plain JSON of a bearable size; the sentence says where."""


def read_untrusted(path: Path) -> Any:
    """Return the content of a JSON file as dicts, lists, strings, finite numbers, bools and None.

    Raises Refused for a file that is too large, not UTF-8, nested more than DEEPEST levels, or
    holds a repeated key, NaN, an infinity, a number of more than LONGEST_NUMBER characters, half
    a surrogate pair, or a control character; UsageError where the file cannot be read.
    """
    text = _text(path)
    try:
        content = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except RecursionError as error:
        raise Refused(f"{path} is nested too deeply for JSON of this kind.") from error
    except _Fault as error:
        raise Refused(f"{path}: {error}.") from error
    except ValueError as error:
        raise Refused(f"{path} is not valid JSON: {str(error)[:200]}.") from error
    _check_strings(content, path)
    return content


def shown(text: str, length: int = 60) -> str:
    """Return a stranger's text as one that can be printed in a sentence: short, escaped, quoted."""
    cut = text if len(text) <= length else text[:length] + "…"
    return ascii(cut).replace("\\u2026'", "…'")


class _Fault(Exception):
    """What a parser's hook found."""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            data = handle.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"Could not read {path}: {error.strerror or error}.") from error
    if len(data) > LARGEST_FILE:
        raise Refused(f"{path} is larger than {LARGEST_FILE // 2**20} MiB, the most a file may be.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not UTF-8 text (byte {error.start}).") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _Fault(f"the key {shown(twice)} stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Fault(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(_bearable(text))
    if not math.isfinite(number):
        raise _Fault(f"the number {text} is too large")
    return number


def _short(text: str) -> int:
    number = int(_bearable(text))
    if abs(number) >= 2**63:
        raise _Fault(f"the number {text} is too large")
    return number


def _bearable(text: str) -> str:
    if len(text) > LONGEST_NUMBER:
        raise _Fault(f"the number {text[:10]}… has more than {LONGEST_NUMBER} characters")
    return text


def _check_strings(content: Any, path: Path) -> None:
    """Walk without recursion; refuse depth and characters that no terminal or page should get."""
    waiting: list[tuple[Any, int]] = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise Refused(f"{path} is nested more than {DEEPEST} levels deep.")
        if isinstance(value, dict):
            for name in value:
                _check_string(name, path)
            waiting += [(item, depth + 1) for item in value.values() if _holds(item)]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value if _holds(item)]
        elif isinstance(value, str):
            _check_string(value, path)


def _holds(value: Any) -> bool:
    return isinstance(value, dict | list | str)


def _check_string(text: str, path: Path) -> None:
    if text.isascii() and text.isprintable():
        return
    for character in text:
        code = ord(character)
        if 0xD800 <= code <= 0xDFFF:
            raise Refused(f"{path}: a string holds half a surrogate pair (U+{code:04X}).")
        if (code < 0x20 and character != "\n") or 0x7F <= code < 0xA0 or code in _DIRECTIONS:
            raise Refused(f"{path}: a string holds the control character U+{code:04X}.")


_DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xFEFF}
"""Characters that turn the direction of text around: what is read is not what is there."""
