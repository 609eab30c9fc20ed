"""Mutations that every reader's files go through: of bytes, of text, and of tables as JSON or TOML.

All are drawn from a `random.Random`, so that a case is remade by its number alone.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import math
import re
import struct
import tomllib
from random import Random
from typing import Any

JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 1e-30, 1e308, 10**6, 10**9, 2**31, 2**63, 10**400),
    *(math.nan, math.inf, -math.inf, "", "x", "1", "../../x", "a.py:f", "é\n", "\x1b[2J", "\0"),
    *("a" * 3_000, "NaN", "\ud800", "\u202e", [], [1], [0], ["x"], [[1]], [1.5], [None], {}),
    *([4] * 2_000, {"a": 1}, {"name": "x"}, {"\n": []}, [[[[[[[[]]]]]]]]),
]
TOML_JUNK: list[Any] = [
    *JUNK,
    *(datetime.date(1979, 5, 27), datetime.time(7, 32), datetime.datetime(1979, 5, 27, 7, 32)),
    16**5_000,
]
KEYS = ["x", "name", "seeds", "schema", "tasks", "data", "", "a.b", "é\n", "k" * 3_000, "__class__"]
SIZES = [0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63]
LARGEST = 2**18
"""Bytes that a mutation may make of a file: what fills memory must do so from a small one."""
DEPTHS = [3, 100, 1_100, 100_000]
Place = tuple[str | int, ...]


# ---- bytes ----


def mutate_bytes(content: bytes, draw: Random, most: int = 6) -> bytes:
    """Return bytes that were flipped, cut, inserted, doubled, zeroed, or are sizes beyond sense."""
    made = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, most])):
        place = draw.randrange(len(made) + 1)
        if draw.random() < 0.5:  # headers and footers say how much there is
            place = min(place, draw.choice([8, 64]))
            place = place if draw.random() < 0.5 else max(0, len(made) - place)
        length = draw.choice([1, 2, 4, 8, 16, draw.randrange(1, 200)])
        end = place + length
        kind = draw.randrange(9)
        if kind == 0 and place < len(made):
            made[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and place < len(made):
            made[place] = draw.randrange(256)
        elif kind == 2:
            del made[place:end]
        elif kind == 3:
            made[place:place] = draw.randbytes(length)
        elif kind == 4:
            made[place:place] = made[place:end] * draw.choice([1, 1, 50])
        elif kind == 5:
            made[place:end] = bytes(length)
        elif kind == 6:
            made[place:end] = size(draw)
        elif kind == 7 and len(made) > 2:
            other = draw.randrange(len(made))
            made[place:end] = made[other : other + length]
        elif draw.random() < 0.3:
            del made[place:]
        if len(made) > LARGEST:
            del made[LARGEST:]
    return bytes(made)


def size(draw: Random) -> bytes:
    """Return one of SIZES as some header would hold it."""
    width, order = draw.choice("BHIQ"), draw.choice("<>")
    return struct.pack(order + width, draw.choice(SIZES) % 2 ** (8 * struct.calcsize("<" + width)))


# ---- text ----


def mutate_text(text: str, draw: Random) -> bytes:
    """Return a text file's bytes in another encoding, with other lines, numbers or nesting."""
    kind = draw.randrange(10)
    lines = text.splitlines(keepends=True)
    place = draw.randrange(len(lines)) if lines else 0
    if kind == 0:
        return text.encode(draw.choice(["utf-8-sig", "utf-16", "utf-32-be", "utf-16-le"]))
    if kind == 1:
        return text.replace("\n", draw.choice(["\r\n", "\r", "\n\n", "\x0b", "\u2028"])).encode()
    if kind == 2 and lines:  # a key that stands twice, or a line elsewhere
        lines.insert(draw.randrange(len(lines)), lines[place])
    elif kind == 3 and lines:
        lines.pop(place)
    elif kind == 4:
        opened, closed = draw.choice([("[", "]"), ("{a=", "}"), ('{"a":', "}")])
        depth = draw.choice(DEPTHS)
        return other_value(
            text, opened * depth + "1" + closed * draw.choice([depth, depth - 1]), draw
        )
    elif kind == 5:  # a key of many parts
        parts = draw.choice([3, 30, 3_000, 100_000])
        key = ".".join(["a"] * parts)
        return (
            text + draw.choice([f"\n{key} = 1\n", f"\n[{key}]\nb = 1\n", f'\n"{key}": 1'])
        ).encode()
    elif kind == 6:
        number = draw.choice(
            ["NaN", "nan", "-inf", "Infinity", "1e999", "9" * 5_000, "0x" + "f" * 5_000]
        )
        return other_value(text, number, draw)
    elif kind == 7:
        word = draw.choice(
            ['"\\ud800"', '"\\q"', '"', "'''", '"""', '"' + "x" * 9_000 + '"', "'\\'"]
        )
        return other_value(text, word, draw)
    elif kind == 8:
        return text.encode() * draw.choice([2, 3])
    else:
        return mutate_bytes(text.encode(), draw)
    return "".join(lines).encode()


def other_value(text: str, value: str, draw: Random) -> bytes:
    """Return the text with one of its numbers or strings exchanged for `value`."""
    places = list(re.finditer(r"""(?<=[=:,\[] )[-\w."]+|(?<=[=:,\[])[-\w."]+""", text))
    if not places:
        return (text + value).encode()
    chosen = draw.choice(places)
    return (text[: chosen.start()] + value + text[chosen.end() :]).encode()


# ---- tables ----


def places(value: Any, path: Place = ()) -> list[Place]:
    """Return every place in nested dicts and lists, of long lists the first and the last."""
    found = [path] if path else []
    if isinstance(value, dict):
        steps: list[Any] = list(value)
    elif isinstance(value, list):
        steps = [*range(min(3, len(value))), *range(max(3, len(value) - 1), len(value))]
    else:
        steps = []
    for step in steps:
        found += places(value[step], (*path, step))
    return found


def mutate_table(table: Any, draw: Random, junk: list[Any]) -> Any:
    """Return a changed copy of nested dicts and lists: keys lost, added, values of other types."""
    table = copy.deepcopy(table)
    if draw.random() < 0.02:
        return copy.deepcopy(draw.choice(junk))
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        every = places(table)
        if not every:
            break
        *above, key = draw.choice(every)
        holder = table
        for part in above:
            holder = holder[part]
        value, other = holder[key], copy.deepcopy(draw.choice(junk))
        kind = draw.randrange(7)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(KEYS)] = other
        elif kind == 2 and isinstance(value, list):
            holder[key] = draw.choice([[], value[:-1], [*value, *value[-1:]], value * 2, [other]])
        elif kind == 3 and type(value) in (int, float):
            factor = draw.choice([0, -1, 2, 1_000, 10**9, 0.5])
            with contextlib.suppress(OverflowError):  # no float is as large as some integers
                holder[key] = value * factor
        elif kind == 4 and isinstance(value, str):
            holder[key] = draw.choice([value[:-1], value + "x", value.upper(), value[::-1]])
        else:
            holder[key] = other
    return table


def to_json(value: Any) -> bytes:
    """Write JSON, what it has no words for (surrogates, NaN) as Python does."""
    return json.dumps(value, default=str).encode()


def to_toml(value: Any) -> bytes:
    """Write a table as TOML; what TOML has no words for (null) is left out."""
    items = value.items() if isinstance(value, dict) else [("x", value)]
    lines = [f"{_quoted(str(key))} = {_toml(item)}\n" for key, item in items if item is not None]
    return "".join(lines).encode("utf-8", "surrogatepass")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return hex(value) if value > 10**30 else str(max(value, -(10**4_000)))
    if isinstance(value, dict):
        pairs = (f"{_quoted(str(k))} = {_toml(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value if item is not None) + "]"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "")


def mutate_json(content: bytes, draw: Random) -> bytes:
    """Return a mutated JSON file: changed in its values, its text or its bytes."""
    if draw.random() < 0.5:
        return to_json(mutate_table(json.loads(content), draw, JUNK))
    return _mutate_as_text(content, draw)


def mutate_toml(content: bytes, draw: Random) -> bytes:
    """Return a mutated TOML file: changed in its values, its text or its bytes."""
    if draw.random() < 0.5:
        return to_toml(mutate_table(tomllib.loads(content.decode()), draw, TOML_JUNK))
    return _mutate_as_text(content, draw)


def _mutate_as_text(content: bytes, draw: Random) -> bytes:
    if draw.random() < 0.6:
        return mutate_text(content.decode(), draw)
    return mutate_bytes(content, draw)
