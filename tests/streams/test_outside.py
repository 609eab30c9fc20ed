"""What a task names from outside: found beside its file, and in its hash by its code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench import loading, registry
from ht_bench.errors import UsageError
from ht_bench.records.runs import read_spec, write_spec
from ht_bench.streams import outside
from ht_bench.streams.catalog import get_task
from ht_bench.streams.suite import get_suite
from ht_bench.streams.task import load_task, parse_task

Write = Callable[..., Path]
TABLE: dict[str, Any] = {
    "data": {"name": "my_data.py:load"},
    "net": {"name": "my_net.py:build", "hidden": [4], "activation": "relu"},
    "environment": {"id": "A-v1", "wrappers": [{"name": "more/w.py:Wrap"}], "register": "e.py"},
    "description": "as my_net.py:build",
}


def test_paths_are_taken_from_beside_the_file(tmp_path: Path) -> None:
    made = outside.with_absolute_paths(TABLE, tmp_path / "task.toml")
    assert made["data"]["name"] == f"{tmp_path}/my_data.py:load"
    assert made["net"] == {**TABLE["net"], "name": f"{tmp_path}/my_net.py:build"}
    assert made["environment"]["wrappers"] == [{"name": f"{tmp_path}/more/w.py:Wrap"}]
    assert made["environment"]["register"] == f"{tmp_path}/e.py"
    assert made["description"] == TABLE["description"]


def test_the_hash_follows_the_code_and_not_the_place(tmp_path: Path) -> None:
    """Two copies of a file are one; an edit, also of what it imports, makes another."""
    texts = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my_net.py").write_text("import part_of_net\n", encoding="utf-8")
        (tmp_path / folder / "part_of_net.py").write_text("x = 1\n", encoding="utf-8")
        texts.append(_identity(tmp_path / folder))
    assert texts[0] == texts[1]
    assert texts[0]["net"]["name"].startswith("my_net.py:build@")
    assert texts[0]["data"]["name"] == "my_data.py:load"  # hashed by content
    (tmp_path / "b" / "part_of_net.py").write_text("x = 2\n", encoding="utf-8")
    assert _identity(tmp_path / "b")["net"] != texts[0]["net"]
    assert outside.identified(texts[0]) == texts[0]  # as read back
    assert str(tmp_path) not in json.dumps(texts)


def _identity(folder: Path) -> dict[str, Any]:
    return outside.identified(outside.with_absolute_paths(TABLE, folder / "task.toml"))


def test_a_registered_name_counts_by_its_code_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.networks, "_entries", {})
    path = tmp_path / "plugin_with_net.py"
    path.write_text(
        "import ht_bench\n@ht_bench.register_network('mine')\ndef build(*_): pass\n",
        encoding="utf-8",
    )
    loading.load_file(path)
    spec = {"net": {"name": "mine"}, "data": {"name": "digits"}}
    named = outside.identified(spec)["net"]["name"]
    assert named.startswith("mine@") and len(named) == len("mine@") + 16
    assert outside.identified({"net": {"name": "mlp", "activation": "relu"}}) == {
        "net": {"name": "mlp", "activation": "relu"}
    }


def test_a_spec_s_text_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "never_imported.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("never_imported:build", f"{tmp_path}/never_imported.py:build"):
        assert "build" in outside.identified({"net": {"name": name}})["net"]["name"]


def test_runs_are_read_without_what_their_task_names(write_task: Write, tmp_path: Path) -> None:
    """A spec kept beside runs has been checked; its hash stays what the records carry."""
    task = load_task(write_task())
    table = {**task.canonical(), "net": {"name": "gone.py:build@0123456789abcdef", "depth": 3}}
    kept = parse_task(table, "kept", kept=True)
    write_spec(tmp_path, kept)
    assert read_spec(tmp_path, kept.name).sha256 == kept.sha256
    with pytest.raises(UsageError, match=r"a task.s file \[net\]: There is no file .*gone.py"):
        parse_task(table, "a task's file")


@pytest.mark.parametrize(
    ("shipped", "read", "sentence"),
    [
        ("tasks/suite-core-v1", get_task, r"is a suite, no task; name it with --suite"),
        ("tasks/warm-start-digits-v1", get_suite, r"is a task, no suite; name it with --task"),
        ("baselines/l2", get_task, r"is a recipe, no task; name it with --method"),
    ],
)
def test_a_file_of_another_kind_is_named(
    shipped: str, read: Callable[[str], Any], sentence: str, tmp_path: Path
) -> None:
    root = Path(__file__).parent.parent.parent
    path = Path(shutil.copy(root / f"{shipped}.toml", tmp_path))
    with pytest.raises(UsageError, match=sentence):
        read(str(path))
