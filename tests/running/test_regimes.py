"""NAME@first: what a search on the first share of a stream chose, beside the whole stream's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ht_bench.errors import UsageError
from ht_bench.files import folder
from ht_bench.leaderboard import choosing, submit
from ht_bench.methods.resolve import resolve
from ht_bench.ranking.entries import read_groups
from tests.conftest import Call, Write

TUNED = 'method = "ema"\nsummary = "s"\nsource = "s"\n[grid]\ndecay = [0.5, 0.9]\n'


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of `ema` with both regimes on the tiny task, `none` without hyperparameters."""
    own = tmp_path / "recipes"
    own.mkdir()
    both = "[tasks.tiny-v1]\ndecay = 0.5\n[first.tiny-v1]\ndecay = 0.9\n"
    entry = 'seeds = "0-1"\ntried = [{ mean = 0.5 }]\n'
    searches = f"[search.tiny-v1]\n{entry}[search_first.tiny-v1]\nshare = 0.1\nruns = 7\n{entry}"
    (own / "ema.toml").write_text(TUNED + both + searches)
    shutil.copy(folder("baselines") / "none.toml", own)
    monkeypatch.setattr("ht_bench.methods.recipe.folder", lambda name: own)
    return own


def test_a_name_says_which_search_chose(tuned: Path) -> None:
    for name, decay in (("ema", 0.5), ("ema@whole", 0.5), ("ema@first", 0.9)):
        spec = resolve(name, "tiny-v1")
        assert spec.name == name.removesuffix("@whole")
        assert spec.hyperparameters["decay"] == decay
        assert spec.traits() == resolve("ema").traits()
    assert resolve("ema@first", "tiny-v1", {"decay": 0.7}).hyperparameters["decay"] == 0.7
    own = tuned / "ema.toml"
    assert resolve(f"{own}@first", "tiny-v1").hyperparameters["decay"] == 0.9


def test_a_method_with_nothing_to_tune_keeps_its_name(tuned: Path) -> None:
    assert resolve("none@first", "tiny-v1").name == "none"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ema@first", r"has no \[first.other-v1\]; `ht-bench tune --task other-v1"),
        ("none+ema@first", "has no recipe that a search on a first share could be in"),
        ("ema@frist", "Unknown method 'ema@frist'"),
    ],
)
def test_what_was_not_searched_is_refused(tuned: Path, name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        resolve(name, "other-v1")


def test_both_stand_side_by_side_and_are_submitted(
    tuned: Path, tmp_path: Path, write_task: Write, call: Call
) -> None:
    task, out = write_task(), tmp_path / "runs"
    words = ("run", "--task", task, "--out", out, "--jobs", 1)
    assert call(*words, "--method", "none,full-reset,ema").code == 0
    answer = call(*words, "--method", "none,ema", "--tuned", "first")
    assert answer.code == 0 and "4 finished already" in answer.error, answer.error
    rows = json.loads(call("compare", out, "--format", "json").out)["tables"][0]["rows"]
    assert {row["label"] for row in rows} == {"none", "full-reset", "ema", "ema@first"}
    choice = choosing.Choice("ema@first")
    _, entries = choosing.choose_runs(read_groups(out).groups, choice, out)
    assert entries["tiny-v1"].hyperparameters["decay"] == 0.9
    about = submit.About("e", ("a",), "l")
    assert submit._tuning("ema@first", about, ("tiny-v1",))["runs"] == 7
