"""docs/scaling.md is what the measurements, the tasks and the speeds give."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    path = ROOT / "docs" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling_page", path)
    assert spec is not None and spec.loader is not None
    before = list(sys.path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_the_page_is_up_to_date_and_every_cell_is_its_product(
    writer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "scaling.md"
    text = writer.PAGE.read_text(encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    monkeypatch.setattr(writer, "PAGE", page)
    assert writer.main(["--csv", str(tmp_path / "cells.csv")]) == 0
    assert page.read_text(encoding="utf-8") == text, "write it anew: `python docs/scaling.py`"
    with (tmp_path / "cells.csv").open(encoding="utf-8") as file:
        cells = {(row["task"], row["method"]): row for row in csv.DictReader(file)}
    none = cells["warm-start-cifar10-v2", "none"]
    # 41,756 steps of 7.5 ms and 42 tests of 10,000 images, a third of a training image each.
    seconds = (41_756 + 42 * 10_000 / 3 / 256) * 7.5e-3
    assert float(none["hours"]) * 3600 / 20 == pytest.approx(seconds)
    assert none["device"] == "GPU" and none["rule"] == "r"
    slower = cells["warm-start-cifar10-v2", "full-reset"]
    assert math.isclose(
        float(slower["hours"]), float(none["hours"]) * float(slower["relative_cost"])
    )
    assert cells["warm-start-digits-v1", "none"]["rule"] == "m"
    assert ("swap-cartpole-dqn-v1", "crelu") not in cells


def test_costs_are_those_of_the_newest_epoch_that_has_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import estimate

    folder = tmp_path / "leaderboard" / "submissions"
    (folder / "0.1").mkdir(parents=True)
    for place, tasks in (("0.1", {"old-v1": 1, "both-v1": 1}), ("", {"both-v1": 2})):
        seconds = {name: {"seeds": {"100": {"seconds": value}}} for name, value in tasks.items()}
        text = json.dumps({"tasks": seconds})
        (folder / place / "none.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(estimate, "ROOT", tmp_path)
    estimate.submissions.cache_clear()
    try:
        assert estimate.seconds_of("none", "old-v1") == 1
        assert estimate.seconds_of("none", "both-v1") == 2
        assert estimate.seconds_of("none", "new-v1") is None
    finally:
        estimate.submissions.cache_clear()
