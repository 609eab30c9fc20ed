"""What all benchmarks share: turns, intervals, results that stay, the table of claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import report
from benchmarks.claims import CLAIMS, Claim
from benchmarks.common import Interval, Options, Row, finish, in_turns, median_of, read_options


def test_the_first_of_a_turn_alternates() -> None:
    called: list[str] = []

    def stretch(name: str, seconds: float) -> Any:
        return lambda: called.append(name) or seconds

    found = in_turns([stretch("own", 1.0), stretch("peer", 2.0)], 3, lambda: called.append("-"))
    assert "".join(name[0] for name in called) == "-o-p-p-o-o-p".replace("own", "o")
    assert found.tolist() == [[1.0, 2.0]] * 3


def test_an_interval_holds_the_median_and_narrows_with_turns() -> None:
    draw = np.random.default_rng(1)
    few, many = (median_of(draw.normal(2, 0.1, n)) for n in (5, 500))
    assert few.low <= few.median <= few.high
    assert many.low < 2 < many.high and many.high - many.low < few.high - few.low


ROW = Row("ema-loop-26k", 2.0, "µs", 30.0, "a loop", Interval(15.0, 14.0, 16.0), 0.5)


def test_a_result_is_kept_row_by_row_and_earlier_rows_stay(tmp_path: Path) -> None:
    options, path = Options(out=tmp_path), tmp_path / "ema-cpu.json"

    def ended() -> Any:
        yield ROW
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish("ema", options, ended())
    finish("ema", options, [Row("other", 1.0, "ms")])
    result = json.loads(path.read_text())
    assert [row["claim"] for row in result["rows"]] == ["ema-loop-26k", "other"]
    assert result["command"] == "python -m benchmarks.ema --device cpu"
    assert str(tmp_path) not in path.read_text()
    text = path.read_text().replace(result["machine"]["processor"], "another")
    path.write_text(text)
    finish("ema", options, [Row("third", 1.0, "ms")])
    assert [row["claim"] for row in json.loads(path.read_text())["rows"]] == ["third"]


def test_a_device_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit) as ended:
        read_options("Words.", ["--device", "cuda"])
    assert ended.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_a_tiny_run_overwrites_nothing() -> None:
    assert read_options("Words.", ["--tiny"]).out is None


@pytest.mark.parametrize(
    ("claim", "ratio", "own", "met"),
    [
        (Claim("a", "a", "ema", "cpu", at_least=10), (10.5, 9, 12), 1, True),
        (Claim("a", "a", "ema", "cpu", at_least=10), (9.9, 9, 12), 1, False),
        (Claim("a", "a", "ema", "cpu", at_most=1.02), (1.01, 1, 1.5), 1, True),
        (Claim("a", "a", "ema", "cpu", "high", at_most=1.03), (1.01, 1, 1.04), 1, False),
        (Claim("a", "a", "ema", "cuda", "own", at_most=3.75), None, 3.7, True),
        (Claim("a", "a", "ema", "cuda", "own", at_most=3.75), None, 3.8, False),
        (Claim("a", "a", "ema", "cpu"), (1, 1, 1), 1, None),
    ],
)
def test_a_goal_is_met_by_what_it_reads(
    claim: Claim, ratio: tuple[float, ...] | None, own: float, met: bool | None
) -> None:
    interval = ratio and dict(zip(("median", "low", "high"), ratio, strict=True))
    assert claim.met({"own": own, "ratio": interval}) is met


def test_the_table_has_every_claim_and_says_what_was_not_measured(tmp_path: Path) -> None:
    finish("ema", Options(out=tmp_path), [ROW])
    table = report.claims_table(report.read_results(tmp_path))
    assert len(table.splitlines()) == 2 + len(CLAIMS)
    line = next(line for line in table.splitlines() if "a loop 30" in line)
    assert "| ≥ 10 × | 2 µs; a loop 30; ratio **15** [14, 16]; 50% of the peak | yes |" in line
    needs = [line for line in table.splitlines() if "not measured: needs a CUDA device" in line]
    assert len(needs) == sum(claim.device == "cuda" for claim in CLAIMS.values())


def test_the_page_is_made_from_the_committed_results() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.updated(page, report.read_results()) == page, (
        "python -m benchmarks.report --write"
    )
