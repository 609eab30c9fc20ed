"""The schema: what it refuses, how faults are said, and that neither grows without bound."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ht_bench.leaderboard.schema import (
    MOST_FAULTS,
    MOST_LISTED,
    Fault,
    json_path,
    schema,
    schema_faults,
)

Content = dict[str, Any]


def set_at(document: Any, path: str, value: Any) -> None:
    """Set "task/grid/step/0" and the like; % is a slash in a key, "seed" is seed 100's table."""
    path = path.replace("task/", "tasks/warm-start-digits-v1/").replace("seed/", "seeds/100/")
    *parts, last = [part.replace("%", "/") for part in path.split("/")]
    for part in parts:
        document = document[int(part) if isinstance(document, list) else part]
    document[int(last) if isinstance(document, list) else last] = value


def test_the_honest_one_has_no_fault(content: Content) -> None:
    assert schema_faults(content) == []


def test_the_published_schema_is_one_and_closed() -> None:
    """No object takes a key that the schema does not name, but for maps of bounded values."""
    found = schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def walk(rule: Any) -> None:
        if isinstance(rule, dict):
            assert "score" not in rule.get("properties", {})
            if rule.get("type") == "object":
                assert "additionalProperties" in rule
                named = rule["additionalProperties"] is not False
                assert not named or {"propertyNames", "maxProperties"} <= rule.keys()
            if rule.get("type") == "array":
                assert "maxItems" in rule and "items" in rule
            if rule.get("type") == "string" and "pattern" not in rule:
                assert "maxLength" in rule
            for item in rule.values():
                walk(item)
        for item in rule if isinstance(rule, list) else ():
            walk(item)

    walk(found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("schema", True),
        ("schema", "1"),
        ("benchmark", "0.1\n"),
        ("benchmark", 0.1),
        ("name", ""),
        ("name", "../../etc/passwd"),
        ("name", "/etc/passwd"),
        ("name", "C:\\x"),
        ("name", "early-stop\n"),
        ("name", "a..b"),
        ("name", ".hidden"),
        ("name", "-rf"),
        ("name", "é"),
        ("name", "a" * 81),
        ("authors", []),
        ("authors", ["A"] * 51),
        ("authors", ["A" * 101]),
        ("authors", "A"),
        ("link", "javascript:alert(1)"),
        ("link", "https://a b"),
        ("link", 'https://a"onclick='),
        ("link", "https://" + "a" * 300),
        ("method/name", "os:system"),
        ("method/name", "a/b.py"),
        ("method/source_sha256", "A" * 64),
        ("method/source_sha256", "a" * 63),
        ("method/needs_boundaries", 0),
        ("method/network", {"hidden": [[1]]}),
        ("method/network", {"hidden": {"a": 1}}),
        ("method/network", {"k" * 61: 1}),
        ("method/network", {"hidden": [1] * 101}),
        ("method/score", 1.0),
        ("tuning/how", ""),
        ("tuning/runs", -1),
        ("tuning/runs", 1.5),
        ("split", "validation"),
        ("precision", "fp16"),
        ("device", "cuda:0"),
        ("score", 1.0),
        ("tasks", {}),
        ("tasks", []),
        ("tasks/..%..%passwd", {}),
        ("task/score", 1),
        ("task/hyperparameters", {str(i): i for i in range(61)}),
        ("task/software", {"torch": 2.5}),
        ("task/software", {"torch": "x" * 201}),
        ("task/hardware", {"gpu": None}),
        ("task/none_cost", {"seconds": 1.0}),
        ("task/none_cost", {"seconds": -1.0, "peak_memory_bytes": 1}),
        ("task/grid/phase", [0]),
        ("task/grid/step/1", -1),
        ("task/grid/step/1", None),
        ("task/seeds", {}),
        ("task/seeds/0100", {}),
        ("task/seeds/-1", {}),
        ("task/seeds/score", {}),
        ("task/seed/status", "running"),
        ("task/seed/seconds", 1e10),
        ("task/seed/score", 1.0),
        ("task/seed/curve", {}),
        ("task/seed/curve/test%loss", [0.1, 0.2]),
        ("task/seed/curve/test%accuracy", [0.1, "0.2"]),
        ("task/seed/curve/test%accuracy", [0.1, True]),
        ("task/seed/curve/test%accuracy", [0.1] * 100_001),
    ],
)
def test_what_breaks_the_schema(content: Content, path: str, value: Any) -> None:
    set_at(content, path, value)
    assert schema_faults(content)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("schema", "$.schema"),
        ("tuning/runs", "$.tuning.runs"),
        ("task/classes", "$.tasks['warm-start-digits-v1'].classes"),
        ("task/stack", "$.tasks['warm-start-digits-v1'].stack"),
        ("task/extra_parameters", "$.tasks['warm-start-digits-v1'].extra_parameters"),
        ("task/software/threads", "$.tasks['warm-start-digits-v1'].software.threads"),
        ("task/grid/phase/0", "$.tasks['warm-start-digits-v1'].grid.phase[0]"),
        ("task/grid/step/0", "$.tasks['warm-start-digits-v1'].grid.step[0]"),
        ("task/seed/steps", "$.tasks['warm-start-digits-v1'].seeds['100'].steps"),
    ],
)
def test_whole_numbers_are_written_without_a_point(content: Content, path: str, place: str) -> None:
    """JSON Schema takes 1.0 for an integer; an array cannot be indexed by it."""
    set_at(content, path, 1.0)
    faults = schema_faults(content)
    assert place in [fault.path for fault in faults]


def test_whole_numbers_inside_a_choice_too(content: Content, table: Content) -> None:
    table["none_cost"] = {"seconds": 2.0, "peak_memory_bytes": 3.0}
    [fault] = schema_faults(content)
    assert fault.path.endswith(".none_cost.peak_memory_bytes")
    table["none_cost"] = {"seconds": 2.0, "peak_memory_bytes": 3}
    table["hyperparameters"]["decay"] = 1.0
    table["seeds"]["100"]["curve"]["test/accuracy"][0] = 1.0
    assert schema_faults(content) == []


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
    content["tasks"]["warm-start-digits-v1"]["seeds"]["103"]["status"] = "best"
    [fault] = schema_faults(content)
    assert fault.path == "$.tasks['warm-start-digits-v1'].seeds['103'].status"
    assert '"finished"' in fault.sentence and "best" not in fault.sentence
    assert json_path(("a b", "x'y", 3, "ok")) == "$['a b'][\"x'y\"][3].ok"


def test_a_million_faults_are_not_listed(table: Content, content: Content) -> None:
    """The library keeps five kilobytes for each fault; of a large file only one is asked for."""
    table["seeds"]["100"]["curve"]["test/accuracy"] = ["x"] * 500_000
    began = time.monotonic()
    assert len(schema_faults(content)) == 1
    assert time.monotonic() - began < 5
    table["seeds"]["100"]["curve"]["test/accuracy"] = ["x"] * (MOST_LISTED // 10)
    assert len(schema_faults(content)) == MOST_FAULTS
    table["seeds"]["100"]["curve"]["test/accuracy"] = [0.5]
    table["grid"]["step"] = [1.0] * 50_000
    assert len(schema_faults(content)) <= MOST_FAULTS


@pytest.mark.parametrize("document", [None, 1, "text", [], {}, [[]], True])
def test_other_documents(document: Any) -> None:
    assert schema_faults(document)
