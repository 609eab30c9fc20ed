"""Level *valid*: each rule by its fault, at its place, and nothing else is said."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.leaderboard.known import find_known, known_task
from ht_bench.leaderboard.valid import read_submission
from ht_bench.leaderboard.verified import digests, verified_beside
from ht_bench.streams.catalog import get_task
from ht_bench.version import EPOCH

from .conftest import SUBMISSIONS, committed

Write = Callable[..., Path]
TASK = "$.tasks['quick-digits-v1']"
SEED = f"{TASK}.seeds['100']"


def only(entry: Any, place: str, said: str) -> None:
    """The changed entry has exactly one fault, at `place`, that says `said`."""
    submission, faults = read_submission(entry.write())
    assert submission is None
    assert [fault.path for fault in faults] == [place]
    assert said in faults[0].sentence


def test_the_honest_one_is_valid(honest_bytes: bytes, write: Write) -> None:
    path = write(honest_bytes)
    submission, faults = read_submission(path)
    assert faults == [] and submission is not None
    assert submission.sha256 == hashlib.sha256(honest_bytes).hexdigest()
    assert submission.seeds("quick-digits-v1") == tuple(range(100, 120))


def test_the_committed_ones_are_valid() -> None:
    files = sorted(SUBMISSIONS.rglob("*.json"))
    assert files
    for path in files:
        assert read_submission(path, digests(verified_beside(path)))[1] == [], path


def test_the_precision_is_the_tasks(entry: Any) -> None:
    """Entries and anchors of a task share it: the second protocol."""
    entry.content["precision"] = "bf16"
    only(entry, "$.precision", "is bf16, and quick-digits-v1 is of fp32; run it without")


def test_the_file_carries_the_name(honest_bytes: bytes, write: Write) -> None:
    submission, faults = read_submission(write(honest_bytes, "other.json"))
    assert submission is None
    assert str(faults[0]) == "$.name: is early-stop, but the file is 'other.json'."
    submission, [fault] = read_submission(write(honest_bytes, "o\x1b[31m.json"))
    assert "\\x1b" in fault.sentence


@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        ("0.0", "make the runs with this version and submit them again"),
        ("0.1", "make the runs with this version and submit them again"),
        ("0.10", "check it with ht-bench 0.10."),
        ("99.0", "check it with ht-bench 99.0."),
    ],
)
def test_a_new_file_is_of_this_epoch(benchmark: str, said: str, entry: Any) -> None:
    entry.content["benchmark"] = benchmark
    only(entry, "$.benchmark", said)
    only(entry, "$.benchmark", f"is {benchmark}, this is {EPOCH}, and scores compare only within")


@pytest.mark.parametrize(("benchmark", "valid"), [("0.1", True), ("99.0", False)])
def test_a_committed_file_of_an_earlier_epoch_stays_valid(
    benchmark: str, valid: bool, entry: Any
) -> None:
    entry.content["benchmark"] = benchmark
    path = entry.write()
    history = {hashlib.sha256(path.read_bytes()).hexdigest()}
    assert (read_submission(path, history)[0] is not None) is valid
    entry.content["link"] = ""  # another file, which nobody committed
    assert read_submission(entry.write(), history)[0] is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("warm-start-digits-v2", "Did you mean 'warm-start-digits-v1'?"),
        ("warm-start-digits-v1.toml", "is no task"),
        ("suite-core-v1", "is no task"),
        ("atari-100k-pong-v1", "is a draft"),
    ],
)
def test_tasks(name: str, said: str, entry: Any) -> None:
    entry.content["tasks"][name] = entry.content["tasks"]["quick-digits-v1"]
    only(entry, f"$.tasks['{name}']", said)


def test_a_path_is_never_opened_as_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Any
) -> None:
    """`get_task` reads TOML files; an untrusted name must not reach it, whatever lies there."""
    monkeypatch.chdir(tmp_path)
    text = Path(find_known.__code__.co_filename).parents[2] / "tasks" / "warm-start-digits-v1.toml"
    (tmp_path / "mine.toml").write_text(text.read_text(encoding="utf-8"), encoding="utf-8")
    entry.content["tasks"] = {"mine.toml": entry.table}
    assert get_task("mine.toml").name == "warm-start-digits-v1"
    submission, [fault] = read_submission(entry.write())
    assert submission is None and "is no task" in fault.sentence


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("task_sha256", "a" * 64, "the task has"),
        ("data_sha256", "b" * 64, "the task has"),
        ("data_sha256", "", "the task has"),
        ("stack", 9, "is 9, the task has 10"),
        ("classes", 11, "is 11, the task has 10"),
    ],
)
def test_hashes_and_facts(key: str, value: Any, said: str, entry: Any) -> None:
    entry.table[key] = value
    only(entry, f"{TASK}.{key}", said)


def test_a_missing_seed(entry: Any) -> None:
    del entry.table["seeds"]["117"]
    only(entry, f"{TASK}.seeds", "lacks seeds 117")


def test_a_foreign_seed(entry: Any) -> None:
    entry.table["seeds"]["120"] = entry.table["seeds"]["119"]
    only(entry, f"{TASK}.seeds", "holds seeds 120, which are not evaluation seeds")


def test_a_tuning_seed_in_place_of_another(entry: Any) -> None:
    entry.table["seeds"]["0"] = entry.table["seeds"].pop("100")
    assert len(read_submission(entry.write())[1]) == 2


def test_the_grid(entry: Any) -> None:
    entry.table["grid"]["step"][3] += 1
    only(entry, f"{TASK}.grid", "is not the task's: 22 points over 2 phases and 60 steps")
    entry.table["grid"]["step"][3] -= 1
    entry.table["grid"]["phase"][10] = 1
    only(entry, f"{TASK}.grid", "is not the task's")
    entry.table["grid"]["phase"].pop()
    only(entry, f"{TASK}.grid", "has 21 phases for 22 steps")


@pytest.mark.parametrize(
    ("phase", "step", "said"),
    [
        (None, None, ""),
        ([0] * 22, None, "does not go through the task's 2 phases"),
        ([1] * 22, None, "does not go through"),
        ([0, 1] * 11, None, "does not go through"),
        ([0] * 11 + [2] * 11, None, "does not go through"),
        (None, [*range(1, 22), 60], "do not rise from 0"),
        (None, [*range(20), 60, 60], "do not rise"),
    ],
)
def test_a_grid_whose_steps_only_the_data_know(
    phase: list[int] | None,
    step: list[int] | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    entry: Any,
) -> None:
    """Where data are absent and budgets in epochs, a grid still has the form of one."""
    known = known_task(get_task("quick-digits-v1"))
    assert known.grid is not None
    other = dataclasses.replace(known, data=None)
    other.__dict__["grid"] = None
    monkeypatch.setattr("ht_bench.leaderboard.valid.find_known", lambda name: other)
    entry.table["grid"] = {"phase": phase or known.grid[0], "step": step or known.grid[1]}
    faults = read_submission(entry.write())[1]
    assert [said in fault.sentence for fault in faults] == ([True] if said else [])


def test_a_grid_of_an_older_version_lacks_the_starts_of_phases(entry: Any) -> None:
    grid = entry.table["grid"]
    start = next(i for i, phase in enumerate(grid["phase"]) if phase == 1)
    for values in (*grid.values(), *(entry.curve(seed) for seed in range(100, 120))):
        del values[start]
    assert read_submission(entry.write())[1] == []
    assert entry.verify("reproduced").level == "reproduced"


def test_a_curve_that_the_task_asks_for(entry: Any) -> None:
    curve = entry.table["seeds"]["100"]["curve"]
    curve["train/accuracy"] = curve["test/accuracy"]
    only(entry, f"{SEED}.curve['train/accuracy']", "is not asked for")
    curve["train/accuracy"] = curve.pop("test/accuracy")
    entry.table["seeds"]["100"]["curve"] = {"eval/return": curve["train/accuracy"]}
    _, faults = read_submission(entry.write())
    assert [fault.path for fault in faults] == [f"{SEED}.curve", f"{SEED}.curve['eval/return']"]
    assert "lacks test/accuracy" in faults[0].sentence


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.0000001, "has an accuracy outside 0 to 1"),
        (-0.1, "has an accuracy outside 0 to 1"),
        (None, "has no number at point 7"),
    ],
)
@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_values(value: Any, said: str, status: str, entry: Any) -> None:
    entry.table["seeds"]["100"]["status"] = status
    entry.table["seeds"]["100"]["curve"]["test/accuracy"][7] = value
    only(entry, f"{SEED}.curve['test/accuracy']", said)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_curve_has_the_grids_points(change: int, entry: Any) -> None:
    curve = entry.table["seeds"]["100"]["curve"]["test/accuracy"]
    entry.table["seeds"]["100"]["curve"]["test/accuracy"] = [*curve, 0.5][: 22 + change]
    only(entry, f"{SEED}.curve['test/accuracy']", f"has {22 + change} points, the grid 22")


def test_steps(entry: Any) -> None:
    entry.table["seeds"]["100"]["steps"] = 61
    only(entry, f"{SEED}.steps", "is 61, the task allows 60")


def test_retention_where_the_task_has_none(entry: Any) -> None:
    entry.table["seeds"]["100"]["retention"] = [0.5, 0.9]
    only(entry, f"{SEED}.retention", "is given, the task does not ask for it")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is null, the task asks for it"),
        ([0.5], "has 1 values for 30 phases"),
        ([0.5] * 29 + [1.5], "has an accuracy outside 0 to 1"),
    ],
)
def test_retention_where_the_task_has_some(
    value: Any, said: str, write: Write, tmp_path: Path
) -> None:
    content = committed("none")
    content["tasks"]["permuted-digits-v1"]["seeds"]["104"]["retention"] = value
    _, [fault] = read_submission(write(content, "none.json"))
    assert fault.path == "$.tasks['permuted-digits-v1'].seeds['104'].retention"
    assert said in fault.sentence


@pytest.mark.parametrize(
    ("status", "points", "value", "said"),
    [
        ("diverged", (-2, -1), None, ""),
        ("finished", (-2, -1), None, "has no number at point"),
        ("diverged", (5,), None, "has numbers after the run diverged"),
        ("diverged", range(-10_000, 0), None, "has no number at point 0"),
        ("finished", (3,), -1e13, "is less than the minimum"),
        ("finished", (3,), -500.0, ""),
    ],
)
def test_returns(status: str, points: Any, value: Any, said: str, write: Write) -> None:
    """Tasks of environments have returns: any finite number, and none once a run has diverged."""
    content = committed("none")
    seeds = content["tasks"]["swap-cartpole-ppo-v1"]["seeds"]
    seed, run = next(iter(seeds.items()))
    run["status"] = status
    run["retention"] = None if status == "diverged" else run["retention"]
    values = run["curve"]["eval/return"]
    for point in points:
        values[max(point, -len(values))] = value
    faults = read_submission(write(content, "none.json"))[1]
    assert [said in fault.sentence for fault in faults] == ([True] if said else [])
    assert all(f"seeds['{seed}']" in fault.path for fault in faults)
