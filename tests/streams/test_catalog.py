"""Tasks by name, path, registration and entry point."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.files import folder
from ht_bench.registry import register_task
from ht_bench.streams.catalog import get_task, task_files, task_names
from ht_bench.streams.task import Task, load_task

NAME = "warm-start-digits-v1"


def shipped_task() -> Task:
    return load_task(folder("tasks") / f"{NAME}.toml")


def shipped_path() -> Path:
    return folder("tasks") / f"{NAME}.toml"


def test_a_released_tasks_name_is_no_name_for_other_content(tmp_path: Path) -> None:
    text = shipped_path().read_text(encoding="utf-8")
    copy = tmp_path / "copy.toml"
    copy.write_text(text, encoding="utf-8")
    assert get_task(copy).sha256 == shipped_task().sha256
    copy.write_text(text.replace("tolerance = 0.", "tolerance = 0.1"), encoding="utf-8")
    with pytest.raises(UsageError, match="is the name of a released task.*a name of its own"):
        get_task(copy)


def nothing() -> None:
    """Stand for a function whose author forgot the return."""


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        registry, "tasks", registry.Registry("task", "ht_bench.tasks", task_files, toml=True)
    )


def offer(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Let installed packages offer these entry points."""
    points = [EntryPoint(name, value, "ht_bench.tasks") for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", EntryPoints(points).select)


@pytest.mark.parametrize("name", list(task_files()))
def test_by_name(name: str) -> None:
    task = get_task(name)
    assert task.name == name and get_task(name) is get_task(task) is task


def test_the_catalogue_lists_neither_suites_nor_the_lock() -> None:
    assert not [name for name in task_files() if name.startswith("suite-") or name == "LOCK"]
    assert task_names() == sorted(task_files())


@pytest.mark.parametrize("kind", [str, Path])
def test_by_path(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "of-my-own.toml"  # a user's file may have another name than its task
    path.write_text(shipped_path().read_text().replace(NAME, "mine-v1"), encoding="utf-8")
    assert get_task(kind(path)).name == "mine-v1"
    with pytest.raises(UsageError, match=r"absent\.toml: No such file"):
        get_task(kind(tmp_path / "absent.toml"))


@pytest.mark.parametrize("function", [shipped_task, shipped_path])
def test_registered(function: Any) -> None:
    assert register_task("mine-v1")(function) is function
    assert get_task("mine-v1").name == NAME
    assert task_names()[-1] == "mine-v1"
    with pytest.raises(UsageError, match="The task name 'mine-v1' is taken"):
        register_task("mine-v1")(nothing)


@pytest.mark.parametrize("function", ["shipped_task", "shipped_path"])
def test_by_entry_point(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("theirs")
    setattr(theirs, function, globals()[function])
    monkeypatch.setitem(sys.modules, "theirs", theirs)
    offer(monkeypatch, **{"theirs-v1": f"theirs:{function}"})
    assert get_task("theirs-v1").name == NAME
    assert "theirs-v1" in task_names()


def test_a_shipped_task_is_not_hidden_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, **{NAME: "no_such:task"})
    assert get_task(NAME).sha256 == shipped_task().sha256
    assert task_names().count(NAME) == 1


def test_a_broken_entry_point_breaks_no_other_task(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, **{"lost-v1": "no_such_package:task", "gone-v1": "pathlib:no_task"})
    assert get_task(NAME).name == NAME
    with pytest.raises(UsageError, match="Could not import no_such_package"):
        get_task("lost-v1")
    with pytest.raises(UsageError, match="pathlib has no 'no_task'"):
        get_task("gone-v1")


def test_an_unknown_name_gets_the_nearest_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, **{"theirs-v1": "no_such:task"})
    for wrong, near in [("warm-start-digit-v1", NAME), ("their-v1", "theirs-v1")]:
        with pytest.raises(UsageError, match=f"Did you mean '{near}'.*`ht-bench list tasks`"):
            get_task(wrong)
    with pytest.raises(UsageError, match=r"Unknown task 'zzzz'\. `ht-bench list tasks`"):
        get_task("zzzz")
    with pytest.raises(UsageError, match="Unknown task 'suite-core-v1'"):
        get_task("suite-core-v1")


@pytest.mark.parametrize("value", [None, 3, ["a"]])
def test_what_is_no_task_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="is no task; give a name, the path of a TOML file"):
        get_task(value)
    register_task("broken-v1")(lambda: value)
    with pytest.raises(UsageError, match="is no task"):
        get_task("broken-v1")


def test_file_and_name_must_agree(tasks: Path) -> None:
    (tasks / f"{NAME}.toml").rename(tasks / "other-v1.toml")
    with pytest.raises(UsageError, match=r"other-v1\.toml: its name is 'warm-start-digits-v1'"):
        get_task("other-v1")


def test_a_malformed_shipped_file_breaks_no_other(tasks: Path) -> None:
    (tasks / "broken-v1.toml").write_text("name = ", encoding="utf-8")
    assert "broken-v1" in task_names()
    assert get_task(NAME).name == NAME
    with pytest.raises(UsageError, match=r"broken-v1\.toml is not valid TOML"):
        get_task("broken-v1")


def failing() -> None:
    raise ZeroDivisionError("of\nmine")


def test_what_another_package_does_wrong_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_package.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    offer(monkeypatch, **{"theirs-v1": "broken_package:task"})
    with pytest.raises(UsageError, match="broken_package failed while it was imported: ZeroDiv"):
        get_task("theirs-v1")
    register_task("failing-v1")(failing)
    with pytest.raises(UsageError, match="for the task 'failing-v1' failed: ZeroDivisionError: of"):
        get_task("failing-v1")
    register_task("circle-v1")(lambda: "circle-v1")
    with pytest.raises(UsageError, match="returns its own name"):
        get_task("circle-v1")
