"""result.json: written whole, read with every key checked, skipped only when it is the very run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.records.record import (
    check_record,
    group_digest,
    read_record,
    seeds_of,
    without_cost,
    write_record,
)
from ht_bench.records.runs import group_folder, is_finished, locked, read_runs, result_file
from ht_bench.version import EPOCH

Make = Callable[..., dict[str, Any]]
REQUIRED = [
    *("schema", "benchmark", "task", "task_sha256", "data_sha256", "method", "hyperparameters"),
    *("source_sha256", "seed", "split", "precision", "device", "stack", "classes", "status"),
    *("curve", "diagnostics", "steps", "extra_parameters", "cost", "software", "hardware"),
]


def is_one_sentence(text: str) -> bool:
    return "\n" not in text and "Traceback" not in text and text.endswith(".")


def test_a_record_comes_back_as_it_was_written(make_record: Make, tmp_path: Path) -> None:
    record = make_record([[0.1, 0.25], [0.3]], seed=-7, hyperparameters={"decay": 0.9})
    path = result_file(group_folder(tmp_path, "digits-v1", "none", "0123abcd"), -7)
    write_record(path, record)
    assert path == tmp_path / "digits-v1" / "none-0123abcd" / "seed-7" / "result.json"
    assert read_record(path) == record
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_the_digest_is_of_what_tells_runs_apart() -> None:
    one = group_digest({"a": 1, "b": 2}, "test", "fp32", "cpu")
    assert len(one) == 8 and set(one) <= set("0123456789abcdef")
    assert one == group_digest({"b": 2, "a": 1}, "test", "fp32", "cpu")
    others = [
        group_digest({"a": 1, "b": 3}, "test", "fp32", "cpu"),
        group_digest({"a": 1, "b": 2}, "validation", "fp32", "cpu"),
        group_digest({"a": 1, "b": 2}, "test", "bf16", "cpu"),
        group_digest({"a": 1, "b": 2}, "test", "fp32", "cuda"),
    ]
    assert len({one, *others}) == 5


@pytest.mark.parametrize("key", REQUIRED)
@pytest.mark.parametrize("fault", ["missing", "wrong type"])
def test_every_key_is_required_with_its_type(make_record: Make, key: str, fault: str) -> None:
    record = make_record([[0.1, 0.2]])
    check_record(record, "here")
    if fault == "missing":
        del record[key]
    else:
        record[key] = None
    with pytest.raises(UsageError, match=f"^here.*'{key}'.*run again.$"):
        check_record(record, "here")


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("cost", {"seconds": "2", "peak_memory_bytes": 1}, "'cost': 'seconds'"),
        ("cost", {"seconds": 2.0, "peak_memory_bytes": 1.5}, "'cost': 'peak_memory_bytes'"),
        ("cost", {"seconds": 2.0}, "'cost': the key 'peak_memory_bytes' is missing"),
        ("retention", [0.5, "x"], "'retention': '1'"),
        ("retention", 0.5, "'retention'"),
        ("steps", 10.0, "'steps'"),
        ("seed", True, "'seed'"),
        ("status", "running", "'status'"),
        ("diagnostics", {"phase": [0, None, "x"]}, "'diagnostics': 'phase': '2'"),
        ("diagnostics", {"a": [0], "b": [0, 1]}, "'diagnostics' has lists of different lengths"),
        ("software", {"torch": None}, "'software': 'torch'"),
        ("hardware", {"cpu": []}, "'hardware': 'cpu'"),
        ("traits", {"network": {}}, "'traits': the key 'needs_boundaries' is missing"),
        ("reference", {"random": None}, "'reference': 'random'"),
        ("reference", {"random": 1.0, "human": "x"}, "'reference': 'human'"),
        ("reference", {"random": 1.0}, "'curve' has no 'eval/return'"),
    ],
)
def test_what_lies_inside_has_its_type_too(
    make_record: Make, key: str, value: Any, place: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_record(make_record([[0.1, 0.2]], **{key: value}), "here")
    assert str(caught.value).startswith(f"here: {place}")
    assert str(caught.value).endswith("; delete it and run again.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not valid JSON"),
        (b'{"schema": 1', "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[]", "does not hold a result"),
        (b"{}", "the key 'schema' is missing"),
    ],
)
def test_a_broken_file_is_named_in_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        read_record(path)
    assert str(path) in str(caught.value) and is_one_sentence(str(caught.value))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Could not read .*nowhere.json: No such file"):
        read_record(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "curve",
    [
        {"phase": [0, 0], "step": [0, 10], "test/accuracy": [0.1]},
        {"phase": 0, "step": [0]},
        {"phase": [0.0], "step": [0], "test/accuracy": [0.1]},
        {"phase": [0], "step": [None], "test/accuracy": [0.1]},
        {"phase": [0], "step": [0], "test/accuracy": "0.1"},
        {"step": [0], "test/accuracy": [0.1]},
        {"phase": [0], "step": [0], "test/accuracy": [10**400]},
        {"phase": [0], "step": [10**400], "test/accuracy": [0.1]},
        {"phase": [], "step": []},
        {},
    ],
)
def test_a_malformed_curve_is_refused(make_record: Make, curve: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"here.*'curve'.*run again"):
        check_record(make_record([[0.1]], curve=curve), "here")


def test_another_schema_is_refused(make_record: Make) -> None:
    with pytest.raises(UsageError, match="has schema 2, this version reads 1"):
        check_record(make_record([[0.1]], schema=2), "here")


@pytest.fixture
def finished(make_record: Make, tmp_path: Path) -> Path:
    """Return the path of a result of task "t", data "d", source "s"."""
    hashes = {"task_sha256": "t", "data_sha256": "d", "source_sha256": "s"}
    write_record(tmp_path / "result.json", make_record([[0.1]], benchmark=EPOCH, **hashes))
    return tmp_path / "result.json"


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (("t", "d"), True),
        (("t", "d", "s"), True),
        (("T", "d"), False),
        (("t", "D"), False),
        (("t", "d", "S"), False),
    ],
)
def test_a_run_is_finished_by_content(
    finished: Path, wanted: tuple[str, ...], answer: bool
) -> None:
    assert is_finished(finished, *wanted) is answer


def test_another_epoch_and_a_broken_file_are_not_finished(
    finished: Path, make_record: Make
) -> None:
    record = read_record(finished)
    write_record(finished, record | {"benchmark": "99.0"})
    assert not is_finished(finished, "t", "d")
    finished.write_text("{", encoding="utf-8")
    assert not is_finished(finished, "t", "d")
    finished.unlink()
    assert not is_finished(finished, "t", "d")


def test_runs_are_read_in_numeric_order_of_seeds(make_record: Make, tmp_path: Path) -> None:
    for seed in (10, 2, -3):
        write_record(result_file(tmp_path / "t" / "none-0", seed), make_record([[0.1]], seed=seed))
    (tmp_path / "t" / "none-0" / "seed11").mkdir()  # begun, not finished
    assert seeds_of(read_runs(tmp_path)[0]) == [-3, 2, 10]
    # A group of runs may be a link, even one that leads back.
    [group] = (tmp_path / "t").iterdir()
    group.rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    group.symlink_to(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    (group / "back").symlink_to(tmp_path)
    assert seeds_of(read_runs(tmp_path)[0]) == [-3, 2, 10]


@pytest.mark.parametrize(("folder", "words"), [("none", "no folder"), (".", "no finished run")])
def test_a_folder_without_runs_says_how_to_make_some(
    folder: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read_runs(tmp_path / folder)[0]
    assert "ht-bench run" in str(caught.value) and is_one_sentence(str(caught.value))


def test_only_the_cost_may_differ(make_record: Make) -> None:
    record = make_record([[0.1]])
    assert without_cost(record) == {k: v for k, v in record.items() if k != "cost"}
    assert "cost" in record


def test_a_number_that_json_cannot_hold_is_never_written(make_record: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(tmp_path / "result.json", make_record([[float("nan")]]))
    assert not list(tmp_path.iterdir())


def test_a_locked_folder_is_refused_until_it_is_free(tmp_path: Path) -> None:
    first, second = tmp_path / "seed1", tmp_path / "seed2"
    with locked([first]):
        with pytest.raises(UsageError, match="Another process is training .*seed1; wait"):
            locked([second, first]).__enter__()
        with locked([second]):  # what a refused attempt had taken is free again
            pass
    with locked([first, second]):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be written .*name another with --out"):
        locked([tmp_path / "file" / "seed1"]).__enter__()


def test_runs_read_together_are_what_each_file_holds(make_record: Make, tmp_path: Path) -> None:
    """What records have in common they share, and only what is written alike."""
    alike = [{"steps": 10}, {"hyperparameters": {"decay": 1}}, {"hyperparameters": {"decay": 1.0}}]
    for seed, changes in enumerate(alike):
        record = make_record([[0.1, 0.2], [0.3]], seed=seed, **changes)
        record["curve"]["test/loss"] = [2.0, 1.0, 0.5]
        write_record(result_file(tmp_path / "t" / "none-0", seed), record)
    found, _ = read_runs(tmp_path)
    files = [result_file(tmp_path / "t" / "none-0", seed) for seed in range(len(alike))]
    assert list(map(json.dumps, found)) == [json.dumps(read_record(file)) for file in files]
    assert found[0]["curve"]["step"] is found[1]["curve"]["step"]
    assert found[0]["software"] is found[2]["software"]
    assert found[1]["hyperparameters"] is not found[2]["hyperparameters"]
    scored, _ = read_runs(tmp_path, scored=True)
    kept = {"phase", "step", "test/accuracy", "train/accuracy"}
    assert [record["curve"].keys() for record in scored] == [kept] * 3
    assert scored[0]["diagnostics"] == {} and scored[0]["cost"] == found[0]["cost"]
