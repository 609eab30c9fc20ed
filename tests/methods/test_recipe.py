"""Recipes: parsed, within the common budget, and saying what their searches found."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ht_bench import registry
from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.recipe import LARGEST_SEARCH, Recipe, get_recipe, recipe_names
from ht_bench.methods.resolve import find_class, resolve
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.task import Task

TASKS = list(task_files())
RELEASED = [get_task(name) for name in TASKS if get_task(name).status == "released"]
DIGITS = [t for t in RELEASED if isinstance(t, Task) and t.data.name == "digits"]
SEARCHED = [task.name for task in DIGITS if not task.tuned_as]
AGENTS = [t for t in RELEASED if isinstance(t, ReinforcementTask) and t.family == "swap"]
CONTROL = [task.name for task in AGENTS if not task.tuned_as]
RESULTS = {"mean", "standard_error"}


def recipe_of(method: str) -> Recipe:
    recipe = get_recipe(method)
    assert recipe is not None
    return recipe


def settings(trial: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trial.items() if key not in RESULTS}


def best_of(search: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the configurations with the best mean as it was written: several may round to it."""
    most = max(trial["mean"] for trial in search["tried"])
    return [settings(trial) for trial in search["tried"] if trial["mean"] == most]


def test_what_a_task_is_tuned_as_is_searched() -> None:
    for task in map(get_task, TASKS):
        if task.tuned_as:
            assert task.tuned_as in SEARCHED + CONTROL, task.name
            family = get_task(task.tuned_as).family
            of_another = ("probe", "warm-start-clean", "game-sequence")
            assert family == task.family or task.family in of_another


def test_the_search_that_served_is_named() -> None:
    recipe = recipe_of("l2-init")
    how, runs = recipe.searched(["noisy-few-digits-v1", "warm-start-digits-v1"])
    assert how.startswith("grid search on warm-start-digits-v1, at most ")
    own, own_runs = recipe.searched(["warm-start-digits-v1"])
    assert own.startswith("grid search per task, at most ") and own_runs == runs


def test_every_built_in_method_has_a_recipe() -> None:
    assert set(recipe_names()) == set(registry.methods.names())


@pytest.mark.parametrize("method", recipe_names())
def test_a_recipe_says_what_it_is(method: str) -> None:
    recipe = recipe_of(method)
    assert recipe.method == method
    assert recipe.summary.endswith(".") and recipe.source
    assert set(recipe.tasks) | set(recipe.grids) | set(recipe.search) <= set(TASKS)
    assert set(recipe.search) <= set(recipe.tasks)


@pytest.mark.parametrize("method", recipe_names())
def test_every_setting_builds_the_method(method: str) -> None:
    """The choice for each task it names, and every configuration a search of it would try."""
    recipe, cls = recipe_of(method), find_class(method)
    settled: dict[str, dict[str, Any]] = {}
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    for task in {"another task", *recipe.tasks, *recipe.grids}:
        spec = resolve(method, task)
        assert set(spec.hyperparameters) == fields
        assert dict(spec.hyperparameters).items() >= recipe.hyperparameters(task).items()
        configurations = recipe.configurations(task)
        assert 1 <= len(configurations) <= LARGEST_SEARCH
        assert len({str(tried) for tried in configurations}) == len(configurations)
        for tried in configurations:
            values = {**recipe.hyperparameters(task), **tried}
            settled[str(sorted(values.items()))] = values
    for values in settled.values():
        assert isinstance(resolve(cls, "", values).build(), cls)


@pytest.mark.parametrize("method", recipe_names())
def test_the_choice_is_the_best_of_a_search_of_the_grid(method: str) -> None:
    recipe = recipe_of(method)
    for task, search in recipe.search.items():
        assert recipe.tasks[task] in best_of(search), f"{method} on {task}"
        assert search["split"] == "validation"
        assert set(parse_seeds(search["seeds"])) <= set(range(100))
        assert search["task_sha256"] == get_task(task).sha256, f"{method} on {task}"
        assert all(trial["standard_error"] >= 0 for trial in search["tried"])
        tried = [settings(trial) for trial in search["tried"]]
        assert tried == recipe.configurations(task), f"{method} on {task}"


@pytest.mark.parametrize("task", SEARCHED)
def test_all_methods_were_searched_on_digits_on_the_same_seeds(task: str) -> None:
    searches = {method: recipe_of(method).search.get(task) for method in recipe_names()}
    missing = [method for method, search in searches.items() if search is None]
    assert not missing, f"{task} lacks searches of {', '.join(missing)}; run ht-bench tune."
    assert len({search["seeds"] for search in searches.values() if search}) == 1


@pytest.mark.parametrize("task", SEARCHED)
def test_the_first_share_of_a_stream_was_searched_like_the_whole(task: str) -> None:
    for recipe in map(recipe_of, recipe_names()):
        if recipe.search_space(task):
            search = recipe.search_first[task]
            assert (search["share"], search["seeds"]) == (0.1, recipe.search[task]["seeds"])
            assert list(map(settings, search["tried"])) == recipe.configurations(task)
            assert recipe.first[task] in best_of(search), f"{recipe.method} on {task}"


@pytest.mark.parametrize("task", CONTROL)
def test_what_agents_take_was_searched_on_them_on_the_same_seeds(task: str) -> None:
    """Or there is nothing to choose, or agents refuse the method."""
    recipes = [recipe_of(method) for method in recipe_names()]
    lacking = [recipe for recipe in recipes if task not in recipe.search]
    for recipe in lacking:
        if recipe.search_space(task):
            with pytest.raises(Unsuitable):
                make_plan(Request((get_task(task),), (recipe.method,), (0,), split="validation"))
    searches = [recipe.search[task] for recipe in recipes if task in recipe.search]
    assert len({search["seeds"] for search in searches}) == 1
    assert max(len(search["tried"]) for search in searches) <= 4


# ---- reading ----


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ht_bench.methods.recipe.folder", lambda name: tmp_path)
    return tmp_path


HEAD = 'method = "l2"\nsummary = "s"\nsource = "s"\n'


def test_a_task_without_a_search_takes_those_of_the_task_it_is_tuned_as(
    baselines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = '{ seeds = "0-1", tried = [1, 2, 3] }'
    text = HEAD + "[default]\na = 1\n[tasks.t-v1]\na = 3\n[first.t-v1]\na = 4\n[grid]\na = [1]\n"
    (baselines / "l2.toml").write_text(text + f"[search]\nt-v1 = {search}\n")
    like = dataclasses.replace(get_task("warm-start-digits-v1"), name="u-v1", tuned_as="t-v1")
    other = dataclasses.replace(like, name="w-v1", tuned_as="")
    found = {"u-v1": like, "w-v1": other}
    monkeypatch.setattr("ht_bench.methods.recipe.get_task", found.__getitem__)
    recipe = recipe_of("l2")
    assert recipe.hyperparameters("u-v1") == recipe.hyperparameters("t-v1") == {"a": 3}
    assert recipe.hyperparameters("w-v1") == {"a": 1}
    assert recipe.hyperparameters("u-v1", regime="first") == {"a": 4}
    assert recipe.searched(["u-v1"])[1] == recipe.searched(["t-v1"])[1] == 6
    assert recipe.searched(["w-v1"])[1] == 0


def test_configurations_of_earlier_grids_are_counted(baselines: Path) -> None:
    text = HEAD + "[earlier]\nt-v1 = 4\n[search]\nt-v1 = { seeds = '0-1', tried = [1, 2, 3] }\n"
    (baselines / "l2.toml").write_text(text + "[search.u-v1]\nseeds = '0-1'\ntried = [1]\n")
    how, runs = recipe_of("l2").searched()
    assert "at most 7 configuration(s), 4 of them of earlier grids, tuning seeds 0-1" in how
    assert runs == (3 + 4 + 1) * 2
    first = "[search_first.t-v1]\nseeds = '0-1'\nshare = 0.1\ntried = [1]\n"
    (baselines / "l2.toml").write_text(text + first)
    assert recipe_of("l2").searched(regime="first")[1] == 2


def test_a_task_s_values_go_before_the_default_s(baselines: Path) -> None:
    text = HEAD + "[default]\na = 1\nb = 2\n[tasks.t-v1]\nb = 3\n"
    (baselines / "l2.toml").write_text(text)
    recipe = recipe_of("l2")
    assert recipe.hyperparameters("t-v1") == {"a": 1, "b": 3}
    assert recipe.hyperparameters("") == recipe.hyperparameters("u-v1") == {"a": 1, "b": 2}
    assert recipe.configurations("t-v1") == [{}]


def test_a_grid_is_all_combinations_in_order(baselines: Path) -> None:
    text = HEAD + "[grid]\na = [1, 2]\nb = [3, 4]\n[grids.t-v1]\na = [9]\n"
    (baselines / "l2.toml").write_text(text)
    recipe = recipe_of("l2")
    assert recipe.configurations("t-v1") == [{"a": 9}]
    assert recipe.configurations("u-v1") == [
        {"a": a, "b": b} for a, b in [(1, 3), (1, 4), (2, 3), (2, 4)]
    ]


def test_a_grid_beyond_the_budget_is_refused(baselines: Path) -> None:
    (baselines / "l2.toml").write_text(HEAD + f"[grid]\na = {list(range(13))}\n")
    with pytest.raises(UsageError, match=r"l2.toml: the grid for t-v1 has 13 .* at most 12"):
        recipe_of("l2").configurations("t-v1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("method = [", "l2.toml is not valid TOML: .*; fix that line"),
        ('method = "l2"\n', "l2.toml: the key 'summary' is missing"),
        (HEAD + "[defaults]\n", "unknown key 'defaults'. Did you mean 'default'"),
        (HEAD + "grid = 3\n", "'grid' is 3; it must be of type dict"),
        (HEAD + "[tasks]\nt-v1 = 3\n", r"'tasks.t-v1' is 3; write \[tasks.t-v1\] above its keys"),
        (HEAD + "[search]\nt-v1 = [1]\n", r"'search.t-v1' is \[1\]; write \[search.t-v1\]"),
        (HEAD + "[grid]\na = [1, nan]\n", r"l2.toml: \[grid\]: 'a' lists nan, which is no finite"),
        (HEAD + "[grids.t-v1]\na = [[1, -inf]]\n", r"l2.toml: \[grids.t-v1\]: 'a' lists -inf, "),
        (HEAD + "[space]\na = [inf]\nb = { low = 1 }\n", r"l2.toml: \[space\]: 'a' lists inf, "),
    ],
)
def test_a_malformed_recipe_is_named(baselines: Path, text: str, sentence: str) -> None:
    (baselines / "l2.toml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        get_recipe("l2")


def test_no_recipe_is_none(baselines: Path) -> None:
    assert get_recipe("l2") is None
    assert recipe_names() == []


def test_a_recipe_without_a_file_lists_finite_numbers_too() -> None:
    recipe = Recipe("mine", "s", "s", grid={"a": [float("nan")]})
    with pytest.raises(UsageError, match=r"recipe of 'mine' \[grid\]: 'a' lists nan"):
        recipe.search_space("t-v1")


def test_a_search_names_the_file_that_it_stands_in(baselines: Path, tmp_path: Path) -> None:
    """The package's by its folder, a user's by its name alone, whatever the method is called."""
    text = HEAD + '[search]\nt-v1 = { seeds = "0-1", tried = [1, 2] }\n'
    own = tmp_path / "mine" / "l2-mine.toml"
    own.parent.mkdir()
    for path in (own, baselines / "l2.toml"):
        path.write_text(text, encoding="utf-8")
    assert recipe_of("l2").searched()[0].endswith("validation split (baselines/l2.toml)")
    assert recipe_of(str(own)).searched()[0].endswith("validation split (l2-mine.toml)")
    registry.register_recipe("l3")(lambda: own)
    assert recipe_of("l3").searched()[0].endswith("(l2-mine.toml)")
    made = Recipe("l4", "s", "s", search=recipe_of("l2").search)
    assert made.searched()[0].endswith("(the recipe of 'l4')")
    own.write_text('file = "x"\n' + text, encoding="utf-8")
    with pytest.raises(UsageError, match="unknown key 'file'"):
        get_recipe(str(own))
