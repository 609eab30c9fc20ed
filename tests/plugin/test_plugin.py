"""A package that brings one of each kind of thing, through every command.

Once with its entry points served in this process, once installed into a fresh environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench import registry
from ht_bench.testing import check_method, check_task

PLUGIN = Path(__file__).parent
ROOT = PLUGIN.parent.parent
METHOD, SUITE = "plugged-decay", "suite-plugged-v1"
TASKS = ("plugged-blobs-v1", "plugged-corridor-v1")
PARTS = ("plugged-net", "plugged-snake", "plugged-norm", "plugged/Corridor-v1", "plugged-blobs")
Say = Callable[..., Any]


def points() -> list[EntryPoint]:
    table = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))
    groups: dict[str, dict[str, str]] = table["project"]["entry-points"]
    return [
        EntryPoint(name, value, group) for group in groups for name, value in groups[group].items()
    ]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's entry points beside those of what is installed; forgotten after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PLUGIN / "src")
    found = EntryPoints(points())
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group: [*entry_points(group=group), *found.select(group=group)],
    )
    for kind in registry.KINDS.values():
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))
        monkeypatch.setattr(kind, "_points", {})
        monkeypatch.setattr(kind, "_rivals", {})
        monkeypatch.setattr(kind, "_searched", False)


def test_it_brings_one_of_each_kind() -> None:
    groups = {point.group for point in points()}
    assert groups == {kind._group for kind in registry.KINDS.values()}


def walk(say: Say, methods: str, jobs: str) -> None:
    """Go through the commands in the present folder; each ends with 0 and names what it should."""

    def said(*words: str) -> str:
        answer = say(*words)
        assert answer.code == 0, (words, answer.error, answer.out)
        return str(answer.out)

    listed = said("list")
    for name in (METHOD, SUITE, *TASKS, *PARTS):
        assert name in listed, name

    said("run", "--suite", SUITE, "--method", methods, "--jobs", jobs, "--out", "runs")
    compared = json.loads(said("compare", "runs", "--suite", SUITE, "--format", "json"))
    assert METHOD in json.dumps(compared) and SUITE in json.dumps(compared)
    assert METHOD in said("compare", "runs", "--figures", "figures")
    assert list(Path("figures").glob("curves-plugged-*.png"))
    said("tensorboard", "runs", "--no-serve")
    assert list(Path("runs/aggregate").rglob("*tfevents*"))

    words = ("--task", TASKS[0], "--method", METHOD, "--seeds", "0-1", "--jobs", jobs)
    said("tune", *words, "--out", "tuning", "--write")
    recipe = tomllib.loads(Path(f"tuning/recipes/{METHOD}.toml").read_text(encoding="utf-8"))
    assert recipe["search"][TASKS[0]]["seeds"] == "0-1"
    tuned = recipe["tasks"][TASKS[0]]["strength"]
    assert tuned in (1e-3, 1e-2)

    said(
        "freeze", "--suite", "suite-own-v1", "--task", TASKS[0], "--title", "one", "--runs", "runs"
    )
    frozen = tomllib.loads(Path("suite-own-v1.toml").read_text(encoding="utf-8"))
    assert len(frozen["anchors"][TASKS[0]]["none"]) == 6

    entry = Path("leaderboard/submissions/plugged-decay.json")
    about = ("--authors", "A. Author", "--link", "https://example.org", "--out", str(entry))
    said("submit", "runs", "--method", METHOD, *about)
    assert set(json.loads(entry.read_text(encoding="utf-8"))["tasks"]) == set(TASKS)
    assert "consistent" in said("verify", str(entry))
    said("page", "leaderboard", "--suite", "suite-own-v1.toml")
    pages = Path("leaderboard/site").rglob("*.html")
    assert any(METHOD in page.read_text(encoding="utf-8") for page in pages)
    assert "intact" in said("data", "verify", "plugged-blobs")


@pytest.mark.usefixtures("served")
def test_served_in_this_process(call: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    walk(call, f"none,full-reset,{METHOD}", "1")


@pytest.mark.usefixtures("served")
def test_in_python() -> None:
    check_method(METHOD)
    for task in (*TASKS, PLUGIN / "net-task.toml", PLUGIN / "norm-task.toml"):
        check_task(task)
    result = ht_bench.evaluate(METHOD, PLUGIN / "net-task.toml", progress=False)
    assert result.records[0]["hyperparameters"] == {"strength": 1e-3}
    result = ht_bench.evaluate(METHOD, TASKS[1], progress=False)
    assert result.records[0]["hyperparameters"] == {"strength": 2e-3}  # of its recipe's task


@pytest.mark.evidence
def test_installed_into_a_fresh_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded: the fresh environment sees the present one's packages."""
    monkeypatch.chdir(tmp_path)
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", fresh], check=True)
    python = fresh / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    seen = [ROOT, *(path for path in sys.path if path and "site-packages" in path)]
    (own / "present.pth").write_text("\n".join(map(str, seen)), encoding="utf-8")
    source = Path(shutil.copytree(PLUGIN, tmp_path / "plugin"))
    install = ["install", "--no-deps", "--no-index", "--no-build-isolation", "--quiet", source]
    subprocess.run([python, "-m", "pip", *install], check=True)
    assert (own / "plugged").is_dir()

    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"COLUMNS": "200"}

    class Answer:
        def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
            self.code, self.out, self.error = done.returncode, done.stdout, done.stderr

    def say(*words: str) -> Answer:
        command = [python, "-m", "ht_bench", *words]
        return Answer(
            subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        )

    before = {path: path.stat().st_mtime_ns for path in (own / "plugged").rglob("*.toml")}
    walk(say, "all", "2")
    after = {path: path.stat().st_mtime_ns for path in (own / "plugged").rglob("*.toml")}
    assert after == before  # what is written goes to the user's folder
    assert "plugged 1.2.3" in say("list").out
    checks = (
        "from ht_bench.testing import check_method, check_task\n"
        f"check_method('{METHOD}')\n"
        f"for task in {TASKS}: check_task(task)\n"
    )
    done = subprocess.run([python, "-c", checks], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
