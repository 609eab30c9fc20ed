"""Folders of copies are what the commands take for finished runs; the runner stays as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.growth import Cost, exponents, rows_of
from benchmarks.growth_folder import shape_of
from benchmarks.growth_runs import Sample, Soak, soak


def test_sizes_are_met() -> None:
    assert [shape_of(size).runs for size in (100, 1_000, 10_000)] == [100, 1_000, 10_000]


@pytest.mark.evidence
def test_every_step_reads_the_copies(tmp_path: Path) -> None:
    """The commands end well: nothing is trained, every submission is consistent."""
    assert growth.main(["--tiny", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "growth-cpu.json").read_text())
    assert {cost["runs"] for cost in result["growth"]} == {40, 80}
    assert {cost["step"] for cost in result["growth"]} == {step.name for step in growth.STEPS}


def test_exponents_are_of_neighbouring_sizes() -> None:
    seconds = {100: 1.0, 1_000: 10.0, 10_000: 1_000.0}
    costs = [Cost("compare", runs, each, each, 1.0, 1.0) for runs, each in seconds.items()]
    assert exponents(costs, "compare") == pytest.approx([1.0, 2.0])
    [row] = rows_of(costs)
    assert row.claim == "growth-compare" and row.own == pytest.approx(2.0)


def soaked(memory: list[float], files: list[int]) -> Soak:
    looks = zip(memory, files, strict=True)
    samples = [Sample(k, *look, 0.0, 0, 0.02 * k) for k, look in enumerate(looks)]
    return Soak(1, len(samples) + 1, 1.0, 0.1, tuple(samples))


def test_a_leak_is_seen_and_noise_is_not() -> None:
    flat = soaked([300.0 + k % 2 for k in range(100)], [5 + k % 3 for k in range(100)])
    assert abs(flat.growth("memory")) <= 1 and abs(flat.growth("files")) <= 1
    leak = soaked([300.0 + k for k in range(100)], list(range(100)))
    assert leak.growth("memory") > 50 and leak.growth("files") > 50
    assert leak.processor_per_run == pytest.approx(0.02)
    assert math.isnan(soaked([1.0], [1]).processor_per_run)


@pytest.mark.evidence
@pytest.mark.parametrize("jobs", [1, 2])
def test_memory_and_open_files_of_the_runner_are_flat(jobs: int, tmp_path: Path) -> None:
    seen = soak(300, jobs, tmp_path)
    assert len(list(tmp_path.rglob("result.json"))) == 300
    assert seen.growth("memory") < 8 and abs(seen.growth("files")) <= 2
    assert seen.growth("workers_memory") < 16 and abs(seen.growth("workers_files")) <= 2


@pytest.mark.evidence
def test_the_script_of_the_runner(tmp_path: Path) -> None:
    assert growth.main(["--runs", "5000", "--tiny", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "growth_runs-cpu.json").read_text())
    assert {row["claim"] for row in result["rows"]} >= {"runner-memory-1", "workers-files-2"}
    assert [each["runs"] for each in result["soaks"]] == [20, 20]
