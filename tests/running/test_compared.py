"""`ht_bench.compare` gives what the command prints, from a folder and from results."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ht_bench

Write = Callable[..., Path]
Call = Callable[..., Any]


def test_a_folder_s_rows_are_those_of_the_command(runs: Path, call: Call) -> None:
    compared = ht_bench.compare(runs)
    assert str(compared) == call("compare", runs).out
    assert compared._repr_markdown_() == call("compare", runs, "--format", "markdown").out
    assert compared.to_csv() == call("compare", runs, "--format", "csv").out
    assert compared.to_json() == call("compare", runs, "--format", "json").out
    lines = list(csv.DictReader(io.StringIO(compared.to_csv())))
    assert [row["label"] for row in compared] == [line["label"] for line in lines]
    assert list(compared[0]) == list(lines[0]) and len(compared) == len(lines) == 3
    documented = {"table", "split", "label", "rank", "n", "gap_closed", "metric_low", "wall_time"}
    assert documented <= set(compared[0])
    assert compared[:2] == [compared[0], compared[1]]
    assert compared.tables[0].name == "tiny-v1"


def test_results_compare_as_their_folder_does(write_task: Write, tmp_path: Path) -> None:
    path, out = write_task(), tmp_path / "runs"
    results = [
        ht_bench.evaluate(method, path, (0, 1), out=out, progress=False)
        for method in ("none", "full-reset")
    ]
    compared = ht_bench.compare(results)
    assert list(compared) == list(ht_bench.compare(out)) == list(ht_bench.compare(str(out)))
    assert {row["label"] for row in ht_bench.compare(results[0])} == {"none"}
    with pytest.raises(ht_bench.UsageError, match="'l2' is no result of `ht_bench.evaluate`"):
        ht_bench.compare([results[0], "l2"])  # type: ignore[list-item]
    with pytest.raises(ht_bench.UsageError, match="There is no folder"):
        ht_bench.compare(tmp_path / "absent")


def test_a_suite_in_a_file_of_one_s_own(runs: Path, write_task: Write, tmp_path: Path) -> None:
    """Its task stands beside it, and the command takes the same file."""
    write_task()
    suite = tmp_path / "my-suite.toml"
    suite.write_text('name = "mine"\ntitle = "t"\ntasks = ["tiny.toml"]\n', encoding="utf-8")
    compared = ht_bench.compare(runs, suite=suite)
    assert [table.name for table in compared.tables] == ["mine", "tiny-v1"]
