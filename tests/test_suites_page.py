"""docs/suites.md: its pilots are those of docs/pilots.py; the tasks it names are there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ht_bench.streams.catalog import get_task, task_files

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def _beside() -> Iterator[None]:
    """Let a script of docs/ import what lies beside it, as it does when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pilots() -> Any:
    return loaded("pilots")


def test_every_row_is_a_pilot_that_can_be_run(pilots: Any) -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| 0\.[0-9]+ \| ", PAGE, re.MULTILINE)
    assert rows == list(pilots.PILOTS)
    assert {pilots.task_of(name).name for name in rows} == {f"{name}-v1" for name in rows}


def test_a_pilot_is_trained_and_told_in_a_row(pilots: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = pilots.pilot("warm-start", 60, pilots.two(0.5, 0.5, 10, 10), (8,))
    monkeypatch.setitem(pilots.PILOTS, "tiny", tiny)
    number = r"-?0\.\d{3}"
    expected = rf"\| `tiny` \| {number} \| {number} \| {number} ± {number} \|"
    assert re.fullmatch(expected, pilots.row(pilots.task_of("tiny")))


def test_every_row_of_an_agent_is_a_pilot_that_can_be_run() -> None:
    agents = loaded("agent_pilots")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| 0-(\d+) \| ", PAGE, re.MULTILINE)
    assert rows == [(name, str(count - 1)) for name, (count, _) in agents.PILOTS.items()]
    for name in agents.PILOTS:
        assert agents.task_of(name).name == f"{name}-v1"


def test_a_pilot_of_an_agent_is_trained_and_told_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = loaded("agent_pilots")
    settings = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
    agent = {"algorithm": "ppo", "settings": settings}
    tiny = agents.pilot({"id": "CartPole-v1"}, agent, 2, 16, 22.1, 1)
    monkeypatch.setitem(agents.PILOTS, "tiny", (2, tiny))
    number = r"-?\d+\.\d"
    expected = rf"\| `tiny` \| 0-1 \| {number} \| {number} \| {number} ± {number} \|"
    assert re.fullmatch(expected, agents.row("tiny"))


def test_the_tasks_named_are_there() -> None:
    digits = r"[a-z0-9-]+-digits(?:-\d+)?-v1|shuffled-noise-v1|[a-z0-9-]+-cifar10-v1"
    agents = r"(?:swap|games)-[a-z0-9-]+-v\d+"
    named = set(re.findall(f"`({digits}|{agents})`", PAGE))
    assert len(named) >= 10 and named <= set(task_files())
    drafts = {name for name in task_files() if "ht-bench run --task" in get_task(name).description}
    assert drafts <= named


def test_the_published_images_are_shortened(pilots: Any) -> None:
    for name in pilots.IMAGES:
        whole, task = get_task(name), pilots.shorter(name, 0.3)
        epochs = [phase.epochs for phase in task.phases]
        assert epochs == [round(0.3 * phase.epochs) for phase in whole.phases]
        assert task.name == name.replace("-v2", "-share-0-3-v1")
        assert task.sha256 != whole.sha256
    assert [phase.epochs for phase in pilots.shorter(pilots.IMAGES[0], 1e-6).phases] == [1, 1]
