"""Reading a file that a stranger wrote: bounded in size and depth, plain JSON and nothing else."""

from __future__ import annotations

import json
import math
import stat
import unicodedata
from pathlib import Path
from typing import Any, NoReturn

from ht_bench.errors import UsageError

LARGEST_FILE = 8 * 2**20
"""Bytes of a submission; 20 tasks × 20 seeds of long curves take less than two million."""
MOST_VALUES = 1_000_000
"""Values in a file, by its commas and brackets: each takes many times its text in memory."""
DEEPEST = 12
LONGEST_NUMBER = 40
LONGEST_SENTENCE = 300


class Refused(UsageError):
    """The file is no plain JSON of a bearable size; the sentence says where."""


def read_bounded(path: Path) -> bytes:
    """Return a file's bytes.

    Raises Refused for more than LARGEST_FILE of them, UsageError where there is no regular file
    to read: nothing is there, or a folder, a pipe, a device.
    """
    where = plain(str(path))
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise UsageError(f"Could not read {where}: {_reason(error)}.") from error
    if not regular:  # a pipe would be waited for without end
        raise UsageError(f"Could not read {where}: it is not a file.")
    try:
        with path.open("rb") as handle:
            data = handle.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"Could not read {where}: {_reason(error)}.") from error
    if len(data) > LARGEST_FILE:
        raise Refused(
            f"{where} is larger than {LARGEST_FILE // 2**20} MiB, the most a file may be."
        )
    return data


def parse_untrusted(data: bytes, path: Path) -> Any:
    """Return JSON text as dicts, lists, strings, finite numbers, bools and None.

    Raises Refused for text that is not UTF-8, holds more than MOST_VALUES or nests more than
    DEEPEST levels, or holds a repeated key, NaN, an infinity, a number of more than
    LONGEST_NUMBER characters, half a surrogate pair, or a character that does not show.
    path: of the file, for the sentences.
    """
    where = plain(str(path))
    text = _text(data, where)
    try:
        content = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except RecursionError as error:
        raise Refused(f"{where} is nested too deeply for JSON of this kind.") from error
    except _Fault as error:
        raise Refused(f"{where}: {error}.") from error
    except ValueError as error:
        raise Refused(f"{where} is not valid JSON: {plain(str(error))}.") from error
    _check_strings(content, where)
    return content


def shown(text: str, length: int = 60) -> str:
    """Return a stranger's text as one that can be printed in a sentence: short, escaped, quoted."""
    cut = text if len(text) <= length else text[:length] + "…"
    return ascii(cut).replace("\\u2026'", "...'")


def plain(text: str, length: int = LONGEST_SENTENCE) -> str:
    """Return a sentence that may quote a stranger as one line of printable ASCII, cut."""
    cut = text if len(text) <= length else text[:length] + "…"
    return "".join(c if " " <= c <= "~" else _ESCAPES.get(c) or ascii(c)[1:-1] for c in cut)


_ESCAPES = {"…": "...", "×": "x"}


class _Fault(Exception):
    """What a parser's hook found."""


def _reason(error: OSError | ValueError) -> str:
    return plain(str((isinstance(error, OSError) and error.strerror) or error))


def _text(data: bytes, where: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"{where} is not UTF-8 text (byte {error.start}).") from error
    if sum(map(text.count, "[{,")) > MOST_VALUES:
        raise Refused(f"{where} holds more than {MOST_VALUES:,} values.")
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        met: set[str] = set()
        for name, _ in pairs:
            if name in met:
                raise _Fault(f"the key {shown(name)} stands twice in one object")
            met.add(name)
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
        raise _Fault(f"the number {text[:10]}... has more than {LONGEST_NUMBER} characters")
    return text


def _check_strings(content: Any, where: str) -> None:
    """Walk without recursion; refuse depth and characters that no terminal or page should get."""
    waiting: list[tuple[Any, int]] = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            _check_string(value, where)
        if not isinstance(value, dict | list):
            continue
        if depth > DEEPEST:
            raise Refused(f"{where} is nested more than {DEEPEST} levels deep.")
        for name in value if isinstance(value, dict) else ():
            _check_string(name, where)
        items = value.values() if isinstance(value, dict) else value
        waiting += [(item, depth + 1) for item in items if isinstance(item, dict | list | str)]


def _check_string(text: str, where: str) -> None:
    if text.isascii() and text.isprintable():
        return
    for character in sorted(set(text) - _SHOWING):
        kind = unicodedata.category(character)
        if kind == "Cs":
            raise Refused(f"{where}: a string holds half a surrogate pair (U+{ord(character):X}).")
        if kind in _HIDDEN:
            raise Refused(f"{where}: a string holds the control character U+{ord(character):04X}.")


_HIDDEN = ("Cc", "Cf", "Zl", "Zp")
"""Categories that do not show: controls, marks that turn the direction of text, line ends."""
_SHOWING = {"\n", "\u200c", "\u200d"}
"""Of these, what honest text holds: the joiners shape words of some scripts, and emoji."""
