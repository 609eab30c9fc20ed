"""Which runs `ht-bench submit` takes, and what it says where there are none to take."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.leaderboard.choosing import Choice, choose_runs
from ht_bench.ranking.entries import read_groups

TASK, METHOD = "quick-digits-v1", "early-stop"
Change = Callable[..., Path]


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Change:
    """Return a function that copies the 20 runs, as `values` would have them."""

    def copy(**values: Any) -> Path:
        runs = Path(shutil.copytree(trained, tmp_path / "runs"))
        for path in runs.glob("*/*/seed*/result.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps({**record, **values}), encoding="utf-8")
        return runs

    return copy


def said(runs: Path, choice: Choice) -> str:
    with pytest.raises(UsageError) as error:
        choose_runs(read_groups(runs).groups, choice, runs)
    return str(error.value)


@pytest.mark.parametrize("tasks", [(), (TASK,)])
def test_runs_of_the_validation_split_are_called_so(changed: Change, tasks: Any) -> None:
    runs = changed(split="validation")
    sentence = said(runs, Choice(METHOD, tasks, named="mine.toml"))
    words = f"--task {TASK} --method mine.toml --device cpu --out {runs}"
    assert sentence == (
        f"The runs of '{METHOD}' below {runs} are of the validation split, and a submission is "
        f"made of the test split's; make those, without --split: `ht-bench run {words}`."
    )
    assert said(runs, Choice("l2", tasks)) == (
        f"{runs} holds no test-split runs of 'l2'. It has none of any method."
    )


def test_runs_on_other_tasks_alone(changed: Change) -> None:
    runs, other = changed(), "warm-start-digits-v1"
    sentence = said(runs, Choice(METHOD, (other,)))
    assert f"'{METHOD}' has no test-split runs on {other} below {runs}; make them: `" in sentence
    assert "Did you mean" not in sentence
    assert said(runs, Choice("early-stopp")).endswith(f"Did you mean '{METHOD}'? It has: {METHOD}.")
