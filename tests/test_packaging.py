"""The wheel: complete, without tests, and its data are found where it is unpacked."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import ht_bench
from ht_bench import registry
from ht_bench.files import folder
from ht_bench.methods.recipe import recipe_names
from ht_bench.streams.catalog import get_task, task_files

print(ht_bench.__file__)
print(folder("tasks"))
print(folder("baselines"))
print(len([get_task(name) for name in task_files()]), len(recipe_names()))
print(len(registry.methods.names()), "HareTortoise" in dir(ht_bench))
"""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = out.glob("ht_bench-*.whl")
    return built


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("kind", ["tasks", "baselines"])
def test_all_data_files_are_in(wheel: Path, kind: str) -> None:
    wanted = {f"ht_bench/_data/{kind}/{path.name}" for path in (ROOT / kind).glob("*.toml")}
    assert wanted
    assert wanted <= names(wheel)


def test_the_lock_is_in(wheel: Path) -> None:
    assert "ht_bench/_data/tasks/LOCK.toml" in names(wheel)


def test_the_schemas_are_in(wheel: Path) -> None:
    schemas = {"leaderboard/submission.schema.json", "records/record.schema.json"}
    assert {f"ht_bench/{schema}" for schema in schemas} <= {*names(wheel)}


def test_all_modules_and_types_are_in(wheel: Path) -> None:
    package = ROOT / "ht_bench"
    modules = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}
    assert modules | {"ht_bench/py.typed"} <= names(wheel)


def test_nothing_else_is_in(wheel: Path) -> None:
    for name in names(wheel):
        top = name.split("/")[0]
        assert top == "ht_bench" or top.endswith(".dist-info")
        assert "test_" not in name and "conftest" not in name
        assert "__pycache__" not in name and not name.endswith(".pyc")
        assert not name.startswith("ht_bench/_data/") or name.endswith((".toml", ".md"))


def test_the_metadata_name_the_command_and_the_version(wheel: Path) -> None:
    from ht_bench.version import VERSION

    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in names(wheel)}
    assert f"\nVersion: {VERSION}\n" in texts["METADATA"]
    assert "ht-bench = ht_bench.cli:main" in texts["entry_points.txt"]
    assert "LICENSE" in texts


def test_the_unpacked_wheel_finds_its_data(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    place, tasks, baselines, counts, methods = done.stdout.splitlines()
    assert Path(place) == tmp_path / "ht_bench" / "__init__.py"
    assert Path(tasks) == tmp_path / "ht_bench" / "_data" / "tasks"
    assert Path(baselines) == tmp_path / "ht_bench" / "_data" / "baselines"
    shipped = [p for p in (ROOT / "tasks").glob("*.toml") if p.stem != "LOCK"]
    shipped = [p for p in shipped if not p.stem.startswith("suite-")]
    recipes = len(list((ROOT / "baselines").glob("*.toml")))
    assert (counts, methods) == (f"{len(shipped)} {recipes}", f"{recipes} True")
