"""Tasks of environments through the front doors: command line, `evaluate`, anchors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.methods.recipe import recipe_names
from ht_bench.ranking.admission import admission, least_gap
from ht_bench.running.evaluate import run_plan
from ht_bench.running.freeze import freeze
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.catalog import get_task
from ht_bench.testing import check_task

Call = Callable[..., Any]
SPEC = """\
name = "tiny-swap-v1"
family = "swap"
seeds = "100-101"
environment = { id = "CartPole-v1" }
reference = { random = 22.1 }
evaluation = { episodes = 2, points = 2 }

[agent]
algorithm = "dqn"
settings = { learning_starts = 20, buffer_size = 300, batch_size = 16, learning_rate = 0.01 }
network = { net_arch = [16] }

[[phases]]
repeat = 2
steps = 160
observations = "permuted"
actions = "permuted"
"""


METHODS = ("none", "full-reset", "shrink-perturb", "head-reset")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-swap.toml"
    path.write_text(SPEC, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of four methods; read only."""
    folder = tmp_path_factory.mktemp("control")
    (folder / "tiny-swap.toml").write_text(SPEC, encoding="utf-8")
    request = Request((get_task(folder / "tiny-swap.toml"),), METHODS, out=folder / "runs")
    assert not run_plan(make_plan(request), 1, progress=False).failures
    return folder / "runs"


@pytest.fixture
def control(trained: Path, tmp_path: Path) -> Path:
    """A copy of these runs."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def test_run_and_compare_show_returns(
    control: Path, spec: Path, tmp_path: Path, call: Call
) -> None:
    methods = ",".join(METHODS)
    again = call("run", "--task", spec, "--method", methods, "--jobs", 1, "--out", control)
    assert "8 finished already, 0 stack(s)" in again.error and "8 results under" in again.out
    figures = tmp_path / "figures"
    answer = call("compare", control, "--figures", figures)
    assert answer.code == 0
    assert "evaluation return, mean over the last phase's curve" in answer.out
    [row] = re.findall(r"none +2 .*?(\d+\.\d) \[(-?\d+\.\d)", answer.out)
    assert float(row[0]) > 5
    assert (figures / "curves-tiny-swap-v1.png").is_file()
    found = json.loads(call("compare", control, "--format", "json").out)
    rows = {row["label"]: row for row in found["tables"][0]["rows"]}
    assert set(rows) == set(METHODS)
    assert rows["none"]["retention"] is not None


def test_tensorboard_has_the_returns(control: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [folder] = control.glob("tiny-swap-v1/none-*/seed100")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    assert {"eval/return", "rollout/return", "plasticity/dormant_fraction", "phase"} <= set(tags)
    assert [event.step for event in events.Scalars("eval/return")] == [0, 80, 160, 160, 240, 320]


def test_all_leaves_out_what_an_agent_cannot_train(control: Path, spec: Path, call: Call) -> None:
    words = ("run", "--task", spec, "--seeds", "100", "--jobs", 1, "--out", control)
    answer = call(*words, "--method", "all")
    left_out = set(re.findall(r"Left out on tiny-swap-v1: '([\w-]+)'", answer.error))
    assert left_out >= {"crelu", "early-stop", "layer-norm", "self-distillation", "sam", "dash"}
    assert not left_out & {"none", "hare-tortoise", "redo", "l2", "lookahead"}
    runs = len(set(recipe_names()) - left_out)
    assert answer.code == 0 and f"{runs} runs, 4 finished already" in answer.error
    assert f"{runs} results" in answer.out
    named = call(*words, "--method", "early-stop")
    assert named.code == 2
    assert named.error.count("\n") == 1 and "needs the supervised loop" in named.error


def test_evaluate_returns_a_result_with_returns(spec: Path) -> None:
    warm = ht_bench.evaluate("none", spec, seeds=(100, 101), progress=False)
    tortoise = ht_bench.evaluate(
        "hare-tortoise", spec, seeds=(100, 101), progress=False, decay=0.9, reset_every=20
    )
    assert warm.final.shape == (2,) and (warm.final > 5).all()
    assert warm.curves["eval/return"].shape == (2, 6)
    assert set(tortoise.curves) > {"hare/return", "tortoise/return"}


def test_a_task_of_environments_can_be_checked(spec: Path) -> None:
    check_task(spec)
    spec.write_text(SPEC.replace("CartPole-v1", "CartPoll-v1"), encoding="utf-8")
    with pytest.raises(UsageError, match="CartPoll-v1"):
        check_task(spec)


def test_admission_asks_for_a_fifth_of_what_starting_over_gains() -> None:
    fresh = [100.0] * 20
    assert least_gap(fresh, None) == 0.03
    assert least_gap(fresh, 20.0) == pytest.approx(16.0)
    near, far = [85.0] * 19 + [85.1], [80.0] * 19 + [80.1]
    assert not admission(near, fresh, least_gap(fresh, 20.0)).passes
    assert admission(far, fresh, least_gap(fresh, 20.0)).passes


def test_admission_asks_for_four_standard_errors() -> None:
    """A gap of 30 over 20 seeds that scatter by 40 is 3.3 of them: sure, but too rough to score."""
    fresh, spread = [100.0] * 20, [30.0, 110.0] * 10
    verdict = admission(spread, fresh, 16.0)
    assert verdict.gap.low > 0 and verdict.gap.value > 16
    assert 3 < verdict.standard_errors < 4 and not verdict.passes


def test_anchors_are_frozen_only_from_a_task_with_a_gap(
    control: Path, spec: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="does not pass admission"):
        freeze(control, "suite-tiny-v1", "Tiny", [str(spec)], tmp_path)
    assert not (tmp_path / "suite-tiny-v1.toml").exists()


def test_a_search_tries_an_agents_grid(
    spec: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = tmp_path / "baselines"
    recipes.mkdir()
    (recipes / "ema.toml").write_text(
        'method = "ema"\nsummary = "s"\nsource = "s"\n[default]\ndecay = 0.9\n'
        "[agents]\ndecay = 0.8\n[grid]\ndecay = [0.5, 0.7]\n",
        encoding="utf-8",
    )
    monkeypatch.setattr("ht_bench.methods.recipe.folder", lambda name: recipes)
    words = ("tune", "--task", spec, "--method", "ema", "--seeds", "0", "--jobs", 1, "--write")
    answer = call(*words, "--out", tmp_path / "tuning")
    assert answer.code == 0, answer.error
    assert re.search(r"decay = 0\.5", answer.out) and re.search(r"decay = 0\.7", answer.out)
    assert "[tasks.tiny-swap-v1]" in (recipes / "ema.toml").read_text(encoding="utf-8")
