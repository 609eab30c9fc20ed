"""On every task of the core suite an honest curve is reproduced, an edited one is caught."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.leaderboard.choosing import Choice
from ht_bench.leaderboard.submit import About, make_submission, write_submission
from ht_bench.leaderboard.verify import Checks, verify
from ht_bench.running import reruns
from ht_bench.streams.suite import get_suite

TASKS = get_suite("suite-core-v1").tasks
METHOD = "hare-tortoise"
SEED = 105


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A submission of all 20 seeds of the three tasks, trained here."""
    from ht_bench import evaluate

    folder = tmp_path_factory.mktemp("core")
    for task in TASKS:
        evaluate(METHOD, task, device="cpu", out=folder / "runs", progress=False)
    path = folder / f"{METHOD}.json"
    write_submission(
        path, make_submission(folder / "runs", Choice(METHOD), About(METHOD, ("A. Author",), ""))
    )
    return path


@pytest.fixture(scope="module")
def checks() -> Checks:
    """Train one seed of each task again."""
    return Checks(reruns.machine, reruns.first_points, reruns.Trainer(), (SEED,))


@pytest.mark.evidence
def test_an_honest_submission_is_reproduced_bit_for_bit(honest: Path, checks: Checks) -> None:
    report = verify(honest, checks)
    assert (report.level, report.faults, report.notes) == ("reproduced", [], [])
    assert {task: found["how"] for task, found in report.reruns.items()} == dict.fromkeys(
        TASKS, "bit for bit"
    )


def edit_end(values: list[float]) -> None:
    values[-1] = round(values[-1] - 1 / 500, 3)


def edit_middle(values: list[float]) -> None:
    values[len(values) // 2] = round(values[len(values) // 2] - 1 / 500, 3)


def exchange(values: list[float]) -> None:
    other = next(i for i in range(2, len(values)) if values[i] != values[1])
    values[1], values[other] = values[other], values[1]


@pytest.mark.evidence
@pytest.mark.parametrize("edit", [edit_end, edit_middle, exchange])
def test_a_curve_edited_by_hand_is_caught(
    edit: Callable[[list[float]], None], honest: Path, checks: Checks, tmp_path: Path
) -> None:
    """Every edit is one that no recomputed first point shows."""
    content: Any = json.loads(honest.read_bytes())
    for task in TASKS:
        run = content["tasks"][task]["seeds"][str(SEED)]
        edit(run["curve"]["test/accuracy"])
        if run["retention"]:
            run["retention"][-1] = run["curve"]["test/accuracy"][-1]
    path = tmp_path / honest.name
    path.write_text(json.dumps(content), encoding="utf-8")
    report = verify(path, checks)
    assert report.level == "consistent"
    assert [fault.path for fault in report.faults] == [
        f"$.tasks['{task}'].seeds['{SEED}']" for task in content["tasks"]
    ]
