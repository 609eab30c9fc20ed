"""`ht-bench submit --extend`: an entry takes new tasks and keeps the others, or stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ht_bench import evaluate, registry
from ht_bench.methods.recipe import Recipe
from ht_bench.streams.catalog import get_task
from ht_bench.streams.task import Task, parse_task

Call = Callable[..., Any]
TASK, OTHER, METHOD = "quick-digits-v1", "quick-short-digits-v1", "early-stop"
ABOUT = ("--authors", "A. Author", "--tuning", "by hand", "--tuning-runs", "3", "--summary", "S.")


@pytest.fixture
def other() -> Iterator[Task]:
    """A second task that the benchmark knows while the test runs."""
    first = get_task(TASK)
    assert isinstance(first, Task)
    table: dict[str, Any] = {
        **{"name": OTHER, "family": first.family, "seeds": "100-119"},
        "data": {"name": "digits", "train": 100},
        "net": {"name": "mlp", "hidden": [16]},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "training": {"batch": 32, "stack": 10, "points": 2},
        "phases": [{"new": 0.5, "wrong": 0.5, "updates": 10}, {"new": 0.5, "updates": 10}],
    }
    task = parse_task(table, OTHER)
    assert isinstance(task, Task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.tasks._entries, OTHER, task)
        yield task


@pytest.fixture
def entry(trained: Path, call: Call, tmp_path: Path) -> Path:
    """An entry of one task, and --link."""
    path = tmp_path / "mine.json"
    words = ("--method", METHOD, *ABOUT, "--link", "https://example.org", "--out", path)
    assert call("submit", trained, *words).code == 0
    return path


@pytest.fixture
def runs(other: Task, tmp_path: Path) -> Path:
    """The second task's 20 runs, alone in a folder."""
    evaluate(METHOD, other, device="cpu", out=tmp_path / "new runs", progress=False)
    return tmp_path / "new runs"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rewrite(path: Path, **changes: Any) -> bytes:
    content = read(path)
    for key, value in changes.items():
        content = {**content, key: {**content[key], **value} if key == "method" else value}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path.read_bytes()


def extend(call: Call, runs: Path, path: Path, *words: str) -> Any:
    return call("submit", runs, "--method", METHOD, "--out", path, "--extend", *words)


def test_an_entry_takes_a_new_task_and_keeps_the_others(
    call: Call, runs: Path, entry: Path
) -> None:
    before = read(entry)
    assert extend(call, runs, entry).code == 0
    after = read(entry)
    assert list(after["tasks"]) == [TASK, OTHER]
    assert after["tasks"][TASK] == before["tasks"][TASK]
    assert len(after["tasks"][OTHER]["seeds"]) == 20
    assert {k: v for k, v in after.items() if k not in ("tasks", "tuning")} == {
        k: v for k, v in before.items() if k not in ("tasks", "tuning")
    }
    # The recipe says how these were chosen, over all tasks now.
    assert "no search" in after["tuning"]["how"] and after["tuning"]["runs"] == 0
    assert call("verify", entry).out == "mine: consistent\n"


def test_the_search_is_told_of_all_tasks(
    call: Call, runs: Path, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(self: Recipe, tasks: Sequence[str] = (), regime: str = "whole") -> tuple[str, int]:
        return ", ".join(tasks), len(tasks)

    monkeypatch.setattr(Recipe, "searched", told)
    assert extend(call, runs, entry).code == 0
    assert read(entry)["tuning"] == {"how": f"{TASK}, {OTHER}", "runs": 2}


def test_what_is_said_anew_replaces_what_stood_there(call: Call, runs: Path, entry: Path) -> None:
    words = ("--tuning", "again", "--tuning-runs", "7", "--link", "", "--summary", "Other.")
    assert extend(call, runs, entry, *words).code == 0
    after = read(entry)
    assert after["tuning"] == {"how": "again", "runs": 7}
    assert after["method"]["summary"] == "Other." and after["authors"] == ["A. Author"]


def test_a_task_in_both_is_of_the_new_runs(call: Call, trained: Path, entry: Path) -> None:
    content = read(entry)
    content["tasks"][TASK]["seeds"]["100"]["seconds"] = 12345.0
    entry.write_text(json.dumps(content), encoding="utf-8")
    assert extend(call, trained, entry).code == 0
    assert read(entry)["tasks"][TASK]["seeds"]["100"]["seconds"] < 12345


OWN = """
from dataclasses import dataclass

import ht_bench


@dataclass
class Mine(ht_bench.Method):
    pull: float = 0.1
"""


def test_what_no_recipe_says_stays_the_entrys(call: Call, other: Task, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN, encoding="utf-8")
    path, method = tmp_path / "mine.json", f"{file}:Mine"
    for task, words in ((TASK, ABOUT), (OTHER, ("--extend",))):
        runs = tmp_path / task
        evaluate(method, task, device="cpu", out=runs, progress=False)
        assert call("submit", runs, "--method", method, "--out", path, *words).code == 0
    content = read(path)
    assert content["tuning"] == {"how": "by hand", "runs": 3}
    assert content["method"]["summary"] == "S." and list(content["tasks"]) == [TASK, OTHER]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": {"source_sha256": "0" * 64}}, "another version of the source of 'early-stop'"),
        ({"method": {"name": "none"}}, "is an entry of 'none', not of 'early-stop'"),
        ({"benchmark": "0.1"}, "cannot be extended: $.benchmark: is 0.1"),
        ({"device": "cuda"}, "is of device cuda and these runs of cpu"),
        ({"name": "yours"}, "cannot be extended: $.name: is yours"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    changes: dict[str, Any], said: str, call: Call, runs: Path, entry: Path
) -> None:
    before = rewrite(entry, **changes)
    answer = extend(call, runs, entry)
    assert answer.code == 2 and said in answer.error
    assert entry.read_bytes() == before


def test_there_must_be_an_entry(call: Call, runs: Path, tmp_path: Path) -> None:
    answer = extend(call, runs, tmp_path / "none-yet.json")
    assert answer.code == 2 and "leave out --extend to make one" in answer.error
    answer = extend(call, runs, tmp_path / "none-yet.json", "--replace")
    assert answer.code == 2 and "give one" in answer.error
    assert not (tmp_path / "none-yet.json").exists()
