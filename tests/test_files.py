"""Files are written whole or not at all, and no failed write loses what was finished."""

from __future__ import annotations

import errno
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.files import make_folder, remove_leftovers, write_atomically
from ht_bench.records.record import without_cost
from ht_bench.streams.task import Task, load_task, parse_task
from ht_bench.training import run

from .conftest import TINY

Write = Callable[..., Path]
CALLS = {"fsync": 5, "replace": 6}
"""A run of two seeds and two phases writes its spec, two checkpoints and two results.

Before the second checkpoint takes its place the first is renamed.
"""


@pytest.fixture
def task(write_task: Write) -> Task:
    return load_task(write_task())


def fill(
    monkeypatch: pytest.MonkeyPatch, call: str, after: int, until: float = float("inf")
) -> None:
    """Let os.<call> fail as on a full disk, from after call `after` until call `until`."""
    kept, calls = getattr(os, call), 0

    def full(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if after < calls <= until:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return kept(*arguments, **named)

    monkeypatch.setattr(f"ht_bench.files.os.{call}", full)


@pytest.fixture(scope="module")
def whole() -> list[Any]:
    """What a run that nothing hinders leaves in its records."""
    task = parse_task(tomllib.loads(TINY), "tiny")
    return contents(ht_bench.evaluate("hare-tortoise", task, (100, 101), progress=False))


def contents(result: ht_bench.Result) -> list[Any]:
    return [without_cost(record) for record in result.records]


def assert_sentence(text: str) -> None:
    assert "\n" not in text and "Traceback" not in text and text.endswith(".")


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_a_failed_write_leaves_the_old_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, "old")
    fill(monkeypatch, call, 0)
    with pytest.raises(ht_bench.UsageError, match="Could not write .*No space left on device"):
        write_atomically(path, b"new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first, and longer", "zweitens ä"):
        write_atomically(path, content)
    assert path.read_text(encoding="utf-8") == "zweitens ä"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_leftovers_are_only_the_files_own(tmp_path: Path) -> None:
    for name in (".a.pt.x1", ".a.pt.y2", ".b.pt.x1", "a.pt", ".lock"):
        (tmp_path / name).write_bytes(b"half")
    remove_leftovers(tmp_path / "a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.pt.x1", ".lock", "a.pt"]


def test_making_a_folder_leaves_it_empty(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and not list(folder.iterdir())
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ht_bench.UsageError, match="file cannot be written .*name another"):
        make_folder(tmp_path / "file")


# ---- whole runs ----


@pytest.mark.filterwarnings("ignore:No checkpoint could be written")
@pytest.mark.parametrize(("call", "after"), [(c, k) for c in CALLS for k in range(CALLS[c])])
def test_a_disk_that_fills_up_at_any_write_loses_nothing(
    call: str,
    after: int,
    task: Task,
    whole: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = tmp_path / "runs"
    options: dict[str, Any] = {"seeds": (100, 101), "out": runs, "progress": False}
    monkeypatch.setattr(run, "PAYS", 0.0)  # a checkpoint at each boundary
    with monkeypatch.context() as patch:
        fill(patch, call, after)
        with pytest.raises(ht_bench.UsageError, match="No space left on device") as caught:
            ht_bench.evaluate("hare-tortoise", task, **options)
    assert_sentence(str(caught.value))
    for path in runs.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    assert len(list(runs.rglob("result.json"))) == max(0, after + 2 - CALLS[call])
    assert {path.name for path in runs.rglob(".*")} <= {".lock"}
    assert contents(ht_bench.evaluate("hare-tortoise", task, **options)) == whole


def test_the_disk_is_not_full_after_all_writes(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CALLS are a run's: the test above meets every one of them."""
    monkeypatch.setattr(run, "PAYS", 0.0)
    for call, count in CALLS.items():
        fill(monkeypatch, call, count)
    ht_bench.evaluate("hare-tortoise", task, (100, 101), out=tmp_path / "runs", progress=False)


@pytest.mark.parametrize("call", CALLS)
def test_a_disk_that_is_full_for_a_while_costs_checkpoints_alone(
    call: str, task: Task, whole: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PAYS", 0.0)
    fill(monkeypatch, call, 1, until=3)
    with pytest.warns(UserWarning, match="No checkpoint could be written .*No space left") as told:
        result = ht_bench.evaluate("hare-tortoise", task, (100, 101), out=tmp_path, progress=False)
    assert contents(result) == whole and len(told) == 1
    assert_sentence(str(told[0].message))


@pytest.mark.parametrize("place", [".", "tiny-v1", "tiny-v1/none-*", "tiny-v1/none-*/seed101"])
def test_a_file_in_place_of_a_folder_is_named(place: str, task: Task, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    ht_bench.evaluate("none", task, 100, out=runs, progress=False)
    [group] = runs.glob("tiny-v1/none-*")
    target = runs / place.replace("none-*", group.name)
    if target.is_dir():
        target.rename(tmp_path / "away")
    target.write_text("", encoding="utf-8")
    with pytest.raises(ht_bench.UsageError) as caught:
        ht_bench.evaluate("none", task, (100, 101), out=runs, progress=False)
    assert_sentence(str(caught.value))
    assert str(target) in str(caught.value)


def test_what_a_killed_process_left_is_cleared_away(task: Task, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    ht_bench.evaluate("none", task, 100, out=runs, progress=False)
    [result] = runs.glob("tiny-v1/none-*/seed100/result.json")
    result.unlink()
    left = [result.parent.parent / ".stack-100.pt.x1", result.parent / ".result.json.x2"]
    for path in left:
        path.write_bytes(b"half")
    ht_bench.evaluate("none", task, 100, out=runs, progress=False)
    assert result.is_file() and not any(path.exists() for path in left)
