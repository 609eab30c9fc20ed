"""`ht-bench compare --suite` of a folder of runs: that suite and its tasks, nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., Any]


def test_a_suite_shows_its_own_tasks_alone(
    call: Call, runs: Path, write_task: Any, tmp_path: Path
) -> None:
    """Runs of another task in the folder are left out; a suite of which nothing was run is said."""
    other = write_task("other")
    words = ("--method", "none", "--seeds", "100", "--jobs", "1", "--out", runs)
    assert call("run", "--task", other, *words).code == 0
    suite = tmp_path / "mine.toml"
    text = 'name = "mine"\ntitle = "Mine"\ntasks = ["tiny.toml"]\n'
    write_task()
    suite.write_text(text, encoding="utf-8")
    tables = json.loads(call("compare", runs, "--suite", suite, "--format", "json").out)["tables"]
    assert [table["name"] for table in tables] == ["mine", "tiny-v1"]
    answer = call("compare", runs, "--suite", "suite-clean-start-v1")
    assert answer.code == 2 and "has no runs of suite-clean-start-v1, which is" in answer.error
    assert "but of " in answer.error and "tiny-v1" in answer.error
