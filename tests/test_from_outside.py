"""Things of a user's own, by `--import`, by file and by entry point, through the commands."""

import json
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench import loading, registry
from ht_bench.methods.recipe import get_recipe
from ht_bench.methods.resolve import resolve
from ht_bench.running.pool import Pool
from ht_bench.streams.catalog import adopt_task, get_task
from ht_bench.streams.suite import get_suite
from ht_bench.testing import check_method, check_task

Write = Callable[..., Path]
Call = Callable[..., Any]
PLUG_IN = """\
from pathlib import Path

from torch import nn

import ht_bench

HERE = Path(__file__).parent


@ht_bench.register_method("halving")
class Halving(ht_bench.Method):
    factor: float = 0.5

    def on_phase(self, index: int) -> None:
        for parameter in self.module.parameters():
            parameter.data.mul_(self.factor)


@ht_bench.register_recipe("halving")
def recipe():
    return HERE / "halving.toml"


@ht_bench.register_task("outside-v1")
def task():
    return HERE / "outside.toml"


@ht_bench.register_suite("suite-outside-v1")
def suite():
    return HERE / "suite.toml"


@ht_bench.register_network("plugged")
def build(options, shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, classes))
"""
RECIPE = """\
method = "halving"
implementation = "plug_in.py:Halving"
summary = "Halves the weights at each boundary."
source = "nobody, 2026"
needs_boundaries = true
[default]
factor = 0.75
[tasks.outside-v1]
factor = 0.25
"""
SUITE = 'name = "suite-outside-v1"\ntitle = "Of my own"\ntasks = ["outside.toml"]\n'


@pytest.fixture
def plug_in(tmp_path: Path, write_task: Write) -> Path:
    """A file that registers a thing of several kinds; its task names its network."""
    write_task(
        "outside",
        called=("tiny-v1", "outside-v1"),
        net=('name = "mlp", hidden = [4]', 'name = "plugged"'),
        stack=("stack = 4", "stack = 1"),
    )
    (tmp_path / "halving.toml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
    path = tmp_path / "plug_in.py"
    path.write_text(PLUG_IN, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("methods", "halving"),
        ("recipes", "halving"),
        ("tasks", "outside-v1"),
        ("suites", "suite-outside-v1"),
        ("networks", "plugged"),
    ],
)
def test_list_shows_what_a_file_registers(
    plug_in: Path, call: Call, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    answer = call("list", kind, "--import", plug_in)
    assert answer.code == 0, answer.error
    [line] = [line for line in answer.out.splitlines() if line.startswith(name)]
    assert line.rstrip().endswith(str(plug_in))
    assert name in call("--import", plug_in, "list", kind).out
    assert name in call(f"--import={plug_in}", "list").out


def test_a_suite_of_one_s_own_is_run_by_workers_and_compared(
    plug_in: Path, call: Call, tmp_path: Path
) -> None:
    """Its task, network, method and recipe are all known by name; the workers import them."""
    out = tmp_path / "runs"
    words = ("--suite", "suite-outside-v1", "--method", "halving,none,full-reset", "--out", out)
    unknown = call("run", *words)
    assert unknown.code == 2 and "Unknown suite 'suite-outside-v1'" in unknown.error
    answer = call("run", *words, "--seeds", "100-101", "--jobs", 2, "--import", plug_in)
    assert answer.code == 0, answer.error
    files = list(out.glob("outside-v1/halving-*/seed*/result.json"))
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert [record["hyperparameters"] for record in records] == [{"factor": 0.25}] * 2
    assert records[0]["traits"]["needs_boundaries"] is True
    answer = call("compare", out, "--import", plug_in)
    assert answer.code == 0 and "halving" in answer.out, answer.error
    suite = call("compare", out, "--suite", tmp_path / "suite.toml", "--import", plug_in)
    assert suite.out.startswith("suite-outside-v1")


def test_all_is_what_a_plug_in_brings_too(plug_in: Path) -> None:
    from ht_bench.commands.naming import find_methods

    assert "halving" not in find_methods("all")
    loading.import_sources([str(plug_in)])
    ht_bench.register_method("without-recipe")(type("Bare", (ht_bench.Method,), {}))
    assert {"halving", "without-recipe", "none"} <= set(find_methods("all"))


def test_workers_are_told_what_was_imported(plug_in: Path) -> None:
    """By --import, and by a file of a method that registers things itself."""
    assert registry.sources() == ()
    loading.load_file(plug_in)
    assert registry.sources() == (str(plug_in),)
    pool = Pool(1)
    shared = pool.executor(0)._initargs  # type: ignore[attr-defined]
    assert (str(plug_in),) in shared
    pool.close(at_once=True)
    loading.import_sources(["json"])
    assert registry.sources() == ("json", str(plug_in))


def test_a_recipe_s_file_names_a_method_and_its_hyperparameters(
    plug_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plug_in.parent)
    spec = resolve("halving.toml", "outside-v1")
    assert (spec.name, dict(spec.hyperparameters)) == ("halving", {"factor": 0.25})
    assert dict(resolve("halving.toml", "other-v1").hyperparameters) == {"factor": 0.75}
    assert spec.reference == f"{plug_in}:Halving" and spec.recipe == str(
        Path("halving.toml").resolve()
    )
    assert type(spec.build()).__name__ == "Halving"
    assert spec.traits()["needs_boundaries"] is True
    check_method("halving.toml")
    (plug_in.parent / "l2.toml").write_text(
        'method = "l2"\nsummary = "s"\nsource = "s"\n[default]\nstrength = 0.125\n'
    )
    assert dict(resolve("l2.toml").hyperparameters) == {"strength": 0.125}
    (plug_in.parent / "lost.toml").write_text('method = "lost"\nsummary = "s"\nsource = "s"\n')
    with pytest.raises(ht_bench.UsageError, match=r"lost.toml gives no class .* add implement"):
        resolve("lost.toml")


def test_evaluate_takes_all_of_them(plug_in: Path) -> None:
    loading.import_sources([str(plug_in)])
    folder = plug_in.parent
    pairs = [(f"{folder}/halving.toml", f"{folder}/outside.toml"), ("halving", "outside-v1")]
    results = [ht_bench.evaluate(*pair, [100], progress=False) for pair in pairs]
    assert (
        results[0].curves["test/accuracy"].tolist() == results[1].curves["test/accuracy"].tolist()
    )
    assert results[0].task.sha256 == results[1].task.sha256
    check_task("outside-v1")


def test_a_submission_s_task_is_known_by_its_file(
    plug_in: Path, call: Call, write_task: Write, tmp_path: Path, runs: Path
) -> None:
    """Submitted, verified and shown only where whoever checks it names the task's file."""
    task, entry = write_task(), tmp_path / "board" / "submissions" / "mine.json"
    words = ("submit", runs, "--method", "none", "--authors", "A", "--out", entry)
    refused = call(*words)
    assert refused.code == 2 and "tiny-v1 is no task of this benchmark" in refused.error
    assert call(*words, "--task", task).code == 0
    registry.tasks._entries.clear()
    assert "no task of this benchmark" in call("verify", entry).out
    answer = call("verify", entry, "--task", task)
    assert answer.code == 0 and "consistent" in answer.out, answer.out
    registry.tasks._entries.clear()
    suite = tmp_path / "tiny-suite.toml"
    suite.write_text('name = "suite-tiny"\ntitle = "Tiny"\ntasks = ["tiny.toml"]\n')
    answer = call("page", tmp_path / "board", "--suite", suite)
    assert answer.code == 0, answer.error
    assert any("tiny-v1" in page.read_text() for page in tmp_path.glob("board/site/**/*.html"))


def test_names_in_a_submission_are_never_followed(
    plug_in: Path, call: Call, write_task: Write, runs: Path
) -> None:
    """A path or a reference there is an unknown name, and nothing is imported or read."""
    task, entry = write_task(), plug_in.parent / "entry.json"
    words = ("submit", runs, "--method", "none", "--authors", "A", "--task", task)
    assert call(*words, "--out", entry).code == 0
    text = entry.read_text(encoding="utf-8")
    for old, new in [
        ('"tiny-v1"', json.dumps(str(task))),
        ('"tiny-v1"', json.dumps(f"{plug_in}:task")),
        ('"name": "none"', f'"name": {json.dumps(f"{plug_in}:Halving")}'),
        ('"name": "none"', f'"name": {json.dumps(str(plug_in.parent / "halving.toml"))}'),
    ]:
        assert old in text
        entry.write_text(text.replace(old, new), encoding="utf-8")
        answer = call("verify", entry, "--rerun", 1)
        assert answer.code in (1, 2), answer.out
        assert "halving" not in registry.methods.names()


# ---- what is wrong with a plug-in is one sentence ----


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 / 0", r"mine\.py failed while it was imported: ZeroDivisionError: .* \(line 1\)"),
        (
            "import ht_bench\n@ht_bench.register_method('l2')\nclass L(ht_bench.Method): pass",
            "The method name 'l2' is taken by",
        ),
        (
            "import ht_bench\n@ht_bench.register_network('a:b')\ndef build(*_): pass",
            "'a:b' cannot name a network; use letters",
        ),
        (
            "import ht_bench\n@ht_bench.register_suite('s.toml')\ndef suite(): pass",
            "'s.toml' cannot name a suite",
        ),
    ],
)
def test_a_plug_in_that_fails(tmp_path: Path, call: Call, text: str, sentence: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    for command in (("list",), ("run", "--method", "none")):
        answer = call(*command, "--import", path)
        assert answer.code == 2 and answer.error.count("\n") == 1
        assert re.search(sentence, answer.error), answer.error


def test_a_file_that_is_not_there(call: Call) -> None:
    for word, sentence in [("absent.py", "There is no file"), ("no.such", "Could not import no")]:
        answer = call("list", "tasks", "--import", word)
        assert answer.code == 2 and sentence in answer.error


def offer(monkeypatch: pytest.MonkeyPatch, kind: str, **values: str) -> None:
    """Let an installed package offer these entry points."""
    things = registry.KINDS[kind]
    points = [EntryPoint(name, value, things._group) for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", EntryPoints(points).select)
    monkeypatch.setattr(things, "_searched", False)


@pytest.mark.parametrize(
    ("kind", "listed"),
    [
        ("method", "methods"),
        ("recipe", "recipes"),
        ("task", "tasks"),
        ("suite", "suites"),
        ("network", "networks"),
        ("activation", "activations"),
        ("norm", "norms"),
        ("environment", "environments"),
    ],
)
def test_an_entry_point_that_fails_is_listed_among_the_others(
    monkeypatch: pytest.MonkeyPatch, call: Call, kind: str, listed: str
) -> None:
    offer(monkeypatch, kind, broken="no_such_package:thing", sound="collections:OrderedDict")
    monkeypatch.setenv("COLUMNS", "300")
    answer = call("list", listed)
    assert answer.code == 0, answer.error
    [broken] = [line for line in answer.out.splitlines() if line.startswith("broken")]
    assert "Could not import no_such_package" in broken and "an installed package" in broken
    rest = answer.out.replace(broken, "")
    assert all(name in rest for name in registry.KINDS[kind].built_in)


def test_a_broken_suite_of_a_package_hinders_no_comparison(
    monkeypatch: pytest.MonkeyPatch, call: Call, runs: Path
) -> None:
    offer(monkeypatch, "suite", broken="no_such_package:suite")
    assert call("compare", runs).code == 0
    answer = call("compare", runs, "--suite", "broken")
    assert answer.code == 2 and "Could not import no_such_package" in answer.error


def test_a_task_of_another_s_name_is_refused(tmp_path: Path, write_task: Write) -> None:
    write_task(called=("tiny-v1", "warm-start-digits-v1"))
    path = tmp_path / "suite.toml"
    path.write_text('name = "s"\ntitle = "t"\ntasks = ["tiny.toml"]\n', encoding="utf-8")
    with pytest.raises(
        ht_bench.UsageError, match="'warm-start-digits-v1' is the name of a released"
    ):
        get_suite(path)
    assert adopt_task("warm-start-digits-v1") is get_task("warm-start-digits-v1")


def test_an_installed_package_is_not_written_into(call: Call, tmp_path: Path, runs: Path) -> None:
    inside = tmp_path / "site-packages" / "theirs"
    words = ("freeze", "--suite", "suite-a-v1", "--task", "a-v1", "--title", "t", "--runs", runs)
    answer = call(*words, "--out", inside)
    assert answer.code == 2 and "is an installed package's; name a folder of" in answer.error


def test_a_recipe_of_a_package_makes_its_method_known(
    plug_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the package's own: no other entry point is needed."""
    offer(monkeypatch, "recipe", halving=f"{plug_in}:recipe")
    monkeypatch.setattr(registry.methods, "register", lambda name: lambda cls: cls)
    recipe = get_recipe("halving")
    assert recipe is not None and recipe.implementation == f"{plug_in}:Halving"
    assert resolve("halving").name == "halving"
