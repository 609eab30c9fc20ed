"""The README's way to the leaderboard: evaluate a method of one's own, submit, verify, page."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench import registry

from .conftest import TASK

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
[METHOD] = re.findall(r"```python\n([^`]*?register_method.*?)```", README, flags=re.DOTALL)
[PART] = re.findall(r"## The leaderboard\n.*?```\n(.*?)```", README, flags=re.DOTALL)
RUN, SUBMIT, VERIFY, PAGE = PART.splitlines()


Follow = Callable[..., str]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a contributor has it: the committed leaderboard, and a method in a file."""
    shutil.copytree(ROOT / "leaderboard", tmp_path / "leaderboard")
    (tmp_path / "my_method.py").write_text(METHOD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(registry.methods, "_entries", dict(registry.methods._entries))
    return tmp_path


@pytest.fixture
def follow(call: Callable[..., Any]) -> Follow:
    """Run one line of the README there; returns what it prints."""

    def run(line: str, code: int = 0) -> str:
        answer = call(*shlex.split(line)[1:])
        assert answer.code == code, answer.out + answer.error
        return str(answer.out)

    return run


def check_round_trip(checkout: Path, follow: Follow, run: str, task: str) -> None:
    follow(run)
    assert "Next: ht-bench verify" in follow(SUBMIT)
    printed = follow(VERIFY)
    assert "decay-to-initial: reproduced" in printed
    assert "bit for bit" in printed
    follow(PAGE)
    site = checkout / "leaderboard" / "site"
    assert "decay-to-initial" in (site / "tasks" / f"{task}.html").read_text()
    assert (site / "methods" / "decay-to-initial.html").is_file()


def edit_by_hand(checkout: Path) -> None:
    """Add ten right answers to the last point of every seed, and rename nothing."""
    file = checkout / "leaderboard/submissions/decay-to-initial.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for table in content["tasks"].values():
        for seed in table["seeds"].values():
            last = seed["curve"]["test/accuracy"][-1]
            seed["curve"]["test/accuracy"][-1] = round(min(last + 0.02, 1.0), 3)
            if seed["retention"]:
                seed["retention"][-1] = seed["curve"]["test/accuracy"][-1]
    file.write_text(json.dumps(content), encoding="utf-8")


def test_one_task(checkout: Path, follow: Follow) -> None:
    """The lines as they stand, on a task like one of the suite's with fewer updates."""
    assert "--suite suite-noisy-start-v1" in RUN
    short = RUN.replace("--suite suite-noisy-start-v1", f"--task {TASK}")
    check_round_trip(checkout, follow, f"{short} --jobs 1", TASK)
    edit_by_hand(checkout)
    assert "decay-to-initial: consistent" in follow(VERIFY.split(" --rerun")[0])
    assert "trained again" in follow(VERIFY, code=1)


@pytest.mark.evidence
def test_the_lines_as_they_stand(checkout: Path, follow: Follow) -> None:
    check_round_trip(checkout, follow, RUN, "warm-start-digits-v1")
    ranking = json.loads((checkout / "leaderboard/ranking.json").read_text(encoding="utf-8"))
    assert ranking["suites"]["suite-noisy-start-v1"]["decay-to-initial"]["rank"] is not None
    edit_by_hand(checkout)
    assert "trained again" in follow(VERIFY, code=1)
