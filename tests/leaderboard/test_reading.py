"""Reading untrusted JSON: every bound refuses with a sentence, and plain JSON comes through."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path

import pytest

from ht_bench.errors import UsageError
from ht_bench.leaderboard.reading import (
    DEEPEST,
    LARGEST_FILE,
    LONGEST_NUMBER,
    MOST_VALUES,
    Refused,
    parse_untrusted,
    plain,
    read_bounded,
    shown,
)

HERE = Path("entry.json")


def parse(text: str | bytes) -> object:
    return parse_untrusted(text.encode() if isinstance(text, str) else text, HERE)


def test_plain_json_comes_through_as_it_is() -> None:
    text = '{"a": [1, -2.5e-3, true, null, "Ø\\n", {}], "b": {"c": 9223372036854775807}}'
    assert parse(text) == json.loads(text)
    joined = "zero\u200cwidth joiners: \U0001f469\u200d\U0001f52c"
    assert parse(json.dumps(joined, ensure_ascii=False)) == joined


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ('{"a": 1} x', "is not valid JSON"),
        ("{'a': 1}", "is not valid JSON"),
        ('{"a": 1, "a": 1}', "the key 'a' stands twice"),
        ('[{"b": {"x": 1, "y": 2, "x": 3}}]', "the key 'x' stands twice"),
        ('{"a": 1, "\\u0061": 2}', "the key 'a' stands twice"),
        ("[NaN]", "NaN is no number of JSON"),
        ("[Infinity]", "Infinity is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ("[1e999]", "the number 1e999 is too large"),
        ("[-1e999]", "too large"),
        ("[9223372036854775808]", "too large"),
        ("[-9223372036854775808]", "too large"),
        (f"[{'9' * (LONGEST_NUMBER + 1)}]", "more than 40 characters"),
        (f"[0.{'1' * LONGEST_NUMBER}]", "more than 40 characters"),
        ('["\\ud800"]', "half a surrogate pair (U+D800)"),
        ('{"\\udfff": 1}', "half a surrogate pair"),
        ('["\\u0000"]', "control character U+0000"),
        ('["\\u001b[31m"]', "control character U+001B"),
        ('["\\u007f"]', "control character U+007F"),
        ('["\\u009b"]', "control character U+009B"),
        ('["\\t"]', "control character U+0009"),
        ('["\\u202e"]', "control character U+202E"),
        ('["\\u2066"]', "control character U+2066"),
        ('["\\u061c"]', "control character U+061C"),
        ('["\\u200b"]', "control character U+200B"),
        ('["\\ufeff"]', "control character U+FEFF"),
        ('["\\u2028"]', "control character U+2028"),
        ('["\\udb40\\udc41"]', "control character U+E0041"),
        ('["\x1b"]', "is not valid JSON"),
        ("\ufeff{}", "is not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(Refused, match="entry.json") as caught:
        parse(text)
    assert said in str(caught.value)
    assert str(caught.value).isascii() and str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_text_that_is_not_utf8() -> None:
    for data in ('{"a": 1}'.encode("utf-16"), b'{"a": "\xff"}', b'"\xed\xa0\x80"'):
        with pytest.raises(Refused, match="not UTF-8"):
            parse(data)


def test_depth_is_bounded_exactly() -> None:
    assert parse("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(Refused, match=f"more than {DEEPEST} levels"):
        parse("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))
    with pytest.raises(Refused, match=f"more than {DEEPEST} levels"):
        parse('{"a":[' * 10 + "1" + "]}" * 10)


def test_the_number_of_values_is_bounded() -> None:
    assert parse("[" + "1," * (MOST_VALUES - 2) + "1]")
    for many in ("[" + "1," * MOST_VALUES + "1]", "[" + "[]," * MOST_VALUES + "1]"):
        with pytest.raises(Refused, match="more than 1,000,000 values"):
            parse(many)


def test_many_keys_with_a_late_repetition_take_no_time() -> None:
    keys = ",".join(f'"{index:x}":0' for index in range(30_000))
    began = time.monotonic()
    with pytest.raises(Refused, match="stands twice"):
        parse("{" + keys + ',"752f":0}')
    assert time.monotonic() - began < 3


def test_size_is_bounded_exactly(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_bytes(b" " * (LARGEST_FILE - 2) + b"{}")
    assert parse(read_bounded(path)) == {}
    path.write_bytes(b" " * (LARGEST_FILE - 1) + b"{}")
    with pytest.raises(Refused, match="larger than 8 MiB"):
        read_bounded(path)


def test_what_is_no_file_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.json").symlink_to("loop.json")
    os.mkfifo(tmp_path / "pipe.json")
    signal.alarm(30)  # ends the process, should a pipe be waited for
    names = ("folder", "loop", "pipe", "absent", "x" * 300, "nul\0", "\x1b[31mred", "\udcff")
    for name in names:
        with pytest.raises(UsageError, match="Could not read") as caught:
            read_bounded(tmp_path / f"{name}.json")
        assert str(caught.value).isascii() and str(caught.value).isprintable()
    with pytest.raises(UsageError, match="not a file"):
        read_bounded(Path("/dev/zero"))
    signal.alarm(0)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain", "'plain'"),
        ("a\x1b[31m\n", r"'a\x1b[31m\n'"),
        ("é\u202e", r"'\xe9\u202e'"),
        ("\ud800", r"'\ud800'"),
        ("x" * 61, "'" + "x" * 60 + "...'"),
    ],
)
def test_shown(text: str, escaped: str) -> None:
    assert shown(text) == escaped


def test_plain_is_one_short_printable_line() -> None:
    text = "".join(map(chr, [*range(0x300), 0x202E, 0xD800, 0x1F600]))
    said = plain(text, 10_000)
    assert said.isascii() and said.isprintable()
    assert plain("a\nb\x1b…") == r"a\nb\x1b..."
    assert len(plain("x" * 10_000)) == 303


def test_no_number_is_lost() -> None:
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**63 - 1]
    found = parse(json.dumps(numbers))
    assert isinstance(found, list)
    assert found == numbers and math.copysign(1, found[4]) == -1
