"""ranking.json follows from the curves to 1e-4, and a change of either is seen."""

import copy
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.cli import main
from ht_bench.leaderboard.board import make_board, read_entries
from ht_bench.leaderboard.ranking_file import (
    ranking,
    ranking_faults,
    read_ranking,
    read_rankings,
    write_ranking,
)
from ht_bench.leaderboard.submit import write_submission
from ht_bench.leaderboard.verified import read_verified

from .conftest import ROOT, committed, renamed

Write = Callable[..., Path]
CORE = "suite-core-v1"


def test_the_committed_ranking_follows_from_the_committed_curves() -> None:
    verified = read_verified(ROOT / "leaderboard" / "verified.json")
    entries = read_entries(ROOT / "leaderboard" / "submissions", verified)
    ranked = set()
    for path, found in read_rankings(ROOT / "leaderboard").items():
        assert ranking_faults(found, entries) == [], path
        ranked |= {(found["benchmark"], name) for name in found["entries"]}
    assert ranked == {(entry.benchmark, entry.name) for entry in entries}


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranked leaderboard folder that no test changes."""
    folder = tmp_path_factory.mktemp("ranked")
    for name in ("none", "full-reset", "l2-init"):
        write_submission(folder / "submissions" / f"{name}.json", committed(name))
    write_ranking(folder / "ranking.json", make_board(read_entries(folder / "submissions", {})))
    return folder


@pytest.fixture
def board(ranked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ranked, tmp_path / "board"))


@functools.cache
def entries_of(folder: Path) -> list[Any]:
    return read_entries(folder / "submissions", {})


def faults(folder: Path, change: Callable[[dict[str, Any]], None]) -> list[str]:
    found = copy.deepcopy(read_ranking(folder / "ranking.json"))
    change(found)
    return ranking_faults(found, entries_of(folder))


def test_what_was_written_is_read_back(ranked: Path) -> None:
    made = ranking(make_board(entries_of(ranked)))
    assert read_ranking(ranked / "ranking.json") == json.loads(json.dumps(made))
    assert faults(ranked, lambda found: None) == []


@pytest.mark.parametrize(("shift", "seen"), [(0.9e-4, False), (1.1e-4, True), (-1.1e-4, True)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_fourth_decimal_counts(ranked: Path, shift: float, seen: bool, place: int) -> None:
    def change(found: dict[str, Any]) -> None:
        found["suites"][CORE]["l2-init"]["gap_closed"][place] += shift

    assert bool(faults(ranked, change)) is seen


def test_a_changed_rank_is_seen(ranked: Path) -> None:
    [sentence] = faults(ranked, lambda found: found["suites"][CORE]["l2-init"].update({"rank": 2}))
    assert "l2-init, rank" in sentence


def test_an_entry_that_is_not_there_is_seen(board: Path) -> None:
    (board / "submissions" / "l2-init.json").unlink()
    assert faults(board, lambda found: None) == [
        "l2-init is ranked, but its submission is not there"
    ]


def test_an_entry_left_out_of_a_suite_is_seen(ranked: Path) -> None:
    assert faults(ranked, lambda found: found["suites"][CORE].pop("l2-init"))


def test_check_by_the_command(
    board: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["page", str(board), "--check"]) == 0
    write(renamed("newcomer", committed("ema")))
    assert main(["page", str(board), "--check"]) == 0
    assert "Not ranked yet: newcomer" in capsys.readouterr().err
    edited = committed("l2-init")
    for seed in edited["tasks"]["warm-start-digits-v1"]["seeds"].values():
        seed["curve"]["test/accuracy"][-1] = 1.0
    write(edited)
    assert main(["page", str(board), "--check"]) == 1
    assert "l2-init, gap_closed" in capsys.readouterr().out
    (board / "ranking.json").unlink()
    assert main(["page", str(board), "--check"]) == 2
    assert "Traceback" not in capsys.readouterr().err
