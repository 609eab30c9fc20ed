"""Which results count as a method's own."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.streams.task import Task, load_task
from ht_bench.version import EPOCH


@pytest.fixture
def task(write_task: Callable[..., Path]) -> Task:
    return load_task(write_task())


def evaluate(method: Any, task: Any, seeds: Any = (0, 1), **options: Any) -> ht_bench.Result:
    return ht_bench.evaluate(method, task, seeds, progress=False, **options)


def curves(result: ht_bench.Result) -> list[Any]:
    return [record["curve"] for record in result.records]


def test_an_edited_built_in_is_trained_again(task: Task, tmp_path: Path) -> None:
    """A runs folder of an older version of the package holds its older hash."""
    evaluate("none", task, out=tmp_path)
    for path in tmp_path.rglob("result.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(record | {"source_sha256": "0" * 64}), encoding="utf-8")
    with pytest.warns(UserWarning, match="of 'none' on tiny-v1 were made by other code"):
        again = evaluate("none", task, out=tmp_path)
    assert again.records[0]["source_sha256"] != "0" * 64


def test_results_of_another_epoch_are_replaced_with_a_sentence(task: Task, tmp_path: Path) -> None:
    first = evaluate("none", task, out=tmp_path)
    for path in tmp_path.rglob("result.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(record | {"benchmark": "0.1"}), encoding="utf-8")
    said = r"2 result\(s\) of 'none' on tiny-v1 are of ht-bench 0.1.* trained again and replaced"
    with pytest.warns(UserWarning, match=said):
        again = evaluate("none", task, out=tmp_path)
    assert [record["benchmark"] for record in again.records] == [EPOCH, EPOCH]
    assert curves(again) == curves(first)


def test_results_of_another_task_of_the_name_are_replaced_with_a_sentence(
    task: Task, tmp_path: Path
) -> None:
    evaluate("none", task, out=tmp_path)
    changed = dataclasses.replace(task, tolerance=task.tolerance * 2)
    assert changed.sha256 != task.sha256
    said = (
        r"2 result\(s\) of 'none' on tiny-v1 are of a task of this name with other content.*--out"
    )
    with pytest.warns(UserWarning, match=said):
        again = evaluate("none", changed, out=tmp_path)
    assert {record["task_sha256"] for record in again.records} == {changed.sha256}


def test_a_class_that_stands_in_no_file_is_never_finished(task: Task, tmp_path: Path) -> None:
    namespace: dict[str, Any] = {"Method": ht_bench.Method, "__name__": "notebook"}
    exec("class Zero(Method): pass", namespace)
    zero = namespace["Zero"]()
    result = evaluate(zero, task, out=tmp_path)
    assert result.method == "Zero"
    [folder] = tmp_path.glob("tiny-v1/Zero-*")
    before = (folder / "seed0" / "result.json").stat().st_mtime_ns
    with pytest.warns(UserWarning, match="2 result.* of 'Zero' .* since its class"):
        evaluate(zero, task, out=tmp_path)
    assert (folder / "seed0" / "result.json").stat().st_mtime_ns > before


def test_an_unregistered_class_never_overwrites_the_anchor(task: Task, tmp_path: Path) -> None:
    class Zero(ht_bench.Method):
        def after_step(self) -> None:
            for parameter in self.module.parameters():
                parameter.zero_()

    anchor = evaluate("none", task, out=tmp_path)
    zero = evaluate(Zero(), task, out=tmp_path)
    assert zero.method == zero.records[0]["method"] == "Zero"
    assert evaluate("none", task, out=tmp_path).records == anchor.records
    assert curves(zero) != curves(anchor)
