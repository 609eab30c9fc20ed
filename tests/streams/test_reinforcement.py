"""The spec of a task of environments: read, checked, hashed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.families import get_family
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import load_task, parse_task

TABLE: dict[str, Any] = {
    "name": "tiny-v1",
    "family": "drift",
    "environment": {"id": "CartPole-v1", "copies": 2, "kwargs": {"max_episode_steps": 50}},
    "agent": {"algorithm": "ppo", "settings": {"n_steps": 10}},
    "evaluation": {"episodes": 1, "points": 4},
    "reference": {"random": 22.1},
    "phases": [
        {"steps": 80},
        {"steps": 160, "physics": {"gravity": 20.0}, "repeat": 2},
        {"steps": 80, "id": "Acrobot-v1", "kwargs": {"render_mode": None}},
    ],
}
SHIPPED = [
    name for name in task_files() if isinstance(load_task(task_files()[name]), ReinforcementTask)
]


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TABLE), **changes}


def parse(table: dict[str, Any]) -> ReinforcementTask:
    task = parse_task(table, "t.toml")
    assert isinstance(task, ReinforcementTask)
    return task


def test_a_table_becomes_a_task() -> None:
    task = parse(TABLE)
    assert task.steps == 80 + 2 * 160 + 80
    assert [phase.physics for phase in task.phases[1:3]] == [{"gravity": 20.0}] * 2
    assert task.environment_of(0) == ("CartPole-v1", {"max_episode_steps": 50})
    merged = {"max_episode_steps": 50, "render_mode": None}
    assert task.environment_of(3) == ("Acrobot-v1", merged)
    assert (task.stack, task.learner) == (1, "ppo")


def test_the_spec_survives_json_and_keeps_its_hash() -> None:
    task = parse(TABLE)
    assert parse(json.loads(json.dumps(task.canonical()))).sha256 == task.sha256
    assert parse(changed(title="other", status="draft")).sha256 == task.sha256
    assert parse(changed(reference={"random": 22.2})).sha256 != task.sha256


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"phases": []}, "at least one"),
        ({"phases": [{"steps": 81}]}, r"phase 0.*'steps' is 81.*multiple.*2 × 4"),
        ({"phases": [{"steps": 0}]}, "'phases\\[0\\].steps' is 0"),
        ({"phases": [{"steps": 80, "step": 1}]}, "unknown key 'step'. Did you mean 'steps'"),
        ({"phases": [{"steps": 80, "actions": "mixed"}]}, "must be one of 'true', 'permuted'"),
        ({"family": "drifting"}, "'family' is 'drifting'.*'drift'"),
        ({"reference": {}}, r"\[reference\]: the key 'random' is missing"),
        ({"agent": {"algorithm": "trpo"}}, "must be one of 'ppo'"),
        ({"agent": "ppo"}, r"write \[agent\] above"),
        ({"evaluation": {"episodes": 0}}, "'evaluation.episodes' is 0"),
        ({"environment": {"id": "X-v1", "wrappers": [{"stack": 4}]}}, "each needs a 'name'"),
        ({"name": "a/b"}, "begin with a letter"),
        ({"seeds": "9-1"}, "runs backwards"),
        ({"environment": {"id": "X", "kwargs": {"f": {1, 2}}}}, "only JSON values"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        parse_task(changed(**changes), "t.toml")
    assert str(caught.value).startswith("t.toml")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_task_is_within_the_protocol(name: str) -> None:
    task = get_task(name)
    assert isinstance(task, ReinforcementTask)
    assert get_family(task.family).is_control
    assert min(task.seeds) >= 100
    changing = [
        phase.physics or phase.kwargs or phase.id or phase.observations == "permuted"
        for phase in task.phases
    ]
    assert len(task.phases) == 1 or any(changing)
    assert task.family != "atari-100k" or (len(task.phases), task.steps) == (1, 100_000)
    assert (task.reference.human is not None) >= (task.family == "atari-100k")
