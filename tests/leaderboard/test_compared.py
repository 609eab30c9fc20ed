"""`ht-bench compare` of a leaderboard: the page's numbers in the terminal, without any runs."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
BOARD = Path(__file__).parents[2] / "leaderboard"
SUITE = "suite-noisy-start-v1"


def test_the_entries_numbers_are_the_committed_ranking(call: Call) -> None:
    answer = call("compare", BOARD, "--suite", SUITE, "--format", "json")
    assert answer.code == 0
    suite, *tasks = json.loads(answer.out)["tables"]
    assert (suite["name"], len(tasks)) == (SUITE, 5)
    ranking = json.loads((BOARD / "ranking.json").read_text(encoding="utf-8"))["suites"][SUITE]
    assert {row["method"] for row in suite["rows"]} == set(ranking)
    for row in suite["rows"]:
        assert row["gap_closed"]["value"] == pytest.approx(ranking[row["method"]]["gap_closed"][0])
        assert row["rank"] == ranking[row["method"]]["rank"]


def test_the_newest_epoch_comes_and_earlier_ones_are_named(call: Call) -> None:
    answer = call("compare", BOARD)
    assert answer.code == 0 and f"{SUITE} (test split, fp32 on cpu, benchmark 0.2)" in answer.out
    assert f"`ht-bench compare {BOARD / 'submissions' / '0.1'}`" in answer.out.replace("\n", " ")
    older = call("compare", BOARD / "submissions" / "0.1", "--format", "csv")
    assert older.code == 0
    assert {row["benchmark"] for row in csv.DictReader(io.StringIO(older.out))} == {"0.1"}


def test_a_suite_without_entries_is_said(call: Call) -> None:
    answer = call("compare", BOARD, "--suite", "suite-control-v1")
    assert answer.code == 2 and "has no ranking of suite-control-v1 in 0.2" in answer.error
    assert f"ht-bench compare {BOARD / 'submissions' / '0.1'}" in answer.error


def test_pictures_are_drawn_of_entries(call: Call, tmp_path: Path) -> None:
    board = tmp_path / "submissions"
    board.mkdir()
    for name in ("none", "full-reset", "fire"):
        shutil.copy(BOARD / "submissions" / f"{name}.json", board)
    answer = call("compare", tmp_path, "--suite", SUITE, "--figures", tmp_path / "figures")
    assert answer.code == 0
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert f"ranking-{SUITE}.png" in drawn and "curves-warm-start-digits-v1.png" in drawn
    assert len(drawn) == 1 + 2 * 5


def test_a_damaged_entry_is_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"schema": 1}', encoding="utf-8")
    answer = call("compare", tmp_path)
    assert answer.code == 2 and f"{tmp_path / 'mine.json'} is not valid" in answer.error


def test_runs_beside_a_stray_file_are_runs(call: Call, trained: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(trained, tmp_path / "runs"))
    (runs / "notes.json").write_text("{}", encoding="utf-8")
    answer = call("compare", runs)
    assert answer.code == 0 and "early-stop" in answer.out
