"""What goes with the accuracy after a boundary: planted links are found, noise and methods told."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from ht_bench.errors import UsageError
from ht_bench.ranking import stratified
from ht_bench.ranking.entries import Setting, TaskInfo, group_records
from ht_bench.ranking.explaining import Explained, Explanation, explain, explain_folder
from ht_bench.ranking.stratified import spearman, spearman_estimates
from ht_bench.views import explanation as view

Make = Callable[..., dict[str, Any]]
INFO = TaskInfo("digits-v1", "continual", 10, tuple(range(100, 112)))
METHODS = ("none", "ema", "l2", "hare-tortoise", "l2-init", "layer-norm", "redo", "sam")


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stratified, "DRAWS", 1000)


# ---- the correlation ----


def test_without_strata_it_is_spearmans_with_ties() -> None:
    draw = np.random.default_rng(0)
    for _ in range(5):
        x, y = draw.integers(0, 6, 30).astype(float), draw.normal(size=30)
        mine = spearman(x, y, np.zeros(30, dtype=int))
        assert mine == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_a_weight_counts_as_so_many_rows() -> None:
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, 5, 12).astype(float), draw.normal(size=12)
    strata, counts = np.repeat([0, 1, 2], 4), draw.integers(0, 4, 12)
    weights = counts[:, None].astype(float)
    along = stratified._midranks(y, strata, weights)
    weighted = stratified._correlations(along, x, strata, weights)[0]
    many = [np.repeat(values, counts) for values in (x, y, strata)]
    assert weighted == pytest.approx(spearman(many[0], many[1], many[2].astype(int)), abs=1e-12)


def test_strata_take_out_what_differs_between_them() -> None:
    """Falling within each stratum, rising between them."""
    x = np.array([1.0, 2, 3, 11, 12, 13])
    y = np.array([3.0, 2, 1, 13, 12, 11])
    assert spearman(x, y, np.zeros(6, dtype=int)) > 0.5
    assert spearman(x, y, np.repeat([0, 1], 3)) == pytest.approx(-1.0)


def test_what_does_not_vary_has_none() -> None:
    flat, y = np.ones(6), np.arange(6.0)
    clusters = np.arange(6), np.arange(6)
    one, other = spearman_estimates([flat, y], y, np.zeros(6, dtype=int), clusters)
    assert math.isnan(one.value) and other.value == pytest.approx(1.0)
    assert math.isnan(spearman(y, y, np.arange(6)))


def test_rows_of_a_cluster_move_together() -> None:
    """Four seeds, each five times over: as uncertain as four rows, not as twenty."""
    draw = np.random.default_rng(2)
    x, y = np.repeat(draw.normal(size=4), 5), np.repeat(draw.normal(size=4), 5)
    none, one = np.zeros(20, dtype=int), np.zeros(20, dtype=int)
    [together] = spearman_estimates([x], y, none, (one, np.repeat(np.arange(4), 5)))
    [apart] = spearman_estimates([x], y, none, (one, np.arange(20)))
    assert together.value == apart.value
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    [again] = spearman_estimates([x], y, none, (one, np.arange(20)))
    assert again == apart  # a fixed seed
    [lone] = spearman_estimates([x], y, none, (np.arange(20), one))
    assert (lone.low, lone.high) == (-1.0, 1.0)


# ---- planted records ----


def planted(make_record: Make, seeds: int = 12, phases: int = 4) -> list[dict[str, Any]]:
    """Records of eight methods: three diagnostics at each phase's end.

    "a/cause" decides the next phase's accuracy; "a/method" is each method's own level, by which
    the accuracy rises too, and noise beside it; "a/noise" is noise. Accuracy rises by the phase.
    """
    draw = np.random.default_rng(5)
    records = []
    for place, method in enumerate(METHODS):
        for seed in range(100, 100 + seeds):
            cause = draw.normal(size=phases)
            reached = [0.1] + [0.3 + 0.02 * place + 0.03 * c for c in cause[:-1]]
            curve = [[0.1, 0.1 * p + value] for p, value in enumerate(reached)]
            steps = [10 * (2 * p + 1) for p in range(phases)]
            table = {
                "phase": list(range(phases)),
                "step": steps,
                "a/cause": cause.tolist(),
                "a/method": (place + 0.1 * draw.normal(size=phases)).tolist(),
                "a/noise": draw.normal(size=phases).tolist(),
                "a/flat": [0.0] * phases,
            }
            records.append(make_record(curve, method, seed, diagnostics=table))
    return records


def explained(records: list[dict[str, Any]]) -> tuple[Explanation, Mapping[str, Explained]]:
    groups = group_records(records, {INFO.name: INFO})
    setting = Setting("test", "fp32", "cpu")
    found = explain(INFO, setting, groups[setting][INFO.name])
    assert found is not None
    return found, {row.key: row for row in found.rows}


def test_what_decides_is_found_noise_is_not_and_methods_are_told_apart(make_record: Make) -> None:
    found, rows = explained(planted(make_record))
    assert (found.boundaries, found.seeds, set(found.methods)) == (3, 12, set(METHODS))
    assert all(row.n == 8 * 12 * 3 for row in rows.values())
    cause, method, noise = rows["a/cause"], rows["a/method"], rows["a/noise"]
    assert cause.overall.low > 0 and cause.same_boundary.low > 0
    assert cause.same_method.value == pytest.approx(1.0) and cause.same_method.low > 0.99
    for estimate in (noise.overall, noise.same_boundary, noise.same_method):
        assert estimate.low < 0 < estimate.high
    # Confounded by method: strong between methods, nothing within one.
    assert method.same_boundary.low > 0.3
    assert method.same_method.low < 0 < method.same_method.high
    assert rows["a/flat"].key == found.rows[-1].key and math.isnan(rows["a/flat"].overall.value)
    strengths = [abs(row.overall.value) for row in found.rows[:-1]]
    assert strengths == sorted(strengths, reverse=True)


def test_the_sign_is_that_of_the_link(make_record: Make) -> None:
    records = planted(make_record)
    for record in records:
        record["diagnostics"]["a/cause"] = [-v for v in record["diagnostics"]["a/cause"]]
    assert explained(records)[1]["a/cause"].same_method.high < -0.99


def test_it_is_the_next_phase_that_counts(make_record: Make) -> None:
    """Moved one phase on, the same numbers stand beside the accuracy that they follow."""
    records = planted(make_record)
    for record in records:
        values = record["diagnostics"]["a/cause"]
        record["diagnostics"]["a/cause"] = [values[-1], *values[:-1]]
    estimate = explained(records)[1]["a/cause"].same_method
    assert estimate.low < 0 < estimate.high


def test_missing_numbers_are_left_out_and_the_last_of_a_phase_stands(make_record: Make) -> None:
    records = planted(make_record, seeds=4)
    table = records[0]["diagnostics"]
    table["a/cause"][1] = None
    for key, values in table.items():
        extra = {"phase": 0, "step": 5}.get(key, 99.0)
        table[key] = [extra, *values]
    del records[1]["diagnostics"]["a/noise"]
    _, rows = explained(records)
    total = 8 * 4 * 3
    assert (rows["a/cause"].n, rows["a/noise"].n) == (total - 1, total - 3)
    assert rows["a/cause"].same_method.value == pytest.approx(1.0)


def test_the_mean_over_the_next_phase_leaves_out_its_start(make_record: Make) -> None:
    setting = Setting("test", "fp32", "cpu")
    records = []
    for seed, (middle, x) in enumerate(((0.2, 1.0), (0.4, 2.0), (0.6, 3.0), (0.9, 4.0))):
        table = {"phase": [0, 1], "step": [0, 1], "a/x": [x, 0.0]}
        curve = [[0.1, 0.5], [1 - middle, middle, 0.5]]
        records.append(make_record(curve, seed=100 + seed, diagnostics=table))
    entries = group_records(records, {INFO.name: INFO})[setting][INFO.name]
    by_mean = explain(INFO, setting, entries, "mean")
    by_end = explain(INFO, setting, entries, "end")
    assert by_mean is not None and by_end is not None
    assert by_mean.rows[0].overall.value == pytest.approx(1.0)
    assert math.isnan(by_end.rows[0].overall.value)


def test_notes_warn(make_record: Make) -> None:
    told = {"traits": {"needs_boundaries": True, "network": {}}}
    table = {"phase": [0, 1], "step": [0, 1], "a/x": [1.0, 0.0]}
    lone = [make_record([[0.1, 0.5], [0.4]], seed=s, diagnostics=table, **told) for s in (1, 2)]
    notes = " ".join(explained(lone)[0].notes)
    assert "One method" in notes and "Told of boundaries: none" in notes and "2 seed(s)" in notes


def test_one_phase_has_nothing_to_explain(make_record: Make) -> None:
    records = [make_record([[0.1, 0.5]], seed=seed) for seed in (100, 101)]
    setting = Setting("test", "fp32", "cpu")
    entries = group_records(records, {INFO.name: INFO})[setting][INFO.name]
    assert explain(INFO, setting, entries) is None


# ---- what is shown ----


def test_four_ways_to_show_it(make_record: Make, tmp_path: Path) -> None:
    found, rows = explained(planted(make_record, seeds=3))
    text = view.to_text([found], ["A note."])
    assert "same boundary" in text and "A note." in text and max(map(len, text.split("\n"))) <= 100
    [table] = json.loads(view.to_json([found]))["tasks"]
    assert [row["key"] for row in table["rows"]] == [row.key for row in found.rows]
    assert table["rows"][-1]["overall"] == {"value": None, "low": None, "high": None}
    lines = list(csv.DictReader(io.StringIO(view.to_csv([found]))))
    assert float(lines[0]["overall_low"]) == found.rows[0].overall.low
    assert lines[-1]["overall"] == "" and {line["diagnostic"] for line in lines} == set(rows)
    written = view.explanation_figure(found, tmp_path / "one")
    assert [path.stat().st_size > 5000 for path in written] == [True, True]
    again = view.explanation_figure(found, tmp_path / "two")
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]


def test_the_command_on_a_folder(call: Callable[..., Any], runs: Path, tmp_path: Path) -> None:
    answer = call("explain", runs, "--format", "csv", "--figures", tmp_path / "figures")
    assert answer.code == 0 and "plasticity/dormant_fraction" in answer.out
    [picture] = (tmp_path / "figures").glob("explain-*.png")
    assert f"Figures: {picture}" in answer.error
    assert "same method too" in call("explain", runs, "--target", "mean").out
    refused = call("explain", runs, "--task", "other")
    assert refused.code == 2 and "There are no runs on 'other'" in refused.error
    with pytest.raises(UsageError, match="There is no folder"):
        explain_folder(tmp_path / "missing")
