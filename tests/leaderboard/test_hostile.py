"""Mutated submissions: none that breaks a rule is called valid, none gives a traceback.

Reruns are replayed from the honest records; `test_reruns.py` trains. `pytest --evidence` mutates
10,000 files.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st

LEVELS = ("not valid", "valid", "consistent", "reproduced")
HIGHEST = {"broken": 0, "inconsistent": 1, "forged": 2, "any": 3, "fine": 3}


def check(report: Any, verdict: str) -> None:
    """The report agrees with what is known of the file, and can be printed."""
    assert LEVELS.index(report.level) <= HIGHEST[verdict], (verdict, report)
    assert HIGHEST[verdict] == 3 or report.exit_code == 1, report
    assert verdict != "fine" or report.level != "not valid", report
    assert report.exit_code in (0, 1, 2)
    assert (report.exit_code == 0) is (report.level == "reproduced")
    for sentence in [*map(str, report.faults), *report.could_not, *report.notes]:
        assert sentence.isascii() and sentence.isprintable() and len(sentence) < 700
    assert len(report.faults) <= 20
    json.dumps(report.as_json(), allow_nan=False)


@pytest.mark.parametrize("files", [150, pytest.param(10_000, marks=pytest.mark.evidence)])
def test_mutated_files(
    files: int, mutations: ModuleType, honest_bytes: bytes, verify_file: Any, tmp_path: Path
) -> None:
    from ht_bench.commands.verify import verify

    path = tmp_path / "early-stop.json"
    met: dict[str, int] = {}

    @settings(
        max_examples=files, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def run(data: Any) -> None:
        content, name, verdict = mutations.mutate(honest_bytes, data.draw)
        path.write_bytes(content)
        report = verify_file(path, "reproduced")
        check(report, verdict)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = verify((path,), level="valid", as_json=len(content) % 2 == 0)
        assert code == (report.level == "not valid") and said.getvalue().isascii()
        met[verdict] = met.get(verdict, 0) + 1
        met[name] = met.get(name, 0) + 1

    configuration.set_hypothesis_home_dir(tmp_path)
    run()
    names = {mutation.__name__ for mutation in mutations.MUTATIONS}
    assert set(met) == {*names, *HIGHEST, "several"}
    assert met["broken"] > 0.4 * files and met["several"] > 0.05 * files
