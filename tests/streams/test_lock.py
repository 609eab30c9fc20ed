"""A released task cannot change unnoticed; a draft and a user's own file can."""

import shutil
from pathlib import Path

import pytest

from ht_bench.errors import UsageError
from ht_bench.files import folder
from ht_bench.streams import catalog, lock

NAME = "warm-start-digits-v1"
Capture = pytest.CaptureFixture[str]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def add(tasks: Path, head: str = "") -> None:
    """Add a copy of the task under another name."""
    text = (tasks / f"{NAME}.toml").read_text(encoding="utf-8").replace(NAME, "new-v1")
    (tasks / "new-v1.toml").write_text(head + text, encoding="utf-8")
    catalog._shipped.cache_clear()


def test_every_shipped_task_is_locked_as_it_is() -> None:
    locked = lock.read_lock(folder("tasks"))
    tasks = map(catalog.get_task, catalog.task_files())
    assert locked == {task.name: task.sha256 for task in tasks if task.status != "draft"}


def test_a_changed_released_task_is_refused(tasks: Path) -> None:
    change(tasks / f"{NAME}.toml", "lr = 1e-3", "lr = 2e-3")
    with pytest.raises(UsageError, match=rf"{NAME}\.toml differs from its released version"):
        catalog.get_task(NAME)


def test_a_new_title_is_no_change(tasks: Path) -> None:
    change(tasks / f"{NAME}.toml", "Half of 300 digits", "150 digits")
    assert catalog.get_task(NAME).title.startswith("150 digits")


def test_a_task_without_a_line_must_be_a_draft(tasks: Path) -> None:
    add(tasks)
    with pytest.raises(UsageError, match=r"not in LOCK\.toml"):
        catalog.get_task("new-v1")
    add(tasks, 'status = "draft"\n')
    assert catalog.get_task("new-v1").status == "draft"


def test_a_released_task_cannot_become_a_draft_to_change(tasks: Path, capsys: Capture) -> None:
    path = tasks / f"{NAME}.toml"
    path.write_text('status = "draft"\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert catalog.get_task(NAME).status == "draft"  # the same numbers still
    catalog._shipped.cache_clear()
    change(path, "lr = 1e-3", "lr = 2e-3")
    with pytest.raises(UsageError, match="differs from its released version"):
        catalog.get_task(NAME)
    assert lock.main() == 2
    assert NAME in capsys.readouterr().err


def test_the_command_leaves_drafts_alone_and_makes_the_lock_anew(tasks: Path) -> None:
    before = (tasks / "LOCK.toml").read_bytes()
    add(tasks, 'status = "draft"\n')
    (tasks / "LOCK.toml").unlink()
    assert lock.main() == 0
    assert (tasks / "LOCK.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("[tasks", "is not valid TOML"), ("tasks = 3", "'tasks' must be a table")],
)
def test_a_malformed_lock_is_named(tasks: Path, text: str, sentence: str) -> None:
    (tasks / "LOCK.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=rf"LOCK\.toml.*{sentence}.*restore the file"):
        catalog.get_task(NAME)


def test_a_users_own_file_is_not_locked(tasks: Path, tmp_path: Path) -> None:
    own = Path(shutil.copy(tasks / f"{NAME}.toml", tmp_path / "mine.toml"))
    change(own, "lr = 1e-3", "lr = 2e-3")
    with pytest.raises(UsageError, match="is the name of a released task"):  # its results' name too
        catalog.get_task(own)
    change(own, f'name = "{NAME}"', 'name = "mine-v1"')
    assert catalog.get_task(own).optimizer.lr == 2e-3


def test_the_command_adds_lines_and_changes_none(tasks: Path, capsys: Capture) -> None:
    before = lock.read_lock(tasks)
    add(tasks)
    assert lock.main() == 0
    assert "new-v1" in capsys.readouterr().out
    after = lock.read_lock(tasks)
    assert after.pop("new-v1") == catalog.get_task("new-v1").sha256
    assert after == before
    assert lock.main() == 0


def test_the_command_refuses_a_changed_task(tasks: Path, capsys: Capture) -> None:
    change(tasks / f"{NAME}.toml", "lr = 1e-3", "lr = 2e-3")
    before = (tasks / "LOCK.toml").read_bytes()
    assert lock.main() == 2
    assert "differs from its released version" in capsys.readouterr().err
    assert (tasks / "LOCK.toml").read_bytes() == before
