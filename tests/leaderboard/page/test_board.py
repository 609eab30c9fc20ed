"""The board: ranks, gaps, costs and anchors that can be worked out by hand."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.leaderboard.board import Board, make_board, read_entries, shown_suites
from ht_bench.leaderboard.verified import read_verified
from ht_bench.ranking.comparison import Comparison, Table, compare
from ht_bench.ranking.entries import TaskInfo
from ht_bench.ranking.rows import PROFILE_THRESHOLDS, Row
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.suite import get_suite, suite_files
from ht_bench.version import EPOCH
from ht_bench.views.page import write_site
from ht_bench.views.page_content import GENERALIZATION
from ht_bench.views.text import to_text

from .conftest import ROOT, board_of, committed, renamed, suites_of_today

Write = Callable[..., Path]
CORE = "suite-core-v1"
WARM_START = "warm-start-digits-v1"


def row(board: Board, table: str, entry: str) -> Row:
    [found] = [
        row
        for one in (*board.suites, *board.tasks)
        for row in one.rows
        if one.name == table and row.label == entry
    ]
    return found


def name_of(table: Table) -> str:
    return table.name


def flat(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Nested tables as one, a tuple's places numbered."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        value = dict(enumerate(value)) if isinstance(value, tuple) else value
        within = flat(value, f"{place}{key}.") if isinstance(value, dict) else None
        rows |= {f"{place}{key}": value} if within is None else within
    return rows


def test_the_anchors_stand_at_zero_and_one(write: Write) -> None:
    board = board_of(write(committed("none"), committed("full-reset")))
    for table in (*board.suites, *board.tasks):
        for name, expected in (("none", 0), ("full-reset", 1)):
            gap = row(board, table.name, name).mean_of_tasks
            assert gap is not None
            assert (gap.value, gap.low, gap.high) == pytest.approx((expected,) * 3, abs=1e-7)
            score = row(board, table.name, name).gap_closed  # over the runs of several tasks: near
            assert score is not None and score.low - 1e-9 <= expected <= score.high + 1e-9
            assert score.value == pytest.approx(expected, abs=0.05 if table.is_suite else 1e-7)


def test_the_same_runs_under_another_name_share_the_rank_and_the_gap(write: Write) -> None:
    board = board_of(
        write(
            committed("none"),
            committed("full-reset"),
            committed("l2-init"),
            renamed("twin", committed("l2-init")),
        )
    )
    for table in board.suites:
        own, twin = (row(board, table.name, name) for name in ("l2-init", "twin"))
        assert own.rank == twin.rank
        assert own.gap_closed == twin.gap_closed
        assert own.improvement == twin.improvement


def test_the_board_says_what_the_terminal_says(
    write: Write, make_record: Callable[..., Any]
) -> None:
    """The same runs, once as submissions against frozen anchors, once as a folder's records."""
    contents = [committed(name) for name in ("none", "full-reset", "hare-tortoise")]
    records = [
        make_record(
            [[0.0]],
            content["name"],
            int(seed),
            task=WARM_START,
            curve={**table["grid"], **run["curve"]},
            extra_parameters=table["extra_parameters"],
            cost=run,
        )
        for content in contents
        for table in [content["tasks"][WARM_START]]
        for seed, run in table["seeds"].items()
    ]
    info = TaskInfo(WARM_START, "warm-start", 10, tuple(range(100, 120)))
    [terminal] = compare(records, {WARM_START: info}).tables
    board = board_of(write(*contents))
    for shown in terminal.rows:
        ranked = flat(asdict(row(board, WARM_START, shown.label)))
        assert ranked == pytest.approx(flat(asdict(shown)), abs=1e-6)


def test_rank_counts_the_entries_that_are_surely_above(write: Write) -> None:
    worse, better = renamed("worse", committed("none")), renamed("better", committed("none"))
    for content, shift in ((worse, -0.1), (better, 0.1)):
        for table in content["tasks"].values():
            for seed in table["seeds"].values():
                for key, values in seed["curve"].items():
                    scale = 500 if key == "eval/return" else 1
                    moved = [v if i == 0 else v + shift * scale for i, v in enumerate(values)]
                    high = 1e6 if key == "eval/return" else 1.0
                    seed["curve"][key] = [
                        min(max(v, -high if scale > 1 else 0), high) for v in moved
                    ]
    board = board_of(write(committed("none"), worse, better))
    for table in board.suites:
        ranks = {one.label: one.rank for one in table.rows}
        assert ranks == {"better": 1, "none": 2, "worse": 3}


def test_shares_of_runs_above_the_anchors(write: Write) -> None:
    board = board_of(write(committed("ema")))
    profile = row(board, WARM_START, "ema").profile
    assert profile is not None
    anchors = get_suite(CORE).anchors[WARM_START]
    middle = [np.sort(x)[5:15].mean() for x in (anchors.none, anchors.full_reset)]
    final = board.entries["ema"].tasks[WARM_START].runs.final
    for level, anchor in zip(middle, (0.0, 1.0), strict=True):
        share = profile[PROFILE_THRESHOLDS.index(anchor)]
        assert share == pytest.approx(np.mean(final > level))


def test_an_entry_that_lacks_a_task_is_shown_last_and_not_ranked(write: Write) -> None:
    partial = renamed("partial", committed("full-reset"), WARM_START)
    board = board_of(write(committed("none"), committed("full-reset"), partial))
    [core] = [table for table in board.suites if table.name == CORE]
    last = core.rows[-1]
    assert last.label == "partial"
    assert last.rank is None and last.gap_closed is None
    assert last.missing == ("permuted-digits-v1 (not run)", "continual-digits-v1 (not run)")
    assert set(last.by_task) == {WARM_START}
    assert row(board, WARM_START, "partial").rank == 1


def test_costs_are_relative_to_none_on_the_entrys_own_machine(write: Write) -> None:
    elsewhere = renamed("elsewhere", committed("ema"), WARM_START)
    table = elsewhere["tasks"][WARM_START]
    table["none_cost"] = {"seconds": 2.0, "peak_memory_bytes": 1000}
    for seed in table["seeds"].values():
        seed |= {"seconds": 3.0, "peak_memory_bytes": 2500}
    alone = renamed("alone", elsewhere)
    alone["tasks"][WARM_START]["none_cost"] = None
    board = board_of(write(committed("none"), elsewhere, alone))
    own = row(board, WARM_START, "elsewhere")
    assert (own.wall_time, own.peak_memory, own.other_machine) == (1.5, 2.5, False)
    none = committed("none")["tasks"][WARM_START]["seeds"].values()
    foreign = row(board, WARM_START, "alone")
    assert foreign.other_machine
    assert foreign.wall_time == pytest.approx(3.0 / np.mean([seed["seconds"] for seed in none]))
    [table] = [table for table in board.tasks if table.name == WARM_START]
    rows = [line for line in to_text(Comparison((table,), ())).splitlines() if "×" in line]
    lines = {row.split()[2]: row for row in rows}
    assert lines["alone"].endswith("×*") and lines["elsewhere"].endswith("1.50×")


def test_a_diverged_run_counts_as_guessing(write: Write) -> None:
    broken = renamed("broken", committed("full-reset"), WARM_START)
    runs = broken["tasks"][WARM_START]["seeds"]
    for seed in ("100", "101"):
        runs[seed]["status"] = "diverged"
    board = board_of(write(broken))
    assert row(board, WARM_START, "broken").diverged == 2
    task = board.entries["broken"].tasks[WARM_START]
    assert task.runs.final[:2].tolist() == [0.1, 0.1]
    assert task.curve is not None and task.curve.n == 18


def test_without_frozen_anchors_the_boards_own_serve(write: Write) -> None:
    folder = write(committed("none"), committed("full-reset"), committed("ema"))
    entries = read_entries(folder / "submissions", {})
    board = make_board(entries, suites=[])
    assert not board.suites
    assert not board.frozen
    with_suites = make_board(entries, suites_of_today())
    assert with_suites.frozen == {table.name for table in board.tasks}
    for own, frozen in zip(board.tasks, sorted(with_suites.tasks, key=name_of), strict=True):
        assert own.name == frozen.name and own.admission is not None
        assert frozen.admission is not None
        assert own.admission.gap.value == pytest.approx(frozen.admission.gap.value)


def test_without_any_anchors_there_is_a_rank_and_no_gap(write: Write) -> None:
    entries = read_entries(write(committed("ema")) / "submissions", {})
    [first, *_] = make_board(entries, suites=[]).tasks
    assert first.rows[0].gap_closed is None
    assert first.rows[0].rank == 1


@pytest.fixture(scope="module")
def entries() -> dict[Any, Any]:
    """The committed entries by epoch and name."""
    board = ROOT / "leaderboard"
    found = read_entries(board / "submissions", read_verified(board / "verified.json"))
    return {(entry.benchmark, entry.name): entry for entry in found}


@pytest.mark.parametrize("suite", suite_files())
@pytest.mark.parametrize("method", ["none", "full-reset"])
def test_the_reference_entries_are_the_frozen_anchors(
    suite: str, method: str, entries: dict[Any, Any]
) -> None:
    released = get_suite(suite)
    for task, anchors in released.anchors.items():
        frozen: Any = anchors.none if method == "none" else anchors.full_reset
        order = np.argsort(parse_seeds(anchors.seeds))
        final = entries[released.benchmark, method].tasks[task].runs.final
        np.testing.assert_allclose(final, np.asarray(frozen)[order], rtol=0, atol=1e-6)


def test_an_empty_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no submission"):
        read_entries(tmp_path, {})


def test_an_invalid_file_is_named(write: Write) -> None:
    wrong = committed("ema")
    wrong["tasks"][WARM_START]["task_sha256"] = "0" * 64
    folder = write(committed("none")) / "submissions"
    (folder / "ema.json").write_text(json.dumps(wrong), encoding="utf-8")
    with pytest.raises(UsageError, match=r"ema\.json is not valid.*task_sha256"):
        read_entries(folder, {})


def test_names_that_differ_in_case_alone_are_refused(write: Write) -> None:
    folder = write(committed("ema"), renamed("EMA", committed("ema")))
    with pytest.raises(UsageError, match="differ in case alone"):
        read_entries(folder / "submissions", {})


def test_a_level_holds_for_the_very_file_only(write: Write) -> None:
    folder = write(committed("ema")) / "submissions"
    [entry] = read_entries(folder, {})
    assert entry.level == "valid"
    record = {"level": "reproduced", "benchmark": EPOCH, "reruns": {WARM_START: [100]}}
    [judged] = read_entries(folder, {"ema": {**record, "sha256": entry.sha256}})
    assert (judged.level, judged.changed) == ("reproduced", False)
    assert judged.verdict["reruns"] == {WARM_START: [100]}
    [other] = read_entries(folder, {"ema": {**record, "sha256": "0" * 64}})
    assert (other.level, other.changed, other.verdict) == ("valid", True, {})


def test_the_page_says_how_and_where_and_marks_a_file_that_changed(
    write: Write, tmp_path: Path
) -> None:
    folder = write(committed("ema"), committed("none")) / "submissions"
    digests = {entry.name: entry.sha256 for entry in read_entries(folder, {})}
    words = {"reruns": {WARM_START: [100, 107]}, "rules": {WARM_START: "rounding twins"}}
    record = {
        "level": "reproduced",
        "benchmark": EPOCH,
        **words,
        "hardware": {WARM_START: "an abacus"},
    }
    verified = {
        "ema": {**record, "sha256": "0" * 64},
        "none": {**record, "sha256": digests["none"]},
    }
    board = make_board(read_entries(folder, verified), suites_of_today())
    write_site(board, tmp_path / "site")
    pages = {
        name: (tmp_path / "site/methods" / f"{name}.html").read_text() for name in ("ema", "none")
    }
    assert "the file has changed since it was verified" in pages["ema"]
    assert "abacus" not in pages["ema"] and "has changed since" not in pages["none"]
    assert "seeds 100, 107 (rounding twins, on an abacus)" in pages["none"]
    index = (tmp_path / "site/index.html").read_text()
    assert "changed since it was verified" in index


def test_suites_stand_in_the_order_of_their_abilities() -> None:
    mine = replace(get_suite("suite-shift-v1"), name="suite-mine-v1")
    shown = [suite.name for suite in shown_suites([mine]) if suite.benchmark == "0.2"]
    assert shown == [
        *("suite-noisy-start-v1", "suite-clean-start-v1", "suite-mine-v1", "suite-shift-v1"),
        *("suite-images-small-v1", "suite-trainability-v2", "suite-control-v2"),
    ]


def test_every_suite_of_generalization_is_drawn_against_trainability() -> None:
    shown = {suite.name for suite in shown_suites() if suite.benchmark == "0.2"}
    drawn = {name for name in shown if not name.startswith(("suite-trainability", "suite-control"))}
    assert drawn == GENERALIZATION.keys() & shown and len(drawn) >= 4
    assert set(GENERALIZATION.values()) <= {suite.name for suite in shown_suites()}
