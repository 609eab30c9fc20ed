"""One mean has one 95 % interval: in the table, the figure, TensorBoard and the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ht_bench.leaderboard.board import make_board, read_entries
from ht_bench.leaderboard.verified import read_verified
from ht_bench.ranking.comparison import compare
from ht_bench.ranking.entries import TaskInfo, group_records
from ht_bench.views import style
from ht_bench.views.figures import curves_figure
from ht_bench.views.page import write_site
from ht_bench.views.tensorboard import tags_of, write_aggregate
from ht_bench.views.text import format_interval, to_csv, to_json, to_text

TASK, METHOD, KEY = "warm-start-digits-v1", "ema", "test/accuracy"
FILE = Path(__file__).parents[2] / "leaderboard" / "submissions" / "0.1" / f"{METHOD}.json"
Ends = tuple[float, float, float]


@pytest.fixture(scope="module")
def submitted() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))["tasks"][TASK]


@pytest.fixture
def records(submitted: Any, make_record: Callable[..., Any]) -> list[Any]:
    """The committed runs of the submission, as the runner would have left them."""
    return [
        make_record(
            [[0.0]],
            METHOD,
            int(seed),
            task=TASK,
            curve={**submitted["grid"], **run["curve"]},
            diagnostics={},
        )
        for seed, run in submitted["seeds"].items()
    ]


@pytest.fixture
def info(submitted: Any) -> TaskInfo:
    return TaskInfo(TASK, "warm-start", 10, tuple(map(int, submitted["seeds"])))


def in_the_table(records: list[Any], info: TaskInfo) -> Ends:
    comparison = compare(records, {TASK: info})
    [row] = comparison.tables[0].rows
    assert row.metric is not None
    shown = format_interval(row.metric, 3)
    assert shown in to_text(comparison)
    assert (
        json.loads(to_json(comparison))["tables"][0]["rows"][0]["metric"]["low"] == row.metric.low
    )
    assert str(row.metric.high) in to_csv(comparison)
    return row.metric.value, row.metric.low, row.metric.high


def in_the_figure(records: list[Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> Ends:
    figures: list[Any] = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    curves_figure({METHOD: records}, TASK, KEY, out)
    axes = figures[0].axes[-1]
    last = axes.lines[0].get_xdata()[-1]
    [band] = axes.collections
    heights = sorted(y for x, y in band.get_paths()[0].vertices if x == last)
    return axes.lines[0].get_ydata()[-1], heights[0], heights[-1]


def in_tensorboard(records: list[Any], info: TaskInfo, out: Path) -> Ends:
    infos = {TASK: info}
    write_aggregate(out, compare(records, infos), group_records(records, infos), infos)
    events = EventAccumulator(str(out / METHOD), size_guidance={"scalars": 0})
    events.Reload()
    mean, low, high = (events.Scalars(tag)[-1].value for tag in tags_of(TASK, KEY))
    return mean, low, high


def on_the_page(out: Path) -> tuple[str, str]:
    """The interval in the standings of the task's page, and at the last end of a phase."""
    (out / "submissions").mkdir()
    shutil.copy(FILE, out / "submissions")
    verified = read_verified(FILE.parents[2] / "verified.json")
    write_site(make_board(read_entries(out / "submissions", verified)), out / "site")
    standings = (out / "site" / "tasks" / f"{TASK}.html").read_text(encoding="utf-8")
    ends = (out / "site" / "methods" / f"{METHOD}.html").read_text(encoding="utf-8")
    return standings, ends


def test_table_figure_tensorboard_and_page_agree(
    records: list[Any], info: TaskInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finals = [record["curve"][KEY][-1] for record in records]
    students = stats.t.interval(0.95, len(finals) - 1, stats.tmean(finals), stats.sem(finals))
    expected = (stats.tmean(finals), *students)
    assert in_the_table(records, info) == pytest.approx(expected)
    assert in_the_figure(records, tmp_path / "x", monkeypatch) == pytest.approx(expected)
    assert in_tensorboard(records, info, tmp_path / "tb") == pytest.approx(expected, rel=1e-6)
    mean, low, high = (f"{value:.3f}" for value in expected)
    standings, ends = on_the_page(tmp_path)
    assert f"{mean} <small>[{low}, {high}]</small>" in standings
    assert f"<td>{mean}</td><td>{low} to {high}</td>" in ends
