"""docs/methods.md is what the code and the recipes say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from ht_bench.methods.recipe import recipe_names
from ht_bench.methods.resolve import resolve

ROOT = Path(__file__).parent.parent
AGAIN = "write it anew: `python docs/methods.py`"


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("methods_page", ROOT / "docs" / "methods.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text(writer: ModuleType) -> str:
    return str(writer.PAGE.read_text(encoding="utf-8"))


def test_the_page_is_up_to_date(writer: ModuleType, text: str) -> None:
    """All but where methods work, which takes longest to ask."""
    answers = writer.read_answers(text)
    assert list(answers) == recipe_names(), AGAIN
    assert writer.page(answers) == text, AGAIN


@pytest.mark.parametrize("place", ["MLP", "CNN", "PPO"])
def test_methods_work_where_the_page_says(writer: ModuleType, text: str, place: str) -> None:
    answers = writer.read_answers(text)
    asked = {name: writer.works(name, place) for name in recipe_names()}
    assert asked == {name: answers[name][place] for name in answers}, AGAIN


@pytest.mark.evidence
def test_methods_work_everywhere_that_the_page_says(writer: ModuleType, text: str) -> None:
    assert writer.page(dict(writer.ask(recipe_names()))) == text, AGAIN


def test_a_changed_answer_is_seen(writer: ModuleType, text: str) -> None:
    answers = writer.read_answers(text)
    answers["none"]["PPO"] = "'none' does not fit."
    changed = writer.page(answers)
    assert changed != text and writer.read_answers(changed) == answers


@pytest.mark.parametrize("name", ["fire", "full-reset", "head-reset", "shrink-perturb"])
def test_methods_that_rewrite_frozen_layers_say_so(writer: ModuleType, name: str) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    method = resolve(name).build().attach(module, torch.optim.Adam(module[2].parameters()))
    for phase in range(2):
        method.enter_phase(phase, 5, 5, 2)
    moved = not torch.equal(before, module[0].weight)
    assert moved == (writer.NOTES.get(name) == writer.FROZEN)
