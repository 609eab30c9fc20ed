"""Studies: the same configurations whenever a search goes on, as many as the budget allows."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.methods.space import Range, Space
from ht_bench.running import studies
from ht_bench.running.studies import TOGETHER, Study

GRID: Space = {"rate": (0.1, 1.0), "every": (10, "2 epochs"), "sizes": ([1, 2], [3])}
RANGES: Space = {"rate": Range(1e-4, 1.0, log=True), "every": Range(1, 50), "how": ("a", "b")}


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Any]:
    with studies.storage(tmp_path) as storage:
        yield storage


def value(asked: studies.Asked) -> float:
    return -abs(math.log10(asked.hyperparameters.get("rate", 1)) + 1)


def finish(study: Study) -> list[Any]:
    """Ask and tell until nothing new is asked; returns the configurations in order."""
    count = -1
    asked = study.ask()
    while len(asked) > count:
        count = len(asked)
        for each in asked:
            study.tell(each.number, value(each), {})
        asked = study.ask()
    return [each.hyperparameters for each in asked]


def test_a_grid_is_tried_whole_and_in_order(kept: Any) -> None:
    study = Study(kept, "m on t", {}, GRID, 12)
    assert study.sampler == "grid"
    expected = [
        {"rate": rate, "every": every, "sizes": sizes}
        for rate in (0.1, 1.0)
        for every in (10, "2 epochs")
        for sizes in ([1, 2], [3])
    ]
    assert [each.hyperparameters for each in study.ask()] == expected
    assert finish(study) == expected


def test_of_a_larger_grid_a_fixed_subset(kept: Any) -> None:
    subsets = [finish(Study(kept, title, {}, GRID, 3)) for title in "ab"]
    assert len(subsets[0]) == 3 and subsets[0] == subsets[1]
    assert Study(kept, "a", {}, GRID, 3).sampler == "random subset of a grid"


def test_nothing_to_search_is_one_configuration(kept: Any) -> None:
    assert finish(Study(kept, "none", {}, {}, 12)) == [{}]


def test_ranges_are_searched_in_rounds_within_the_budget(kept: Any) -> None:
    study = Study(kept, "m", {}, RANGES, 14)
    assert study.sampler == "TPE"
    assert len(study.ask()) == TOGETHER == len(study.ask())
    tried = finish(study)
    assert len(tried) == 14
    rates = [each["rate"] for each in tried]
    assert all(1e-4 <= rate <= 1 and float(f"{rate:.3g}") == rate for rate in rates)
    assert all(each["every"] in range(1, 51) and each["how"] in "ab" for each in tried)
    # What was learned from the first rounds shows: later draws come nearer to the best rate.
    distances = [abs(math.log10(rate) + 1) for rate in rates]
    assert np.median(distances[2 * TOGETHER :]) < np.median(distances[:TOGETHER])


def test_an_interrupted_search_tries_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with studies.storage(tmp_path / "a") as kept:
        whole = finish(Study(kept, "m", {}, RANGES, 10))
    (tmp_path / "b").mkdir()
    for told in (0, 2, TOGETHER, 1, TOGETHER, TOGETHER):  # a kill after so many were told
        with studies.storage(tmp_path / "b") as kept:
            study = Study(kept, "m", {}, RANGES, 10)
            asked = study.ask()
            for each in asked[: len(asked) - TOGETHER + told]:
                study.tell(each.number, value(each), {})
    with studies.storage(tmp_path / "b") as kept:
        assert finish(Study(kept, "m", {}, RANGES, 10)) == whole


def test_a_kill_between_two_asks_loses_none(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    for space, trials in ((GRID, 12), (RANGES, 6)):
        whole = finish(Study(kept, "whole", {}, space, trials))
        calls = []
        ask = optuna.Study.ask

        def dying(self: Any, *given: Any, ask: Any = ask, calls: Any = calls) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return ask(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(optuna.Study, "ask", dying)
            with pytest.raises(KeyboardInterrupt):
                Study(kept, "killed", {}, space, trials).ask()
        assert finish(Study(kept, "killed", {}, space, trials)) == whole


def test_what_decides_a_value_makes_another_study(kept: Any) -> None:
    Study(kept, "m", {"source": "1"}, GRID, 12).ask()
    for identity, space, trials in (
        ({"source": "2"}, GRID, 12),
        ({"source": "1"}, RANGES, 12),
        ({"source": "1"}, GRID, 11),
    ):
        study = Study(kept, "m", identity, space, trials)
        assert not study._study.get_trials()
    assert Study(kept, "m", {"source": "1"}, GRID, 12)._study.get_trials()


def test_a_value_is_told_once(kept: Any) -> None:
    study = Study(kept, "m", {}, {}, 1)
    [asked] = study.ask()
    study.tell(asked.number, 1.0, {"standard_error": 0.5})
    study.tell(asked.number, 2.0, {})
    [trial] = study._study.get_trials()
    assert trial.value == 1.0 and trial.user_attrs == {"standard_error": 0.5}


def test_without_optuna_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with (
        pytest.raises(UsageError, match=r"cannot be imported .*pip install 'ht-bench\[tune\]"),
        studies.storage(tmp_path),
    ):
        pass
