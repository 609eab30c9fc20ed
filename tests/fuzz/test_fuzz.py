"""Mutated files of every reader: a sentence or success; never a traceback, a crash or code run.

`make fuzz` reads 10,000 of each. One case: `python -m tests.fuzz.run READER --case N`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = 100
TEXTS = "task agents-task suite recipe lock result kept-task submission ranking verified"
DATA = "idx idx-gz npz pickle parquet images zip tar cache"
STATE = "checkpoint weights tensors search"


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", *words],
        cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("readers", [TEXTS, DATA, STATE], ids=["texts", "data", "state"])
def test_mutated_files_are_read_or_refused_in_a_sentence(readers: str) -> None:
    if readers != TEXTS:
        pytest.importorskip("pyarrow")
        pytest.importorskip("optuna")
    done = run(*readers.split(), "--cases", str(CASES), "--together")
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [facts["reader"] for facts in told] == readers.split()
    for facts in told:
        counts = facts["counts"]
        assert set(counts) <= {"read", "refused"}, facts
        # A checkpoint that cannot be read is told by a warning, a submission by its faults.
        assert counts.get("refused") or facts["reader"] in ("checkpoint", "submission"), facts


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("error", "raises KeyError"),
        ("crash", "ends with -"),
        ("hang", "hangs"),
        ("command", "runs code"),
        ("canary", "runs code"),
        ("memory", "raises MemoryError"),
        ("silence", "raises a sentence that does not name the file"),
        ("lines", "raises no sentence"),
    ],
)
def test_a_planted_fault_is_told_with_its_case(fault: str, outcome: str) -> None:
    own = {"HT_BENCH_PLANTED": fault, "HT_BENCH_FUZZ_SECONDS": "5"}
    done = run("planted", "--cases", "8", "--jobs", "1", **own)
    assert done.returncode == 1
    assert f"planted case 5: {outcome}" in done.stdout, done.stdout + done.stderr
    assert "1 failures in" in done.stdout


@pytest.mark.evidence
def test_ten_thousand_of_every_reader() -> None:
    done = run("--cases", "10000")
    assert done.returncode == 0, done.stdout[-6_000:]
