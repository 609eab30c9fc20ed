"""What a search writes into a recipe, beside what stands there by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ht_bench.errors import UsageError
from ht_bench.files import folder
from ht_bench.methods.recipe import Recipe, get_recipe
from ht_bench.running import recipe_file
from ht_bench.running.tune import Search, Trial
from ht_bench.streams.catalog import get_task
from ht_bench.streams.tables import read_table, read_toml


def test_a_search_is_recorded_below_what_was_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder("baselines"), tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(recipe_file, "folder", lambda name: tmp_path)
    before = get_recipe("ema")
    trials = (Trial({"decay": 0.9}, 0.5, 0.1), Trial({"decay": 0.98}, 0.6, 0.1))
    found = Search("ema", get_task("warm-start-digits-v1"), (0, 1), trials)
    path = recipe_file.write_recipe(found, {"torch": "2.13.0"})
    after = read_table(Recipe, read_toml(Path(path)), path)
    assert before is not None
    assert after.tasks == {**before.tasks, "warm-start-digits-v1": {"decay": 0.98}}
    assert after.search["warm-start-digits-v1"]["seeds"] == "0-1"
    by_hand = Search("ema", get_task("warm-start-mnist-v1"), (0, 1), trials)
    with pytest.raises(UsageError, match=r"\[tasks.warm-start-mnist-v1\] was written by hand"):
        recipe_file.write_recipe(by_hand, {"torch": "2.13.0"})
