"""The README's way to the leaderboard: evaluate a method of one's own, submit, verify, page."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
[METHOD] = re.findall(r"```python\n([^`]*?register_method.*?)```", README, flags=re.DOTALL)
[PART] = re.findall(r"## The leaderboard\n.*?```\n(.*?)```", README, flags=re.DOTALL)
RUN, SUBMIT, VERIFY, PAGE = PART.splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder as a contributor has it: the committed leaderboard, and a method in a file."""
    shutil.copytree(ROOT / "leaderboard", tmp_path / "leaderboard")
    (tmp_path / "my_method.py").write_text(METHOD, encoding="utf-8")
    return tmp_path


def follow(checkout: Path, line: str, code: int = 0) -> str:
    """Run one line of the README there; returns what it prints."""
    command = [sys.executable, "-m", *shlex.split(line.replace("ht-bench", "ht_bench", 1))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def check_round_trip(checkout: Path, run: str) -> None:
    follow(checkout, run)
    assert "Next: ht-bench verify" in follow(checkout, SUBMIT)
    printed = follow(checkout, VERIFY)
    assert "decay-to-initial: reproduced" in printed
    assert "bit for bit" in printed
    follow(checkout, PAGE)
    site = checkout / "leaderboard" / "site"
    assert "decay-to-initial" in (site / "tasks" / "warm-start-digits-v1.html").read_text()
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


def test_one_task(checkout: Path) -> None:
    """The lines as they stand, on one task of the suite and without the costs of `none`."""
    assert "--suite suite-core-v1" in RUN and ",none" in RUN
    short = RUN.replace("--suite suite-core-v1", "--task warm-start-digits-v1").replace(",none", "")
    check_round_trip(checkout, short)
    edit_by_hand(checkout)
    assert "decay-to-initial: consistent" in follow(checkout, VERIFY.split(" --rerun")[0])
    assert "trained again" in follow(checkout, VERIFY, code=1)


@pytest.mark.evidence
def test_the_lines_as_they_stand(checkout: Path) -> None:
    check_round_trip(checkout, RUN)
    ranking = json.loads((checkout / "leaderboard/ranking.json").read_text(encoding="utf-8"))
    assert ranking["suites"]["suite-core-v1"]["decay-to-initial"]["rank"] is not None
    edit_by_hand(checkout)
    assert "trained again" in follow(checkout, VERIFY, code=1)
