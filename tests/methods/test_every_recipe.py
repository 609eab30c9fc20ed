"""What every registered method keeps, by its recipe's `[inert]` and `[active]` hyperparameters."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.loop import LEFT_TO_THE_PROGRAM, NEEDS, Loop
from ht_bench.methods.recipe import Recipe, get_recipe, recipe_names
from ht_bench.methods.resolve import find_class, resolve
from ht_bench.testing import check_method
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.history import Interrupted, Observer

from .conftest import make_run
from .test_contract import NETS, assert_same_run, plain_run

RECIPES = recipe_names()


def recipe_of(name: str) -> Recipe:
    recipe = get_recipe(name)
    assert recipe is not None
    return recipe


INERT = [name for name in RECIPES if recipe_of(name).inert is not None]


def build(name: str, values: dict[str, Any]) -> Method:
    return find_class(name)(**values)


def test_every_method_has_a_recipe_and_every_recipe_a_method() -> None:
    assert sorted(registry.methods.built_in) == sorted(RECIPES)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", INERT)
def test_an_inert_method_trains_as_none_bit_for_bit(name: str, net: str) -> None:
    inert = recipe_of(name).inert
    assert inert is not None
    method = build(name, inert)
    assert_same_run(make_run(method, NETS[net]), plain_run(net))


@pytest.mark.parametrize("name", [name for name in INERT if recipe_of(name).active])
def test_an_active_one_does_not(name: str) -> None:
    active = make_run(build(name, recipe_of(name).active), NETS["mlp"])
    assert active.history.points != plain_run("mlp").history.points


@pytest.mark.parametrize("name", RECIPES)
def test_it_keeps_the_contract(name: str) -> None:
    check_method(build(name, recipe_of(name).active))


@pytest.mark.parametrize("name", RECIPES)
def test_a_stopped_run_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    active = recipe_of(name).active
    whole, resumed = make_run(build(name, active)), make_run(build(name, active), trained=False)
    plan = CheckpointPlan(tmp_path / "tiny.pt", "tiny")
    for before, step in itertools.pairwise((0, 3, 12, 13, 20)):
        stops = iter([False] * (step - before - 1) + [True])
        observer = Observer(stop=lambda stops=stops: next(stops))
        with pytest.raises(Interrupted):
            make_run(build(name, active), trained=False).train(plan, observer)
    resumed.train(plan)
    assert_same_run(resumed, whole)
    assert resumed.history.points == whole.history.points


@pytest.mark.parametrize("name", RECIPES)
def test_its_grids_are_within_the_budget_and_buildable(name: str) -> None:
    recipe = recipe_of(name)
    for task in ("warm-start-digits-v1", *recipe.grids):
        for values in recipe.configurations(task):
            resolve(name, task, values, agent="cartpole" in task)


@pytest.mark.parametrize("name", RECIPES)
def test_its_needs_are_known_and_refused_where_nothing_is_offered(name: str) -> None:
    cls = find_class(name)
    needed = cls.needed()
    assert needed <= NEEDS.keys()
    for need in needed - LEFT_TO_THE_PROGRAM:
        with pytest.raises(UsageError, match=f"does not offer \\('{need}'\\)"):
            Loop(offers=frozenset(NEEDS) - {need}).check(cls.name, frozenset({need}))
