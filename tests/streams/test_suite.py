"""Suites: shipped ones agree with their tasks; malformed ones are named."""

import math
from pathlib import Path

import pytest

from ht_bench.errors import UsageError
from ht_bench.streams import bundled, suite
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.suite import get_suite, suite_files

NAMES = list(suite_files())


def test_the_embedded_suites_are_there() -> None:
    assert {"suite-core-v1", "suite-noisy-start-v1"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_holds_released_tasks_once(name: str) -> None:
    found = get_suite(name)
    assert found.name == name and found.title and found.tasks
    assert len(set(found.tasks)) == len(found.tasks)
    assert set(found.tasks) <= set(task_files())
    assert {get_task(task).status for task in found.tasks} == {"released"}


@pytest.mark.parametrize("name", NAMES)
def test_trainability_never_enters_generalization(name: str) -> None:
    random = {get_task(task).family in ("shuffled", "probe") for task in get_suite(name).tasks}
    assert random == {"trainability" in name}


@pytest.mark.parametrize("name", NAMES)
def test_anchors_are_of_the_tasks_as_they_are(name: str) -> None:
    found = get_suite(name)
    assert set(found.anchors) <= set(found.tasks)
    for key, anchors in found.anchors.items():
        task = get_task(key)
        assert anchors.task_sha256 == task.sha256
        assert parse_seeds(anchors.seeds) == task.seeds
        assert len(anchors.none) == len(anchors.full_reset) == len(task.seeds)
        values = (*anchors.none, *anchors.full_reset)
        assert all(math.isfinite(value) for value in values)
        assert {"ht_bench", "torch", "numpy"} <= set(anchors.software)
        if isinstance(task, ReinforcementTask):
            assert anchors.data_sha256 == "" and len(set(values)) > len(values) // 2
            assert {"gymnasium", "stable-baselines3"} <= set(anchors.software)
            continue
        assert all(0 < value <= 1 for value in values) and min(values) < 1
        if task.data.name in bundled.BUNDLED:
            assert anchors.data_sha256 == bundled.BUNDLED[task.data.name].sha256


HEAD = 'name = "suite-a-v1"\ntitle = "t"\ntasks = ["x-v1"]\nbenchmark = "0.1"\n'


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(suite, "folder", lambda name: tmp_path)
    return tmp_path


def test_a_suite_without_anchors_is_read(tasks: Path) -> None:
    (tasks / "suite-a-v1.toml").write_text(HEAD, encoding="utf-8")
    (tasks / "x-v1.toml").write_text("", encoding="utf-8")
    assert list(suite_files()) == ["suite-a-v1"]
    assert get_suite("suite-a-v1").tasks == ("x-v1",)
    assert get_suite("suite-a-v1").anchors == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = [", r"suite-a-v1\.toml is not valid TOML"),
        (HEAD.replace("tasks =", "task ="), "unknown key 'task'. Did you mean 'tasks'"),
        (HEAD.replace('["x-v1"]', '"x-v1"'), "'tasks' is 'x-v1'; it must be a list"),
        (HEAD.replace("tasks", "# "), "the key 'tasks' is missing"),
        (HEAD + "[anchors.x-v1]\nnone = []\n", r"\[anchors.x-v1\]: the key 'task_sha256'"),
        (HEAD + "[anchors.x-v1]\nnon = []\n", "unknown key 'non'. Did you mean 'none'"),
    ],
)
def test_a_malformed_suite_is_named(tasks: Path, text: str, sentence: str) -> None:
    (tasks / "suite-a-v1.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=sentence):
        get_suite("suite-a-v1")
    with pytest.raises(UsageError, match="Unknown suite 'suite-b-v1'. Did you mean 'suite-a-v1'"):
        get_suite("suite-b-v1")
