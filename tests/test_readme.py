"""The README's examples run, and its generated parts are what the runs' files say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def block(beginning: str) -> str:
    [found] = [text for text in BLOCKS if beginning in text]
    return found


def test_hare_and_tortoise_in_a_plain_program(tmp_path: Path) -> None:
    run(tmp_path, sys.executable, "-c", block("HareTortoise("))


def test_a_method_of_ones_own_is_checked_and_run(tmp_path: Path) -> None:
    (tmp_path / "my_method.py").write_text(block("register_method"), encoding="utf-8")
    [check] = re.findall(r'python -c "(.*?)"', README)
    run(tmp_path, sys.executable, "-c", check)
    [arguments] = re.findall(r"ht-bench (run --task warm-start-digits-v1 --method my.*)", README)
    words = arguments.replace(",none,full-reset,hare-tortoise", "").split()
    run(tmp_path, sys.executable, "-m", "ht_bench", *words, "--seeds", "100", "--jobs", "1")
    table = run(tmp_path, sys.executable, "-m", "ht_bench", "compare", "runs")
    assert "decay-to-initial" in table


def test_evaluate_from_python(tmp_path: Path) -> None:
    printed = run(tmp_path, sys.executable, "-c", block("ht_bench.evaluate("))
    assert "Estimate(value=" in printed
    assert (tmp_path / "curves.png").is_file()
    assert len(list(tmp_path.glob("runs/*/*/seed*/result.json"))) == 10


@pytest.mark.parametrize("beginning", ["import ht_bench.sb3", "make_vec(", "SwapCartPolePPO"])
def test_agents_and_environments(tmp_path: Path, beginning: str) -> None:
    run(tmp_path, sys.executable, "-c", block(beginning))


@pytest.mark.parametrize("name", re.findall(r"\]\(((?:docs|leaderboard|[A-Z])[^)]*)\)", README))
def test_links_lead_somewhere(name: str) -> None:
    assert (ROOT / name).is_file()
