"""What the checks find, by state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ht_bench.doctor.extras import BITS
from ht_bench.doctor.finding import Finding

Look = Callable[[Path], Iterable[Finding]]
Found = Callable[[Look], dict[str, list[Finding]]]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables that a check heeds is set, but the cache's."""
    for name in (
        *("HT_BENCH_DATA", "HT_BENCH_NO_LOCKS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG"),
        *BITS,
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Return found(look): state → what the check finds in the runs folder tmp_path/runs."""

    def find(look: Look) -> dict[str, list[Finding]]:
        by_state: dict[str, list[Finding]] = {}
        for finding in look(tmp_path / "runs"):
            assert finding.sentence.endswith((".", "?")) and "\n" not in finding.sentence
            by_state.setdefault(finding.state, []).append(finding)
        return by_state

    return find
