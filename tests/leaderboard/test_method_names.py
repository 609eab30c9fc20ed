"""Methods together ("a+b") and those tuned on a first share, from `run` to *reproduced*."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.leaderboard.valid import read_submission

from .conftest import TASK

Call = Callable[..., Any]
ABOUT = ("--authors", "A. Author", "--summary", "Two rules.", "--tuning", "none")


def test_a_combination_from_its_runs_to_an_entry(call: Call, tmp_path: Path) -> None:
    name, runs, path = "shrink-perturb+l2-init", tmp_path / "runs", tmp_path / "mine.json"
    run = ("run", "--task", TASK, "--method", name, "--device", "cpu", "--out", runs)
    assert call(*run).code == 0
    answer = call("submit", runs, "--method", name, *ABOUT, "--tuning-runs", "0", "--out", path)
    assert answer.code == 0, answer.error
    assert json.loads(path.read_text(encoding="utf-8"))["method"]["name"] == name
    answer = call("verify", path, "--rerun", "5")
    assert answer.code == 0 and "mine: reproduced" in answer.out, answer.out
    assert "bit for bit" in answer.out


def test_what_a_search_on_a_first_share_chose_is_an_entry(entry: Any) -> None:
    entry.content["method"]["name"] = "early-stop@first"
    report = entry.verify("reproduced")
    assert report.faults == [] and report.level == "reproduced"


@pytest.mark.parametrize(
    "name", ["../redo", "a b", "redo@", "redo@last", "+redo", "", "r\u00e9do", "a" * 201]
)
def test_what_is_no_name_of_a_method(name: str, entry: Any) -> None:
    entry.content["method"]["name"] = name
    submission, [fault] = read_submission(entry.write())
    assert submission is None and fault.path == "$.method.name"
