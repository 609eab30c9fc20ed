"""Where full-reset is not surely above none, no number stands for gap closed."""

import csv
import dataclasses
import io
import json
import math

from ht_bench.ranking.comparison import TaskInfo, compare
from ht_bench.views.text import to_csv, to_json, to_markdown, to_text

DIGITS = {"digits-v1": TaskInfo("digits-v1", "warm-start", 10, tuple(range(100, 106)))}
NOISE = (0.002, -0.001, 0.001, -0.002, 0.003, -0.003)


def test_without_a_sure_gap_no_cell_holds_a_number(make_record):
    """Full-reset as good as none: the ratio would be 100.00, or infinite."""
    runs = [
        make_record([[0.1, 0.6], [0.8, level + sign * noise]], method, seed)
        for method, level, sign in (("none", 0.9, 1), ("full-reset", 0.9, -1), ("ema", 0.95, 1))
        for seed, noise in zip(range(100, 106), NOISE, strict=True)
    ]
    comparison = compare(runs, DIGITS)
    for row in comparison.tables[0].rows:
        for gap in (row.gap_closed, row.mean_of_tasks):
            assert all(map(math.isnan, dataclasses.astuple(gap)))
        assert row.profile is None and row.rank is not None  # the metric ranks a task's table
        assert all(math.isnan(gap.value) for gap in row.by_task.values())
    shown = to_text(comparison, details=True)
    assert shown.count("no gap") >= 2 * len(comparison.tables[0].rows)
    assert "100.00" not in shown and "∞" not in shown and "nan" not in shown
    for row in json.loads(to_json(comparison))["tables"][0]["rows"]:
        assert row["gap_closed"] == {"value": None, "low": None, "high": None}
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert {line["gap_closed"] for line in lines} == {""}
    assert "no gap" in to_markdown(comparison)
