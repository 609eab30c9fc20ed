"""ht_bench.evaluate: what it takes, what it returns, what it keeps; and third-party things."""

import inspect
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ht_bench
from ht_bench import loading, registry
from ht_bench.records.record import without_cost
from ht_bench.streams.task import Task, load_task

Write = Callable[..., Path]
Call = Callable[..., Any]
Patch = pytest.MonkeyPatch


@pytest.fixture
def task(write_task: Write) -> Task:
    return load_task(write_task())


def evaluate(method: Any, task: Any, seeds: Any = (0, 1), **options: Any) -> ht_bench.Result:
    return ht_bench.evaluate(method, task, seeds, progress=False, **options)


def contents(result: ht_bench.Result) -> list[Any]:
    return [without_cost(record) for record in result.records]


def curves(result: ht_bench.Result) -> list[Any]:
    return [record["curve"] for record in result.records]


def settings(result: ht_bench.Result) -> Any:
    return result.records[0]["hyperparameters"]


@dataclass(eq=False)
class Scaling(ht_bench.Method):
    """Halves the weights at a boundary: easily told from `none`."""

    factor: float = 0.5

    def on_phase(self, index: int) -> None:
        for parameter in self.module.parameters():
            parameter.mul_(self.factor)


@pytest.fixture
def method_file(tmp_path: Path) -> Path:
    """A file of the same class."""
    path = tmp_path / "scaling.py"
    imports = "from dataclasses import dataclass\nimport ht_bench\n\n"
    path.write_text(imports + inspect.getsource(Scaling), encoding="utf-8")
    return path


def write_recipe(method: str, tables: str, folder: Path, monkeypatch: Patch) -> None:
    """Write the only recipe there is."""
    head = f'method = "{method}"\nsummary = "s"\nsource = "s"\n'
    (folder / f"{method}.toml").write_text(head + tables)
    monkeypatch.setattr("ht_bench.methods.recipe.folder", lambda name: folder)


# ---- what it takes ----


def test_name_class_and_instance_are_one_method(task: Task) -> None:
    given: dict[str, Any] = {"decay": 0.9, "reset_every": 3}
    named = evaluate("hare-tortoise", task, **given)
    assert (named.method, settings(named)["decay"]) == ("hare-tortoise", 0.9)
    from_class = evaluate(ht_bench.HareTortoise, task, **given)
    instance = ht_bench.HareTortoise(**given)
    assert contents(named) == contents(from_class) == contents(evaluate(instance, task))
    assert not hasattr(instance, "module")  # the user's instance stays unattached
    assert curves(evaluate(instance, task, decay=0.1)) != curves(named)


def test_a_name_takes_its_recipe_and_a_class_its_defaults(
    task: Task, tmp_path: Path, monkeypatch: Patch
) -> None:
    tables = "[default]\nstrength = 0.5\n[tasks.tiny-v1]\nstrength = 0.25"
    write_recipe("l2", tables, tmp_path, monkeypatch)
    assert settings(evaluate("l2", task, [0])) == {"strength": 0.25}
    assert settings(evaluate(ht_bench.L2, task, [0])) == {"strength": ht_bench.L2().strength}
    assert settings(evaluate("l2", task, [0], strength=1.0)) == {"strength": 1.0}


def test_a_class_of_a_file_and_one_of_the_program(task: Task, method_file: Path) -> None:
    named = f"{method_file}:Scaling"
    scaled, none = evaluate(named, task), curves(evaluate("none", task))
    assert scaled.method == "Scaling" and curves(scaled) != none
    assert curves(evaluate(named, task, factor=1.0)) == none
    assert curves(evaluate(Scaling, task)) == curves(scaled)
    assert curves(evaluate(Scaling(factor=1.0), task)) == none


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        ([2**63, -3], (2**63, -3)),
        ("5,1", (5, 1)),
        (np.arange(2), (0, 1)),
        (42, (42,)),
        (None, (100, 101, 102, 103)),
    ],
)
def test_seeds_of_all_kinds(task: Task, given: Any, seeds: tuple[int, ...]) -> None:
    result = evaluate("none", task, given)
    assert result.seeds == seeds
    assert len({json.dumps(curve) for curve in curves(result)}) == len(seeds)


def test_seeds_decide_the_numbers_alone(task: Task) -> None:
    """Order and mates of a seed change nothing beyond rounding; -1 and 2**64 − 1 are two seeds."""
    together, alone = evaluate("none", task, [4, -1, 2**64 - 1]), evaluate("none", task, [-1])
    assert together.curves["test/loss"][1] == pytest.approx(alone.curves["test/loss"][0], rel=1e-4)
    assert curves(together)[1] != curves(together)[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "nonne"}, "Did you mean 'none'"),
        ({"method": int}, "is not a subclass of ht_bench.Method"),
        ({"method": 3}, "is not a subclass of ht_bench.Method"),
        ({"task": "warm-start-digit-v1"}, "Did you mean 'warm-start-digits-v1'"),
        ({"split": "train"}, "choose test or validation"),
        ({"device": "gpu"}, "choose one of auto, cpu, cuda"),
        ({"precision": "fp8"}, "choose one of auto, fp32, tf32, bf16"),
        ({"precision": "tf32", "device": "cpu"}, "a CPU, which has no TF32; use --precision fp32"),
        ({"decya": 1}, "'none' has no hyperparameter 'decya'"),
        ({"seeds": 1.5}, "1.5 is not"),
        ({"seeds": []}, "no seeds were given"),
    ],
)
def test_wrong_arguments(task: Task, arguments: dict[str, Any], sentence: str) -> None:
    given = {"method": "none", "task": task, "seeds": [0], **arguments}
    with pytest.raises(ht_bench.UsageError, match=sentence):
        ht_bench.evaluate(progress=False, **given)


@pytest.mark.parametrize("value", ["fast", None, [0.5], True])
def test_a_value_of_a_wrong_type_is_refused(task: Task, value: Any) -> None:
    with pytest.raises(ht_bench.UsageError, match=r"decay = .*(is not of type float|'auto')"):
        evaluate("hare-tortoise", task, decay=value)


# ---- what it returns ----


def test_result(task: Task, tmp_path: Path) -> None:
    result = evaluate("hare-tortoise", task, "0-3")
    assert result.final.shape == (4,) and result.final.dtype == np.float64
    assert result.final == pytest.approx(result.curves["test/accuracy"][:, -1])
    assert {"test/loss", "train/accuracy", "hare/accuracy"} <= set(result.curves)
    assert result.curves["step"].tolist() == [0, 2, 4, 4, 5, 6]
    assert result.curves["phase"].tolist() == [0, 0, 0, 1, 1, 1]
    assert result.curves["test/accuracy"].shape == (4, 6)
    assert result.diverged.tolist() == [False] * 4
    assert repr(result).startswith("Result(hare-tortoise on tiny-v1, 4 seeds, final 0.")
    assert repr(evaluate("none", task, 7)).startswith("Result(none on tiny-v1, seed 7, 0.")
    assert result.plot(tmp_path / "a" / "curves.png").is_file()
    assert contents(pickle.loads(pickle.dumps(result))) == contents(result)


def test_a_diverged_run_counts_as_guessing(task: Task) -> None:
    @dataclass(eq=False)
    class Exploding(ht_bench.Method):
        def after_step(self) -> None:
            for parameter in self.module.parameters():
                parameter[0] *= float("inf")  # the first seed of the stack

    result = evaluate(Exploding, task)
    assert result.diverged.tolist() == [True, False]
    assert result.final[0] == pytest.approx(0.1)


def test_score_between_anchors(task: Task) -> None:
    warm, fresh = (evaluate(name, task, "0-5") for name in ("none", "full-reset"))
    for record in fresh.records:  # a gap, so that the score means something
        record["curve"]["test/accuracy"][-1] = 0.9
    assert warm.score(warm, fresh).value == pytest.approx(0)
    assert fresh.score(warm, fresh).value == pytest.approx(1)
    part = evaluate("none", task, [3, 4, 77]).score(warm, fresh)  # seed 77 has no anchor
    assert part.value == pytest.approx(0)
    with pytest.raises(ht_bench.UsageError, match="No suite has anchors for tiny-v1"):
        warm.score()


def test_save_lays_out_what_compare_reads(task: Task, tmp_path: Path, call: Call) -> None:
    for method in ("none", "full-reset"):
        result = evaluate(method, task, "0-2")
        assert all(path.is_file() for path in result.save(tmp_path / "runs"))
    saved = sorted(tmp_path.glob("runs/tiny-v1/none-*/seed[0-2]/result.json"))
    again = contents(evaluate("none", task, "0-2", out=tmp_path / "runs"))
    assert [without_cost(json.loads(path.read_text())) for path in saved] == again
    answer = call("compare", tmp_path / "runs")
    assert answer.code == 0 and "n = 3, seeds 0-2" in answer.out


# ---- what it keeps ----


def forbid_training(monkeypatch: Patch) -> None:
    def train(*_: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr("ht_bench.running.executor.run_stack", train)


def test_a_second_call_trains_nothing(task: Task, tmp_path: Path, monkeypatch: Patch) -> None:
    first = evaluate("hare-tortoise", task, out=tmp_path / "runs")
    in_memory = evaluate("hare-tortoise", task)
    forbid_training(monkeypatch)
    second = evaluate("hare-tortoise", task, [1, 0], out=tmp_path / "runs")
    assert second.seeds == (1, 0)
    assert second.records[::-1] == first.records
    assert contents(first) == contents(in_memory)


def test_other_settings_are_other_runs(task: Task, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    for options in ({"decay": 0.5}, {"decay": 0.9}, {"decay": 0.9, "split": "validation"}):
        evaluate("hare-tortoise", task, out=out, **options)
    assert len(list(out.glob("tiny-v1/hare-tortoise-*"))) == 3


def test_an_edited_method_is_trained_again(
    task: Task, tmp_path: Path, method_file: Path, monkeypatch: Patch
) -> None:
    out, named = tmp_path / "runs", f"{method_file}:Scaling"
    first = evaluate(named, task, out=out)
    assert evaluate(named, task, out=out).records == first.records
    source = method_file.read_text(encoding="utf-8")
    method_file.write_text(source.replace("self.factor", "self.factor ** 2"), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"2 result.* were made by other code than .* hold now"):
        edited = evaluate(named, task, out=out)
    assert curves(edited) != curves(first)
    assert edited.records[0]["source_sha256"] != first.records[0]["source_sha256"]
    forbid_training(monkeypatch)
    assert evaluate(named, task, out=out).records == edited.records


# ---- third-party methods and tasks ----


def plant(monkeypatch: Patch, group: str, name: str, value: str) -> None:
    """Make an entry point look installed."""
    points = EntryPoints([EntryPoint(name, value, group)])
    monkeypatch.setattr(registry, "entry_points", points.select)
    for kind in (registry.methods, registry.tasks):
        monkeypatch.setattr(kind, "_searched", False)


@pytest.fixture(params=["entry point", "decorator"])
def scaling(request: Any, method_file: Path, monkeypatch: Patch) -> str:
    """The name of a method that is not the package's."""
    if request.param == "entry point":
        plant(monkeypatch, "ht_bench.methods", "scaling", f"{method_file}:Scaling")
    else:
        ht_bench.register_method("scaling")(loading.load_reference(f"{method_file}:Scaling"))
    return "scaling"


@pytest.fixture(params=["entry point", "decorator", "decorated path", "file"])
def named_task(request: Any, write_task: Write, tmp_path: Path, monkeypatch: Patch) -> str:
    """The name or path of a task that is not the package's."""
    path = write_task()
    if request.param == "file":
        return str(path)
    if request.param == "entry point":
        source = f"from ht_bench.streams.catalog import get_task\ntask = get_task({str(path)!r})\n"
        (tmp_path / "tasks.py").write_text(source)
        plant(monkeypatch, "ht_bench.tasks", "tiny-v1", f"{tmp_path / 'tasks.py'}:task")
    else:
        as_path = request.param == "decorated path"
        ht_bench.register_task("tiny-v1")(lambda: path if as_path else load_task(path))
    return "tiny-v1"


def test_a_third_party_method_everywhere(
    scaling: str, write_task: Write, tmp_path: Path, call: Call, monkeypatch: Patch
) -> None:
    path, runs = write_task(), tmp_path / "runs"
    words = ("run", "--task", path, "--method", f"{scaling},none", "--out", runs, "--jobs", "1")
    assert call(*words).code == 0
    assert "scaling" in call("compare", runs).out and "scaling" in call("list", "methods").out
    assert evaluate(scaling, path, None, out=runs).method == "scaling"
    assert all(f"/{scaling}-" in str(p) for p in runs.glob("*/scaling*/*/result.json"))
    write_recipe("scaling", "[grid]\nfactor = [0.5, 1.0]", tmp_path, monkeypatch)
    tuned = call("tune", "--task", path, "--method", scaling, "--seeds", "0-1", "--jobs", "1")
    assert tuned.code == 0 and "factor = 1.0" in tuned.out


def test_a_third_party_task_everywhere(
    named_task: str, tmp_path: Path, call: Call, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--task", named_task, "--jobs", "1")
    assert call("run", *words, "--method", "none,full-reset").code == 0
    assert call("compare", "runs").out.startswith("tiny-v1 (test split")
    assert len(evaluate("none", named_task, None, out="runs").final) == 4
    write_recipe("l2", "[grid]\nstrength = [0.1]", tmp_path, monkeypatch)
    assert call("tune", *words, "--method", "l2", "--seeds", "0-1").code == 0
    assert named_task != "tiny-v1" or "tiny-v1" in call("list", "tasks").out


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ht_bench.UsageError, match="'none' is taken"):
        ht_bench.register_method("none")(Scaling)


def test_registering_makes_a_dataclass(task: Task) -> None:
    @ht_bench.register_method("plain")
    class Plain(ht_bench.Method):
        strength: float = 2.0

    assert Plain.name == "plain"
    assert Plain(strength=3.0).strength == 3.0  # type: ignore[call-arg]
    assert settings(evaluate("plain", task, [0], strength=1)) == {"strength": 1}
