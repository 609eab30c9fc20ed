"""Untrusted JSON: what is refused, where the faults are said to be, and that both are bounded."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.leaderboard.reading import (
    LARGEST_FILE,
    LONGEST_NUMBER,
    MOST_FAULTS,
    MOST_LISTED,
    MOST_VALUES,
    Fault,
    Refused,
    json_path,
    parse_untrusted,
    plain,
    read_bounded,
    schema,
    schema_faults,
    shown,
)
from ht_bench.leaderboard.valid import check_bytes

Content = dict[str, Any]
HERE = Path("entry.json")
TASK = "$.tasks['quick-digits-v1']"


def parse(text: str | bytes) -> Any:
    return parse_untrusted(text.encode() if isinstance(text, str) else text, HERE)


# ---- the text ----


def test_plain_json_comes_through_as_it_is() -> None:
    text = '{"a": [1, -2.5e-3, true, null, "Ø\\n", {}], "b": {"c": 9223372036854775807}}'
    assert parse(text) == json.loads(text)
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**63 - 1]
    again = parse(json.dumps(numbers))
    assert again == numbers and math.copysign(1, again[4]) == -1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ('{"a": 1} x', "is not valid JSON"),
        ("{'a': 1}", "is not valid JSON"),
        ('["\x1b"]', "is not valid JSON"),
        ("\ufeff{}", "is not valid JSON"),
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
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" + "1," * MOST_VALUES + "1]", "more than 1,000,000 values"),
        ("[" + "[]," * (MOST_VALUES // 2) + "1]", "more than 1,000,000 values"),
        ('{"a": 1}'.encode("utf-16"), "'utf-8' codec"),
        (b'{"a": "\xff"}', "'utf-8' codec"),
        (b'"\xed\xa0\x80"', "'utf-8' codec"),
    ],
)
def test_what_is_no_plain_json(text: str | bytes, said: str) -> None:
    with pytest.raises(Refused, match="entry.json") as caught:
        parse(text)
    assert said in str(caught.value)
    assert str(caught.value).isascii() and str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_late_repetition_among_many_keys() -> None:
    """Each key is counted once: comparing it with all others would take minutes here."""
    keys = ",".join(f'"{index:x}":0' for index in range(100_000))
    with pytest.raises(Refused, match="the key '752f' stands twice"):
        parse("{" + keys + ',"752f":0}')


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
    signal.alarm(300)  # ends the process, should a pipe be waited for
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


# ---- the schema ----


def test_the_published_schema_is_one_and_closed() -> None:
    """No object takes a key that the schema does not name, but for maps of bounded values."""
    published = schema()
    assert published["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def walk(rule: Any) -> None:
        if isinstance(rule, dict):
            assert "score" not in rule.get("properties", {})
            kinds = {rule["type"]} if isinstance(rule.get("type"), str) else {*rule.get("type", ())}
            if "object" in kinds:
                assert "additionalProperties" in rule
                named = rule["additionalProperties"] is not False
                assert not named or {"propertyNames", "maxProperties"} <= rule.keys()
            if "array" in kinds:
                assert "maxItems" in rule and "items" in rule
            if "string" in kinds and "pattern" not in rule:
                assert "maxLength" in rule and rule["allOf"] == [{"$ref": "#/$defs/text"}]
            for item in rule.values():
                walk(item)
        for item in rule if isinstance(rule, list) else ():
            walk(item)

    walk(published)


@pytest.fixture
def change(content: Content) -> Callable[[str, Any], Content]:
    """Set "task/grid/step/0" and the like; % is a slash in a key, "seed" is seed 100's table."""

    def set_at(path: str, value: Any) -> Content:
        path = path.replace("task/", "tasks/quick-digits-v1/").replace("seed/", "seeds/100/")
        *parts, last = [part.replace("%", "/") for part in path.split("/")]
        holder: Any = content
        for part in parts:
            holder = holder[int(part) if isinstance(holder, list) else part]
        holder[int(last) if isinstance(holder, list) else last] = value
        return content

    return set_at


BREAKING: dict[str, list[Any]] = {
    "schema": [2, True, "1"],
    "benchmark": ["0.1\n", 0.1],
    "name": ["", "../../etc/passwd", "/etc/passwd", "C:\\x", "early-stop\n", "a..b", "-rf", "é"],
    "method": [{}, None],
    "authors": [[], ["A"] * 51, ["A" * 101], "A"],
    "link": ["javascript:alert(1)", "https://a b", 'https://a"onclick=', "https://" + "a" * 300],
    "method/name": ["os:system", "a/b.py", ".hidden", "a" * 201],
    "method/source_sha256": ["A" * 64, "a" * 63],
    "method/needs_boundaries": [0],
    "method/network": [{"hidden": [[1]]}, {"h": {"a": []}}, {"k" * 61: 1}, {"h": [1] * 101}],
    "method/score": [1.0],
    "tuning/how": [""],
    "tuning/runs": [-1, 1.5],
    "split": ["validation"],
    "precision": ["fp16"],
    "device": ["cuda:0"],
    "score": [1.0],
    "tasks": [{}, []],
    "tasks/..%..%passwd": [{}],
    "task/score": [1],
    "task/hyperparameters": [{str(i): i for i in range(61)}, {"a": "x" * 301}],
    "task/software": [{"torch": 2.5}, {"torch": "x" * 201}],
    "task/hardware": [{"gpu": None}],
    "task/none_cost": [{"seconds": 1.0}, {"seconds": -1.0, "peak_memory_bytes": 1}],
    "task/grid/phase": [[0]],
    "task/grid/step/1": [-1, None],
    "task/seeds": [{}],
    "task/seeds/0100": [{}],
    "task/seeds/-1": [{}],
    "task/seeds/score": [{}],
    "task/seed/status": ["running"],
    "task/seed/seconds": [1e10],
    "task/seed/score": [1.0],
    "task/seed/retention": [[1e13], [None]],
    "task/seed/curve": [{}],
    "task/seed/curve/test%loss": [[0.1, 0.2]],
    "task/seed/curve/test%accuracy": [[0.1, "0.2"], [0.1, True], [0.1, -1e13], [0.1] * 100_001],
}


@pytest.mark.parametrize("path", BREAKING)
def test_what_breaks_the_schema(path: str, change: Any, content: Content) -> None:
    assert schema_faults(content) == []
    for value in BREAKING[path]:
        assert schema_faults(change(path, value)), value


FREE = ("link", "authors/0", "method/summary", "method/citation", "tuning/how", "task/software/a")
HIDDEN = "\0\x1b\t\x7f\x9b\u202e\u2066\u061c\u200b\ufeff\u2028\U000e0041"


@pytest.mark.parametrize("path", [*FREE, "task/hardware/a", "task/hyperparameters/a"])
def test_characters_that_do_not_show_are_refused_where_text_is_free(path: str, change: Any) -> None:
    for character in HIDDEN:
        faults = schema_faults(change(path, f"https://a{character}b"))
        assert "control character" in str(faults) and faults[0].path != "$"
    assert "surrogate" in str(schema_faults(change(path, "https://\ud800")))
    assert schema_faults(change(path, "https://\U0001f469\u200d\U0001f52c")) == []


@pytest.mark.parametrize("key", ["software", "hardware", "hyperparameters"])
def test_nor_in_free_keys(key: str, change: Any) -> None:
    for character in [*HIDDEN, "\ud800"]:
        assert schema_faults(change(f"task/{key}", {f"a{character}": 1})), ascii(character)
    assert schema_faults(change(f"task/{key}", {"a\nb": 1, "Ø": "a\nb"})) == []


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("schema", "$.schema"),
        ("tuning/runs", "$.tuning.runs"),
        ("task/classes", f"{TASK}.classes"),
        ("task/stack", f"{TASK}.stack"),
        ("task/extra_parameters", f"{TASK}.extra_parameters"),
        ("task/software/threads", f"{TASK}.software.threads"),
        ("task/grid/phase/0", f"{TASK}.grid.phase[0]"),
        ("task/grid/step/0", f"{TASK}.grid.step[0]"),
        ("task/seed/steps", f"{TASK}.seeds['100'].steps"),
        ("task/none_cost/peak_memory_bytes", f"{TASK}.none_cost.peak_memory_bytes"),
    ],
)
def test_whole_numbers_are_written_without_a_point(path: str, place: str, change: Any) -> None:
    """JSON Schema takes 1.0 for an integer; an array cannot be indexed by it."""
    content = change("task/none_cost", {"seconds": 2.0, "peak_memory_bytes": 3})
    content["tasks"]["quick-digits-v1"]["hyperparameters"]["decay"] = 1.0
    change("task/seed/curve/test%accuracy/0", 1.0)
    assert schema_faults(content) == []
    assert place in [fault.path for fault in schema_faults(change(path, 1.0))]


@pytest.mark.parametrize("key", ["a\nb", "\x1b[31m", "\u202e", "k" * 500])
def test_faults_are_short_printable_lines(content: Content, key: str) -> None:
    content[key] = 1
    content["tasks"][key] = 1
    content["name"] = key
    faults = [*schema_faults(content), Fault(f"$.{key}", key * 100)]
    assert len(faults) > 3
    for fault in faults:
        assert str(fault).isascii() and str(fault).isprintable()
        assert len(str(fault)) < 700


def test_faults_say_where(content: Content) -> None:
    content["tasks"]["quick-digits-v1"]["seeds"]["103"]["status"] = "best"
    [fault] = schema_faults(content)
    assert fault.path == f"{TASK}.seeds['103'].status"
    assert '"finished"' in fault.sentence and "best" not in fault.sentence
    assert json_path(("a b", "x'y", 3, "ok")) == "$['a b'][\"x'y\"][3].ok"


@pytest.mark.parametrize("value", ["x", 0.0])
def test_of_many_faults_one_is_listed(value: Any, table: Content, content: Content) -> None:
    """The library keeps five kilobytes for each fault; of a large file only one is asked for."""
    path = Path("early-stop.json")
    for length, listed in ((MOST_LISTED, 1), (MOST_LISTED // 10, MOST_FAULTS)):
        table["grid"]["step"] = [value] * length
        assert len(check_bytes(json.dumps(content).encode(), path)[1]) == listed


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize("document", [None, 1, "text", [], {}, [[]], True, nested(900), "\ud800"])
def test_other_documents(document: Any, change: Any) -> None:
    assert schema_faults(document)
    assert schema_faults(change("task/seeds", document))
