"""`ht-bench compare RUNS BOARD`: runs of one's own ranked among a leaderboard's entries."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.leaderboard import compared
from ht_bench.leaderboard.beside import Own, own_entries
from ht_bench.leaderboard.board import read_entries
from ht_bench.ranking.influence import interquartile_mean
from ht_bench.streams.suite import get_suite
from ht_bench.version import EPOCH

Call = Callable[..., Any]
BOARD = Path(__file__).parents[2] / "leaderboard"
TASK = "quick-digits-v1"


@pytest.fixture
def board(tmp_path: Path, honest_bytes: bytes) -> Path:
    """A leaderboard of anchors and early-stop on the quick task."""
    folder = tmp_path / "board" / "submissions"
    folder.mkdir(parents=True)
    for place, name in enumerate(("none", "early-stop", "full-reset")):
        content = json.loads(honest_bytes)
        content["name"] = content["method"]["name"] = name
        for run in content["tasks"][TASK]["seeds"].values():
            curve = run["curve"]["test/accuracy"]
            curve[-1] = round(curve[-1] - 0.1 * (1 - place), 3)
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder.parent


def tables(answer: Any) -> list[dict[str, Any]]:
    assert answer.code == 0, answer.error
    return list(json.loads(answer.out)["tables"])


def test_own_runs_are_ranked_among_the_entries(call: Call, trained: Path, board: Path) -> None:
    [table] = tables(call("compare", trained, board, "--format", "json"))
    rows = {row["method"]: row for row in table["rows"]}
    assert set(rows) == {"none", "full-reset", "early-stop", "early-stop (own)"}
    own, entry = rows["early-stop (own)"], rows["early-stop"]
    for key in ("rank", "n", "metric", "gap_closed"):
        assert own[key] == entry[key], key  # they are the very runs that the entry was made of
    assert rows["full-reset"]["rank"] == 1 < own["rank"] < rows["none"]["rank"]


def test_the_order_of_the_folders_does_not_matter(call: Call, trained: Path, board: Path) -> None:
    first, second = call("compare", trained, board), call("compare", board, trained)
    assert first.out == second.out and "early-stop (own)" in first.out
    assert f"Of {trained}: early-stop (own); the others are the leaderboard's" in " ".join(
        first.out.split()
    )


def test_curves_of_both_are_drawn(call: Call, trained: Path, board: Path, tmp_path: Path) -> None:
    answer = call("compare", trained, board, "--figures", tmp_path / "figures")
    assert answer.code == 0
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert drawn == {f"ranking-{TASK}.png", f"curves-{TASK}.png"}


def changed(runs: Path, copy: Path, **changes: Any) -> Path:
    """Return a copy of runs whose results say something else."""
    shutil.copytree(runs, copy)
    for path in copy.glob("*/*/seed*/result.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**record, **changes}), encoding="utf-8")
    return copy


def test_own_anchors_are_no_entries_and_give_the_cost(
    call: Call, trained: Path, board: Path, tmp_path: Path
) -> None:
    alone = changed(trained, tmp_path / "runs", method="none")
    answer = call("compare", alone, board)
    assert answer.code == 2 and "holds no method's runs that the entries" in answer.error
    both = alone
    for folder in (trained / TASK).iterdir():
        if folder.is_dir():
            shutil.copytree(folder, both / TASK / f"early-stop-{folder.name[-8:]}x")
    [entry] = own_entries(both, EPOCH).entries
    runs = entry.tasks[TASK].runs
    assert runs.none_cost is not None
    assert runs.none_cost[0] == pytest.approx(runs.seconds.mean())
    [table] = tables(call("compare", both, board, "--format", "json"))
    own = {row["method"]: row for row in table["rows"]}["early-stop (own)"]
    assert own["wall_time"] == pytest.approx(1.0)


def test_a_suite_is_shown_where_own_runs_have_all_of_it(call: Call, tmp_path: Path) -> None:
    """Runs rebuilt from a committed entry, on all tasks of a suite or on all but one."""
    submissions = tmp_path / "board" / "submissions"
    submissions.mkdir(parents=True)
    for name in ("none", "full-reset", "fire"):
        shutil.copy(BOARD / "submissions" / f"{name}.json", submissions)
    [fire] = [e for e in read_entries(submissions, {}) if e.name == "fire"]
    suite = "suite-noisy-start-v1"

    def comparison(tasks: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
        own = dataclasses.replace(fire, name="mine (own)", tasks={t: fire.tasks[t] for t in tasks})
        clean = {"clean-narrow-digits-v1": fire.tasks["clean-narrow-digits-v1"]}
        elsewhere = dataclasses.replace(fire, name="elsewhere (own)", tasks=clean)
        both = Own(tmp_path, (elsewhere, own), ())
        monkeypatch.setattr(compared, "own_entries", lambda runs, epoch: both)
        return compared.compare_entries(submissions, suite, tmp_path)[0]

    names = [t for t in fire.tasks if t.startswith("noisy-") and "cifar" not in t]
    names.append("warm-start-digits-v1")
    with pytest.MonkeyPatch.context() as patch:
        whole = comparison(names, patch)
        assert whole.tables[0].name == suite and len(whole.tables) == 6
        values = {row.label: row.gap_closed for row in whole.tables[0].rows}
        assert values["mine (own)"] == values["fire"]
        assert values["fire"].value == pytest.approx(
            interquartile_mean(np.concatenate([_gaps(fire, t, submissions) for t in names]))
        )
        part = comparison(names[1:], patch)
        assert [table.is_suite for table in part.tables] == [False] * 4
        assert (
            part.notes[0] == f"Of {tmp_path}: mine (own); the others are the leaderboard's entries."
        )
        assert f"{suite} has no table here: mine (own) lacks {names[0]} (not run)." in part.notes


def _gaps(entry: Any, task: str, submissions: Path) -> Any:
    anchors = get_suite("suite-noisy-start-v1").anchors[task].by_seed()
    warm, fresh = (
        interquartile_mean([*anchors[method].values()]) for method in ("none", "full-reset")
    )
    return (entry.tasks[task].runs.final - warm) / (fresh - warm)


def test_what_cannot_be_compared_is_a_sentence(
    call: Call, trained: Path, board: Path, tmp_path: Path
) -> None:
    answer = call("compare", trained, tmp_path)
    assert (
        answer.code == 2 and "holds no submissions; name a folder of runs and one" in answer.error
    )
    answer = call("compare", trained, tmp_path / "leaderbord")
    assert answer.code == 2 and "There is no folder" in answer.error
    answer = call("compare", trained, board, "--suite", "suite-noisy-start-v1")
    assert answer.code == 2 and "has no" in answer.error
    older = changed(trained, tmp_path / "older", benchmark="0.1.0")
    answer = call("compare", older, board)
    assert answer.code == 2 and f"are of ht-bench 0.1, the entries of {EPOCH}" in answer.error
    validation = changed(trained, tmp_path / "validation", split="validation")
    answer = call("compare", validation, board)
    assert answer.code == 2 and "holds validation runs alone" in answer.error
    foreign = changed(trained, tmp_path / "foreign", data_sha256="0" * 64)
    answer = call("compare", foreign, board)
    assert answer.code == 2 and f"{TASK} is left out: its runs are of another" in answer.error
