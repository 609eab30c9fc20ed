"""Searches: equal budgets, going on, failing alone; what they write into a recipe."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.files import folder
from ht_bench.methods.recipe import Recipe, get_recipe, runs_of
from ht_bench.methods.resolve import find_class, resolve
from ht_bench.methods.space import Range
from ht_bench.records.metrics import final_metric
from ht_bench.records.record import read_record
from ht_bench.running import tune
from ht_bench.running.plan import Request
from ht_bench.running.recipe_file import MARKER, write_recipe
from ht_bench.running.tune import Budget, Found, Search, Trial, narrowed, search
from ht_bench.streams.catalog import get_task
from ht_bench.streams.task import Task, parse_task
from tests.conftest import TINY

TRIALS = (Trial({"decay": 0.9}, 0.5, 0.1), Trial({"decay": 0.98}, 0.6, 0.1))
VERSIONS = {"optuna": "5.0.0", "torch": "2.13.0"}
DIGITS = "warm-start-digits-v1"
FAILING = """\
import dataclasses
import ht_bench
@dataclasses.dataclass(eq=False)
class Failing(ht_bench.Method):
    name = "failing"
    every: int = 1
    def after_step(self):
        1 / (self.every - 2)
"""


def request(out: Path | None, **changes: Any) -> Request:
    task = parse_task(tomllib.loads(TINY), "tiny")
    base = Request(tasks=(task,), methods=(), seeds=(0, 1), out=out, tensorboard=False)
    return replace(base, **changes)


def find(methods: tuple[str, ...], out: Path, **budget: Any) -> Found:
    return search(methods, request(out), budget=Budget(**budget))


# ---- searching ----


def test_trials_are_scored_on_the_validation_split(tmp_path: Path) -> None:
    [found] = find(("l2",), tmp_path, space={"strength": (0.0, 0.3)}).searches
    assert [dict(trial.hyperparameters) for trial in found.trials] == [
        {"strength": 0.0},
        {"strength": 0.3},
    ]
    for trial in found.trials:
        records = [
            record
            for path in tmp_path.glob("tiny-v1/l2-*/seed*/result.json")
            if (record := read_record(path))["hyperparameters"] == trial.hyperparameters
        ]
        assert {record["split"] for record in records} == {"validation"}
        finals = [final_metric(record, "warm-start", 10) for record in records]
        assert len(finals) == 2 and trial.mean == pytest.approx(sum(finals) / 2)
        assert trial.standard_error == pytest.approx(abs(finals[0] - finals[1]) / 2)
    assert (found.runs, found.sampler, found.regime) == (4, "grid", "whole")


def test_a_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained twice, but where more seeds make a wider stack, of other rounding."""
    plans = []
    run_plan = tune.run_plan

    def watched(plan: Any, *given: Any) -> Any:
        plans.append(plan)
        return run_plan(plan, *given)

    monkeypatch.setattr(tune, "run_plan", watched)
    space = {"strength": Range(1e-4, 1e-1, log=True)}
    first = find(("l2",), tmp_path, space=space, trials=6)
    assert [len(plan.jobs) for plan in plans] == [4, 2]
    again = find(("l2",), tmp_path, space=space, trials=6)
    assert again.searches == first.searches and not any(plan.jobs for plan in plans[2:])
    shutil.rmtree(next(tmp_path.glob("tiny-v1/l2-*")))  # the runs are the truth
    assert find(("l2",), tmp_path, space=space, trials=6).searches == first.searches
    assert sum(len(plan.jobs) for plan in plans) == 7
    plans.clear()
    more = search(("l2",), request(tmp_path, seeds=(0, 1, 2)), budget=Budget(6, space=space))
    assert len(more.searches[0].trials) == 6
    retrained = [seed for plan in plans for job in plan.jobs for seed in job.seeds]
    assert set(retrained[:4]) == {0, 1, 2}


def test_a_search_trains_no_slot_to_throw_away() -> None:
    task = get_task("warm-start-digits-v1")
    assert isinstance(task, Task)
    assert narrowed(task, 5).stack == 5 and narrowed(task, 5).sha256 != task.sha256
    assert narrowed(task, 20) == task and narrowed(task, 10) == task
    agents = get_task("swap-cartpole-ppo-v1")
    assert narrowed(agents, 2) == agents


def test_a_failing_method_leaves_the_others_searches(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    named = f"{tmp_path / 'failing.py'}:Failing"
    found = find((named, "none", "no-such"), tmp_path / "out", space={})
    assert [each.method for each in found.searches] == [named, "none"]
    assert any("Unknown method 'no-such'" in sentence for sentence in found.failures)
    space = {"every": (1, 2, 3)}
    alone = find((named,), tmp_path / "out", space=space)
    assert not alone.searches and "ZeroDivisionError" in alone.failures[0]
    (tmp_path / "failing.py").write_text(FAILING.replace("1 / (self.every - 2)", "pass"))
    [cured] = find((named,), tmp_path / "out", space=space).searches
    assert len(cured.trials) == 3


def test_every_method_has_the_same_budget(tmp_path: Path) -> None:
    methods = ("none", "l2", "hare-tortoise")
    found = find(methods, tmp_path, trials=3)
    assert [len(each.trials) for each in found.searches] == [1, 3, 3]
    assert found.searches[2].sampler == "random subset of a grid"
    agents = get_task("swap-cartpole-dqn-v1")
    assert Budget().of(agents) == 4 and Budget().of(get_task(DIGITS)) == 12 == Budget(12).of(agents)


def test_an_earlier_choice_is_no_part_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe("l2", "s", "s", tasks={"tiny-v1": {"strength": 0.5}}, grid={"exclude": ["a"]})
    monkeypatch.setattr(tune, "get_recipe", lambda name: recipe)
    monkeypatch.setattr("ht_bench.methods.resolve.get_recipe", lambda name: recipe)
    monkeypatch.setattr(Recipe, "search_space", lambda self, task: {})
    find(("l2",), tmp_path)
    [path] = tmp_path.glob("tiny-v1/l2-*/seed0/result.json")
    assert read_record(path)["hyperparameters"]["strength"] != 0.5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": (100,)}, "tuning uses seeds 0 to 99 only"),
        ({"seeds": None}, "tuning uses seeds 0 to 99 only"),
        ({"out": None}, "A search needs a folder"),
    ],
)
def test_what_cannot_be_searched(tmp_path: Path, changes: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        search(("l2",), request(**{"out": tmp_path, **changes}))


def test_a_method_without_a_recipe_needs_a_space(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    with pytest.raises(UsageError, match=r"has no recipe with a \[grid\] or \[space\] .* --space"):
        find((f"{tmp_path / 'failing.py'}:Failing",), tmp_path)


# ---- recording ----


def read_recipe(path: Path) -> Recipe:
    recipe = get_recipe(str(path))
    assert recipe is not None
    return recipe


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's baselines/, to be written to."""
    copy = Path(shutil.copytree(folder("baselines"), tmp_path / "baselines"))
    monkeypatch.setattr("ht_bench.methods.recipe.folder", lambda name: copy)
    return copy


def test_a_search_is_recorded_below_what_was_written_by_hand(
    baselines: Path, tmp_path: Path
) -> None:
    before = get_recipe("ema")
    text = (baselines / "ema.toml").read_text()
    found = Search("ema", get_task(DIGITS), (0, 1), TRIALS, runs=4)
    path = write_recipe(found, VERSIONS, tmp_path)
    assert Path(path) == baselines / "ema.toml"
    after = get_recipe("ema")
    assert before is not None and after is not None
    assert after == replace(
        before,
        tasks={**before.tasks, DIGITS: {"decay": 0.98}},
        search={**before.search, DIGITS: after.search[DIGITS]},
    )
    entry = after.search[DIGITS]
    assert {**entry, "tried": len(entry["tried"])} == {
        "task_sha256": get_task(DIGITS).sha256,
        "seeds": "0-1",
        "split": "validation",
        "regime": "whole",
        "sampler": "grid",
        "runs": 4,
        **VERSIONS,
        "tried": 2,
    }
    assert Path(path).read_text().startswith(text.partition(MARKER)[0])
    by_hand = Search("ema", get_task("warm-start-mnist-v1"), (0, 1), TRIALS)
    with pytest.raises(UsageError, match=r"\[tasks.warm-start-mnist-v1\] was written by hand"):
        write_recipe(by_hand, VERSIONS, tmp_path)


def test_the_two_regimes_stand_beside_each_other(baselines: Path, tmp_path: Path) -> None:
    whole = Search("ema", get_task(DIGITS), (0, 1), TRIALS)
    better = (TRIALS[0], replace(TRIALS[1], mean=0.1))
    first = replace(whole, trials=better, regime="first", share=0.1, runs=4)
    for found in (first, whole):
        write_recipe(found, VERSIONS, tmp_path)
    recipe = get_recipe("ema")
    assert recipe is not None
    assert recipe.hyperparameters(DIGITS)["decay"] == 0.98
    assert recipe.hyperparameters(DIGITS, regime="first")["decay"] == 0.9
    assert recipe.search_first[DIGITS]["share"] == 0.1
    how, runs = recipe.searched([DIGITS], "first")
    assert "validation split of the first 10% of the stream" in how and runs == 4
    with pytest.raises(UsageError, match=r"no \[first.continual-cifar10-v2\]; `ht-bench tune"):
        recipe.hyperparameters("continual-cifar10-v2", regime="first")


def test_a_method_without_hyperparameters_has_both_regimes() -> None:
    recipe = get_recipe("none")
    assert recipe is not None and recipe.hyperparameters(DIGITS, regime="first") == {}


def test_an_installed_package_is_left_alone(
    baselines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Path(shutil.copytree(baselines, tmp_path / "site" / "_data" / "baselines"))
    monkeypatch.setattr("ht_bench.methods.recipe.folder", lambda name: inside)
    before = (inside / "ema.toml").read_bytes()
    for name in (DIGITS, "continual-digits-v1"):
        found = Search("ema", get_task(name), (0, 1), TRIALS)
        path = Path(write_recipe(found, VERSIONS, tmp_path / "out"))
        assert path == tmp_path / "out" / "recipes" / "ema.toml"
    assert (inside / "ema.toml").read_bytes() == before
    written = read_recipe(path)
    assert written.tasks[DIGITS] == written.tasks["continual-digits-v1"] == {"decay": 0.98}


def test_a_recipe_of_ones_own_is_written_itself(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('# kept\nmethod = "ema"\nsummary = "s"\nsource = "s"\n[grid]\ndecay = [0.9]\n')
    task = replace(get_task(DIGITS), name="odd.name-v1")
    found = Search(str(own), task, (0, 1), TRIALS)
    assert write_recipe(found, VERSIONS, tmp_path / "out") == str(own)
    assert own.read_text().startswith("# kept\n")
    assert read_recipe(own).tasks == {"odd.name-v1": {"decay": 0.98}}


def test_a_class_without_a_recipe_gets_one(tmp_path: Path) -> None:
    """It can be named by its file from then on, wherever the program runs."""
    (tmp_path / "failing.py").write_text(FAILING)
    trials = (Trial({"every": 3}, 0.5, 0.1),)
    found = Search(f"{tmp_path / 'failing.py'}:Failing", get_task(DIGITS), (0, 1), trials)
    path = Path(write_recipe(found, VERSIONS, tmp_path))
    assert path == tmp_path / "recipes" / "failing.toml"
    assert resolve(str(path), DIGITS).hyperparameters == {"every": 3}


def test_searches_recorded_before_optuna_are_read() -> None:
    old = {"seeds": "0-4", "tried": [{"mean": 0.5}, {"mean": 0.6}]}
    assert runs_of(old) == 10 and runs_of({**old, "runs": 8}) == 8
    recipe = Recipe("m", "s.", "s", search={"t": old})
    assert recipe.searched()[0].startswith("grid search per task, at most 2 configuration(s)")


def test_a_combination_searches_the_grids_of_its_parts(tmp_path: Path) -> None:
    """In a recipe of its own that serves by its file, to go on and to run."""
    [found] = find(("l2+ema",), tmp_path, trials=2).searches
    keys = {"l2__strength", "ema__decay"}
    assert all(set(trial.hyperparameters) == keys for trial in found.trials)
    assert len(found.trials) == 2 and found.sampler == "random subset of a grid"
    path = write_recipe(found, VERSIONS, tmp_path)
    spec = resolve(f"{path}", "tiny-v1")
    assert spec.name == "l2+ema" and isinstance(spec.build().parts[1], find_class("ema"))
    assert spec.hyperparameters.items() >= found.best.hyperparameters.items()
    [again] = find((path,), tmp_path, trials=2).searches
    assert again.trials == found.trials


def test_a_copy_of_a_package_s_recipe_takes_the_search_in_place_of_its_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands there by hand for the task gives way; other tables stay."""
    shipped = tmp_path / "site-packages" / "ema.toml"
    shipped.parent.mkdir()
    head = 'method = "ema"\nsummary = "s"\nsource = "s"\n[tasks.other-v1]\ndecay = 0.1\n'
    shipped.write_text(head + "[tasks.tiny-v1]\ndecay = 0.3  # by hand\n\n[grid]\ndecay = [0.5]\n")
    monkeypatch.setattr(
        "ht_bench.running.recipe_file.recipe_file", lambda name, out: (shipped, out / "own.toml")
    )
    task = request(None).tasks[0]
    write_recipe(Search("ema", task, (0, 1), TRIALS), VERSIONS, tmp_path)
    written = read_recipe(tmp_path / "own.toml")
    assert written.tasks == {"other-v1": {"decay": 0.1}, "tiny-v1": {"decay": 0.98}}
    assert written.grid == {"decay": [0.5]} and "by hand" in shipped.read_text()
