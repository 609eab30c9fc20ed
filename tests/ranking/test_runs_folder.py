"""A folder of runs as people leave it: stale results, broken ones, linked folders."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.ranking.entries import read_groups
from ht_bench.streams.task import load_task
from ht_bench.version import EPOCH

Write = Callable[..., Path]
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    task = load_task(folder / "tiny.toml")
    for method in ("none", "full-reset", "ema"):
        ht_bench.evaluate(method, task, out=folder / "runs", progress=False)
    return folder / "runs"


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "runs")


def results_of(runs: Path, method: str) -> list[Path]:
    return sorted(runs.glob(f"tiny-v1/{method}-*/seed*/result.json"))


def change(path: Path, **changes: Any) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | changes), encoding="utf-8")


@pytest.mark.parametrize("command", [("compare",), ("tensorboard", "--no-serve")])
def test_one_stale_result_is_left_out_with_a_sentence(
    runs: Path, call: Call, command: tuple[str, ...]
) -> None:
    change(results_of(runs, "ema")[0], task_sha256="0" * 64)
    answer = call(*command, runs)
    assert answer.code == 0
    said = " ".join(answer.out.split())
    assert "1 result(s) on 'tiny-v1' are left out: they are of another version" in said
    assert len(read_groups(runs).records) == 11


def test_where_all_are_stale_the_sentence_is_the_answer(runs: Path) -> None:
    for method in ("none", "full-reset", "ema"):
        for path in results_of(runs, method):
            change(path, task_sha256="0" * 64)
    with pytest.raises(UsageError, match="12 result.* are left out"):
        read_groups(runs)


@pytest.mark.parametrize("command", [("compare",), ("tensorboard", "--no-serve")])
def test_results_of_an_earlier_epoch_are_left_out_with_a_sentence(
    runs: Path, call: Call, command: tuple[str, ...]
) -> None:
    for path in results_of(runs, "ema"):
        change(path, benchmark="0.1")
    answer = call(*command, runs)
    said = " ".join(answer.out.split())
    assert answer.code == 0
    assert f"4 result(s) of ht-bench 0.1 are left out: the others are of {EPOCH}" in said
    assert {record["method"] for record in read_groups(runs).records} == {"none", "full-reset"}


def test_a_folder_of_one_earlier_epoch_is_compared_as_such(runs: Path, call: Call) -> None:
    for path in runs.rglob("result.json"):
        change(path, benchmark="0.1")
    answer = call("compare", runs)
    assert answer.code == 0 and "benchmark 0.1" in answer.out and "left out" not in answer.out
    change(results_of(runs, "ema")[0], benchmark="0.0")
    said = " ".join(call("compare", runs).out.split())
    assert "1 result(s) of ht-bench 0.0 are left out: the others are of 0.1" in said


def test_an_unreadable_result_is_left_out_with_a_sentence(runs: Path, call: Call) -> None:
    first, second = results_of(runs, "ema")[:2]
    first.write_text("{", encoding="utf-8")
    change(second, retention="much")
    answer = call("compare", runs)
    said = " ".join(answer.out.split())
    assert answer.code == 0 and said.count("A result is left out: ") == 2
    assert "is not valid JSON" in said and "'retention'" in said


def left_out(answer: Any, sentence: str, file: str) -> None:
    """The command went on without one result, and said which one and why."""
    said = " ".join(answer.out.split())
    assert answer.code == 0 and said.count("A result is left out: ") == 1
    assert re.search(sentence, said), said
    assert file in said
    assert "Traceback" not in answer.error + answer.out


@pytest.mark.parametrize("command", ["compare", "tensorboard"])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON .*delete it and run again"),
        ("[]", "does not hold a result; delete it and run again"),
        ('{"schema": 1}', "the key 'benchmark' is missing; delete it and run again"),
    ],
)
def test_a_corrupt_result_is_named(
    call: Call, runs: Path, command: str, text: str, sentence: str
) -> None:
    broken = results_of(runs, "ema")[0]
    broken.write_text(text, encoding="utf-8")
    words = (command, runs, *(["--no-serve"] if command == "tensorboard" else []))
    left_out(call(*words), sentence, str(broken))
    for path in runs.rglob("result.json"):
        path.write_text(text, encoding="utf-8")
    answer = call(*words)
    assert answer.code == 2 and re.search(sentence, answer.error), answer.error
    assert len(answer.error.splitlines()) == 1 and "Traceback" not in answer.error + answer.out


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"curve": {}}, "'curve': the key 'phase' is missing"),
        ({"diagnostics": {"step": [1], "weights/norm": [[1]]}}, "'weights/norm': '0': .*number"),
    ],
)
def test_a_damaged_result_is_left_out(call: Call, runs: Path, changes: Any, sentence: str) -> None:
    path = results_of(runs, "ema")[0]
    change(path, **changes)
    left_out(call("compare", runs), sentence, str(path))


@pytest.mark.parametrize("linked", ["tiny-v1", "aggregate"])
def test_linked_folders_are_folders(runs: Path, call: Call, linked: str) -> None:
    before = call("compare", runs).out
    elsewhere = runs.parent / "elsewhere"
    elsewhere.mkdir()
    if linked == "tiny-v1":
        elsewhere.rmdir()
        (runs / linked).rename(elsewhere)
    (runs / linked).symlink_to(elsewhere)
    assert call("compare", runs).out == before
    answer = call("tensorboard", runs, "--no-serve")
    assert answer.code == 0 and "3 runs, one per method" in answer.out
    assert (runs / "aggregate" / "ema").is_dir()
    assert call("tensorboard", runs, "--no-serve").code == 0


def test_two_results_of_one_seed_are_told_with_their_folders(runs: Path, call: Call) -> None:
    first = results_of(runs, "ema")[0].parent
    other = runs / "zz-copy" / first.relative_to(runs)
    shutil.copytree(first, other)
    answer = call("compare", runs)
    assert answer.code == 2
    sentence = (
        f"has two results for seed 100 with the same hyperparameters: keep {first} or {other}"
    )
    assert f"'ema' on 'tiny-v1' {sentence}.\n" in answer.error
