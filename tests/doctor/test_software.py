"""Versions, extras, plug-ins and variables with planted faults."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from ht_bench import registry
from ht_bench.doctor import extras, requirements, software
from ht_bench.errors import UsageError
from ht_bench.streams import catalog

Found = Callable[[Any], dict[str, list[Any]]]
Patch = pytest.MonkeyPatch
ROOT = Path(__file__).parent.parent.parent
METADATA = """\
Metadata-Version: 2.4
Name: {name}
Version: {version}
Provides-Extra: ray
Provides-Extra: dev
Requires-Dist: numpy>=2.0
Requires-Dist: ray>=2.40; extra == "ray"
Requires-Dist: no-such-thing; python_version < "3"
"""


def install(place: Path, monkeypatch: Patch, name: str, version: str = "1.0") -> None:
    """Let pip's records know of a package."""
    folder = place / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    text = METADATA.format(name=name, version=version)
    (folder / "METADATA").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(place)


# ---- Python, package, torch ----


def test_another_python(found: Found, monkeypatch: Patch) -> None:
    assert list(found(software.python)) == ["ok" if sys.version_info < (3, 13) else "note"]
    monkeypatch.setattr(software, "PYTHONS", ((3, 9), (3, 10)))
    assert "newer than 3.10" in found(software.python)["note"][0].sentence


def test_a_checkout_is_told_from_a_wheel(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(software.metadata, "version", lambda name: software.VERSION)
    [finding] = found(software.package)["ok"]
    tasks = len(catalog.task_files())
    assert f"a checkout, {ROOT}: {tasks} tasks as released" in finding.sentence
    monkeypatch.setattr(software, "checkout", lambda: None)
    assert ", installed, " in found(software.package)["ok"][0].sentence


def test_lost_data_folders(found: Found, monkeypatch: Patch) -> None:
    def lost(name: str) -> Path:
        raise UsageError(f"The data folder '{name}' is missing; install ht-bench again.")

    monkeypatch.setattr(software, "folder", lost)
    [finding] = found(software.package)["fault"]
    assert "'tasks' is missing" in finding.sentence and "git restore" in finding.remedy
    monkeypatch.setattr(software, "checkout", lambda: None)
    assert "pip install --force-reinstall" in found(software.package)["fault"][0].remedy


def test_a_task_that_was_changed(found: Found, monkeypatch: Patch, tmp_path: Path) -> None:
    name, path = next(iter(catalog.task_files().items()))
    changed = tmp_path / path.name
    text = path.read_text(encoding="utf-8").replace("seeds = ", "points = 1\nseeds = ", 1)
    changed.write_text(text.replace("lr = 1e-3", "lr = 2e-3"), encoding="utf-8")
    monkeypatch.setattr(catalog, "task_files", lambda: {name: changed})
    catalog._shipped.cache_clear()
    try:
        [finding] = found(software.package)["fault"]
    finally:
        catalog._shipped.cache_clear()
    assert str(changed) in finding.sentence and "git restore" in finding.remedy


def test_pips_records_of_another_version(found: Found, tmp_path: Path, monkeypatch: Patch) -> None:
    install(tmp_path / "site", monkeypatch, "ht-bench", "0.0.1")
    [finding] = found(software.package)["note"]
    assert (
        "pip knows ht-bench as 0.0.1" in finding.sentence and "pip install -e ." in finding.remedy
    )


def test_a_package_without_records(found: Found, monkeypatch: Patch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(software.metadata, "version", absent)
    assert "not installed" in found(software.package)["note"][0].sentence


def test_a_needed_package_that_is_old_or_absent(found: Found, monkeypatch: Patch) -> None:
    needed = {"": [Requirement("numpy>=99"), Requirement("no-such-thing"), Requirement("rich")]}
    monkeypatch.setattr(software, "requirements", lambda: needed)
    old, absent = found(software.dependencies)["fault"]
    assert "numpy>=99 is needed, 2." in old.sentence and "'numpy>=99'" in old.remedy
    assert "no-such-thing is needed, none" in absent.sentence


@pytest.mark.parametrize(
    ("version", "state"), [("2.4.1", "fault"), ("2.13.0+cu130", "ok"), ("3.0.0a0", "note")]
)
def test_torch_beside_what_was_tried(
    found: Found, monkeypatch: Patch, tmp_path: Path, version: str, state: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(software, "DRIVER", tmp_path / "absent")
    assert list(found(software.torch_build)) == [state]


def test_a_cpu_build_beside_a_gpu(found: Found, monkeypatch: Patch, tmp_path: Path) -> None:
    (tmp_path / "version").write_text("NVRM", encoding="utf-8")
    monkeypatch.setattr(software, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    [finding] = found(software.torch_build)["warning"]
    assert "NVIDIA driver, but torch is built for CPUs" in finding.sentence


# ---- extras ----


def test_the_extras_are_those_of_pyproject() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = set(table["project"]["optional-dependencies"]) - {"all", "bench", "dev"}
    assert set(requirements.extras()) == named


def test_the_extras_of_a_wheel(tmp_path: Path, monkeypatch: Patch) -> None:
    install(tmp_path / "site", monkeypatch, "ht-bench")
    monkeypatch.setattr(requirements, "checkout", lambda: None)
    needed = requirements.requirements()
    assert [str(each.name) for each in needed[""]] == ["numpy"]
    assert [str(each.name) for each in needed["ray"]] == ["ray"]
    assert list(requirements.extras()) == ["ray"]


def test_an_extra_with_an_extra_is_spelt_out(tmp_path: Path, monkeypatch: Patch) -> None:
    install(tmp_path / "site", monkeypatch, "pretend")
    needed = {"": [], "all": [], "fast": [Requirement("pretend[ray]>=1")]}
    monkeypatch.setattr(requirements, "requirements", lambda: needed)
    assert [each.name for each in requirements.extras()["fast"]] == ["pretend", "ray"]


def test_lacking_and_old_extras_come_with_the_pip_line(found: Found, monkeypatch: Patch) -> None:
    needed = {
        "ray": [Requirement("no-such-ray>=2.40"), Requirement("rich")],
        "page": [Requirement("rich>=99; python_version > '3'")],
        "tune": [Requirement("rich>=1")],
    }
    monkeypatch.setattr(extras, "extras", lambda: needed)
    answer = found(extras.extras_there)
    assert "'ray': no-such-ray not installed." in answer["note"][0].sentence
    assert answer["note"][0].remedy == "python -m pip install 'no-such-ray>=2.40'"
    assert answer["warning"][0].remedy == "python -m pip install 'rich>=99'"
    assert len(answer["ok"]) == 1


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: Patch) -> None:
    """Modules that break, die, leave and hang, where other processes find them."""
    for name, text in {
        "breaking": "import no_such_library",
        "dying": "import os; os.kill(os.getpid(), 11)",
        "leaving": "raise SystemExit('no licence')",
        "talking": "print('[\"hello')\nprint('begun')",
        "hanging": "import time; time.sleep(60)",
    }.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_imports_that_break_are_told_apart(modules: None) -> None:
    broken = extras.imported(["json", "breaking", "dying", "leaving", "talking", "csv"])
    assert set(broken) == {"breaking", "dying", "leaving"}
    assert broken["breaking"] == "ModuleNotFoundError: No module named 'no_such_library'"
    assert broken["dying"] == "the process ended with -11"
    assert broken["leaving"] == "SystemExit: no licence"


def test_an_import_that_hangs(modules: None) -> None:
    assert extras.imported(["json", "hanging"], 2.0) == {"hanging": "it took over 2 seconds"}


def test_a_broken_extra_is_a_fault(found: Found, modules: None, monkeypatch: Patch) -> None:
    monkeypatch.setattr(extras, "extras", lambda: {"ray": [Requirement("rich")]})
    monkeypatch.setattr(extras, "module_of", lambda name: "breaking")
    [finding] = found(extras.extras_work)["fault"]
    assert "rich (extra 'ray') is installed, but `import breaking` failed" in finding.sentence
    assert finding.remedy == "python -m pip install --force-reinstall rich"
    monkeypatch.setattr(extras, "module_of", lambda name: "json")
    assert list(found(extras.extras_work)) == ["ok"]


def test_clusters(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(extras.shutil, "which", lambda name: None)
    assert list(found(extras.clusters)) == ["ok"]
    monkeypatch.setattr(extras.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(extras, "installed", lambda name: None)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    answer = found(extras.clusters)
    assert answer["note"][0].remedy == "python -m pip install submitit"
    assert "RAY_ADDRESS=ray://head:10001" in answer["ok"][0].sentence


# ---- plug-ins and variables ----


def test_every_variable_of_the_package_is_known() -> None:
    files = (ROOT / "ht_bench").rglob("*.py")
    named = {name for f in files for name in re.findall(r"\bHT_BENCH_[A-Z_]+\b", f.read_text())}
    assert named == set(extras.VARIABLES)


def offer(monkeypatch: Patch, **values: str) -> None:
    """Let an installed package offer methods."""
    points = [EntryPoint(name, value, "ht_bench.methods") for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", EntryPoints(points).select)
    monkeypatch.setattr(registry.methods, "_searched", False)
    monkeypatch.setattr(registry.methods, "_points", {})


def test_plug_ins_that_cannot_be_loaded(
    found: Found, modules: None, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    offer(
        monkeypatch,
        gone="no_such_package:thing",
        broken="breaking:thing",
        leaving="leaving:thing",
        bare="json",
        sound="collections:OrderedDict",
    )
    answer = found(extras.plug_ins)
    faults = {each.sentence.split("'")[1]: each.sentence for each in answer["fault"]}
    assert set(faults) == {"gone", "broken", "leaving", "bare"}
    assert "The method 'gone' of an installed package cannot be loaded" in faults["gone"]
    assert "No module named 'no_such_library'" in faults["broken"]
    assert "no licence" in faults["leaving"]
    assert "5 things" in answer["ok"][0].sentence


@pytest.mark.parametrize(
    ("name", "value", "state", "words"),
    [
        ("HT_BENCH_CASHE", "/tmp", "warning", "Did you mean 'HT_BENCH_CACHE'"),
        ("HT_BENCH_DATA", "/no/such/folder", "warning", "which is no folder"),
        ("HT_BENCH_NO_LOCKS", "1", "warning", "nothing keeps two processes"),
        ("CUBLAS_WORKSPACE_CONFIG", ":0:0", "warning", "do not repeat their bits"),
        ("CUBLAS_WORKSPACE_CONFIG", ":16:8", "ok", "HT_BENCH_CACHE="),
        ("ATEN_CPU_CAPABILITY", "default", "note", "comparable only under the same"),
        ("OMP_NUM_THREADS", "3", "ok", "OMP_NUM_THREADS=3"),
    ],
)
def test_variables(
    found: Found, monkeypatch: Patch, name: str, value: str, state: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    answer = found(extras.environment)
    assert words in answer[state][0].sentence
    assert set(answer) <= {"ok", state}
