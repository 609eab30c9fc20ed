"""A runs folder with what crashes and other processes leave in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.doctor import leftovers
from ht_bench.records.record import read_record, write_record
from ht_bench.training import checkpoint

Found = Callable[[Any], dict[str, list[Any]]]


@pytest.fixture
def results(runs: Path) -> list[Path]:
    """The finished results of tmp_path/runs: three methods, four seeds."""
    return sorted(runs.rglob("result.json"))


def only(findings: list[Any], word: str) -> Any:
    [finding] = [each for each in findings if word in each.sentence]
    return finding


def test_a_sound_folder_has_nothing_to_say(found: Found, results: list[Path]) -> None:
    answer = found(leftovers.runs)
    assert list(answer) == ["ok"] and "holds 12 whole result(s)" in answer["ok"][0].sentence


def test_no_folder_yet(found: Found, tmp_path: Path) -> None:
    answer = found(leftovers.runs)
    assert list(answer) == ["ok"] and "no folder" in answer["ok"][0].sentence
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("harm", ["truncated", "empty", "column"])
def test_a_damaged_result_is_named(found: Found, results: list[Path], harm: str) -> None:
    text = results[0].read_text(encoding="utf-8")
    content = {"truncated": text[:300], "empty": "", "column": text.replace('"step"', '"stop"')}
    results[0].write_text(content[harm], encoding="utf-8")
    answer = found(leftovers.runs)
    [fault] = answer["fault"]
    assert str(results[0]) in fault.sentence and f"rm {results[0]}" in fault.remedy
    assert "holds 11 whole" in answer["ok"][0].sentence


def test_results_of_another_version_are_counted(found: Found, results: list[Path]) -> None:
    write_record(results[0], read_record(results[0]) | {"benchmark": "0.0"})
    assert "1 of 0.0" in only(found(leftovers.runs)["note"], "another benchmark").sentence


def test_a_run_that_is_being_trained_is_told(found: Found, results: list[Path]) -> None:
    lock = results[0].parent / ".lock"
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        note = only(found(leftovers.runs)["note"], "being trained")
        assert str(lock.parent) in note.sentence
        if Path("/proc/locks").exists() and leftovers.holder(lock):
            assert f"process {os.getpid()}:" in note.sentence
    assert "note" not in found(leftovers.runs)


def test_the_holder_of_a_lock(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.touch()
    told = lock.stat()
    file = f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"
    table = tmp_path / "locks"
    table.write_text(
        f"1: FLOCK  ADVISORY  WRITE 41 {file} 0 EOF\n"
        f"1: -> FLOCK  ADVISORY  WRITE 42 {file} 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 43 {file}9 0 EOF\n"
        f"3: POSIX  ADVISORY  WRITE -1 {file} 0 EOF\n",
        encoding="ascii",
    )
    assert leftovers.holder(lock, table) == [41]
    assert leftovers.holder(lock, tmp_path / "absent") == []


# ---- checkpoints ----


def saved(group: Path, seeds: str, old: bool = False) -> Path:
    path = group / f"stack-{seeds}.pt{'.old' if old else ''}"
    checkpoint.save(path, "whose", {"steps": 3})
    return path


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_named(
    found: Found, results: list[Path], harm: str, old: bool
) -> None:
    path = saved(results[0].parent.parent, "200-203", old)
    content = path.read_bytes()
    flipped = content[:50] + bytes([content[50] ^ 1]) + content[51:]
    path.write_bytes({"truncated": content[:100], "flipped": flipped, "empty": b""}[harm])
    [finding] = found(leftovers.runs)["warning"]
    assert "1 damaged checkpoint(s)" in finding.sentence and finding.remedy == f"rm {path}"


def test_an_interrupted_stack_goes_on(found: Found, results: list[Path]) -> None:
    path = saved(results[0].parent.parent, "200,202-203")
    note = only(found(leftovers.runs)["note"], "interrupted")
    assert str(path) in note.sentence and "command again" in note.remedy


def test_a_finished_stacks_checkpoint_is_left_over(found: Found, results: list[Path]) -> None:
    path = saved(results[0].parent.parent, "100-103")
    assert only(found(leftovers.runs)["note"], "of finished runs").remedy == f"rm {path}"
    results[0].write_text("{", encoding="utf-8")  # then the checkpoint still counts
    assert "note" in (answer := found(leftovers.runs)) and answer["note"][0].remedy[:2] != "rm"


def test_a_checkpoint_that_is_being_written_is_left_alone(
    found: Found, results: list[Path]
) -> None:
    group = results[0].parent.parent
    saved(group, "100-103").write_bytes(b"half")
    with open(group / "seed103" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "warning" not in found(leftovers.runs)


def test_what_a_killed_writer_left(found: Found, results: list[Path]) -> None:
    seed = results[0].parent
    left = [seed / ".result.json.x1", seed.parent / ".stack-100-103.pt.x2"]
    new = seed / ".result.json.x3"
    for path in (*left, new, seed / ".lock", seed / ".mine"):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    os.utime(new)
    note = only(found(leftovers.runs)["note"], "temporary file")
    assert note.remedy == f"rm {left[1]} {left[0]}" and "2 temporary" in note.sentence


def test_remedies_quote_odd_paths(found: Found, runs: Path, tmp_path: Path) -> None:
    odd = runs / "a b;c"
    (odd / "seed1").mkdir(parents=True)
    (odd / "seed1" / "result.json").write_text("{", encoding="utf-8")
    [fault] = found(leftovers.runs)["fault"]
    assert f"rm '{odd}/seed1/result.json'" in fault.remedy
