"""Tasks: every shipped file is as the protocol says; the hash; sentences for malformed files."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.stream import phase_steps
from ht_bench.streams.task import Task, load_task, parse_task

TABLE: dict[str, Any] = {
    "name": "t-v1",
    "family": "warm-start",
    "data": {"name": "digits", "train": 100},
    "net": {"name": "mlp", "hidden": [8]},
    "optimizer": {"lr": 1e-3},
    "training": {"batch": 16, "stack": 2},
    "phases": [{"new": 0.5, "wrong": 0.5, "updates": 5}, {"new": 0.5, "epochs": 2}],
}
WRONG = [0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0]
IMAGES = {"cifar10": (1e-3, 1e-3), "cifar100": (3e-3, 0.05), "tiny-imagenet": (1e-3, 1e-3)}


def changed(**values: Any) -> dict[str, Any]:
    table = copy.deepcopy(TABLE)
    for key, value in values.items():
        section, _, inner = key.partition("__")
        if inner:
            table[section][inner] = value
        else:
            table[section] = value
    return table


@pytest.mark.parametrize("name", list(task_files()))
def test_shipped_files_parse_and_say_what_they_are(name: str) -> None:
    task = load_task(task_files()[name])
    assert task.name == name
    assert task.title
    assert task.description
    assert task.source


@pytest.mark.parametrize("data", list(IMAGES))
@pytest.mark.parametrize("kind", ["warm-start", "warm-start-aug", "continual"])
def test_published_tasks_have_the_published_settings(kind: str, data: str) -> None:
    task = get_task(f"{kind}-{data}-v1")
    rate, decay = IMAGES[data]
    optimizer = task.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", rate, decay)
    assert (optimizer.betas, optimizer.clip, optimizer.warmup) == ((0.9, 0.999), 0.5, 0.1)
    assert task.training.batch == 256
    assert task.net["name"] == {"cifar10": "resnet18", "cifar100": "vit"}.get(data, "vgg16")
    assert {phase.augment for phase in task.phases} == {kind != "warm-start"}
    if kind == "continual":
        assert [phase.wrong for phase in task.phases] == WRONG
        assert {(phase.new, phase.keep, phase.epochs) for phase in task.phases} == {(0.1, 1, 100)}
    else:
        found = [(phase.new, phase.wrong, phase.epochs) for phase in task.phases]
        assert found == [(0.1, 0.5, 1000), (0.9, 0.0, 111)]


def test_cifar10_takes_the_published_number_of_steps() -> None:
    phases = get_task("warm-start-cifar10-v1").phases
    steps = [phase_steps(p, n, 256)[0] for p, n in zip(phases, (5_000, 50_000), strict=True)]
    assert steps == [20_000, 21_756]


def test_mnist_is_the_papers_perceptron() -> None:
    task = get_task("warm-start-mnist-v1")
    assert dict(task.net) == {"name": "mlp", "hidden": [512, 256], "linear_norm": "batch"}
    assert (task.optimizer.lr, task.optimizer.weight_decay) == (1e-3, 1e-4)


def test_the_hash_leaves_descriptions_and_defaults_out() -> None:
    task = parse_task(TABLE, "t")
    described = changed(
        title="a", description="b", source="c", status="draft", superseded_by="d-v2",
        minutes_per_stack=3.0, tolerance=0.02, optimizer__betas=[0.9, 0.999], training__points=10,
    )  # fmt: skip
    described["phases"][0]["keep"] = 1.0
    assert parse_task(described, "t").sha256 == task.sha256


@pytest.mark.parametrize(
    "values",
    [
        {"name": "other-v1"},
        {"family": "continual"},
        {"seeds": "100-118"},
        {"data__train": 101},
        {"net__hidden": [9]},
        {"optimizer__lr": 2e-3},
        {"optimizer__clip": 0.5},
        {"training__stack": 3},
        {"tolerance": 0.01},
        {"phases": [{"new": 0.5, "wrong": 0.4, "updates": 5}, {"new": 0.5, "epochs": 2}]},
    ],
)
def test_the_hash_holds_everything_else(values: dict[str, Any]) -> None:
    assert parse_task(changed(**values), "t").sha256 != parse_task(TABLE, "t").sha256


def test_the_spec_written_beside_runs_reads_back() -> None:
    for name in task_files():
        task = get_task(name)
        assert parse_task(task.canonical(), "task.json").sha256 == task.sha256


def test_repeat_is_shorthand() -> None:
    phases = [{"new": 1.0, "updates": 1}, {"repeat": 3, "inputs": "permuted", "updates": 1}]
    task = parse_task(changed(family="permuted", phases=phases), "t")
    assert len(task.phases) == 4
    assert task.phases[1] == task.phases[3]


PHASE = {"new": 0.5, "updates": 5}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"optimiser": {"lr": 1}}, "f.toml: unknown key 'optimiser'. Did you mean 'optimizer'"),
        ({"optimizer__learning": 1.0}, r"f.toml \[optimizer\]: unknown key 'learning'"),
        ({"optimizer": {}}, "the key 'lr' is missing"),
        ({"optimizer__lr": "fast"}, "'lr' is 'fast'; it must be of type float"),
        ({"optimizer__lr": -1.0}, "'optimizer.lr' is -1.0; it must be above zero"),
        ({"optimizer__name": "adam2"}, "'name' is 'adam2'; it must be one of 'adamw'"),
        ({"optimizer__betas": [0.9]}, "'betas' has 1 values; it must have 2"),
        ({"training__batch": 0}, "'training.batch' is 0"),
        ({"training__stack": True}, "'stack' is True; it must be of type int"),
        ({"family": "warm"}, "'family' is 'warm'"),
        ({"data": "digits"}, r"'data' must be a table; write \[data\]"),
        ({"net": {"hidden": [8]}}, r"\[net\]: the key 'name' is missing"),
        ({"net": {"name": "cnn"}}, "only the 'mlp' network stacks seeds"),
        ({"seeds": "x"}, "'x' is not a seed"),
        ({"phases": []}, r"at least one \[\[phases\]\]"),
        ({"phases": {"new": 1.0}}, "'phases' must be tables"),
        ({"phases": [PHASE, {"new": 0.6, "updates": 5}]}, "add up to 1.1"),
        ({"phases": [{**PHASE, "wrong": 1.5}]}, "'wrong' is 1.5; a fraction lies between"),
        ({"phases": [{**PHASE, "keep": -0.1}]}, "'keep' is -0.1"),
        ({"phases": [{**PHASE, "epochs": 3}]}, "give one budget"),
        ({"phases": [{"new": 0.5}]}, "give one budget"),
        ({"phases": [{"new": 0.5, "updates": 0}]}, "the budget must be at least 1"),
        ({"phases": [{**PHASE, "classes": 3}]}, "'classes' belongs to the family"),
        ({"phases": [{**PHASE, "repeat": 0}]}, "'repeat' is 0"),
        ({"phases": [{**PHASE, "nwe": 1}]}, r"\[\[phases\]\] 1: unknown key 'nwe'"),
        ({"phases": [{"updates": 5}]}, "'new' must be above 0 in the first phase"),
    ],
)
def test_a_malformed_task_gets_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_task(changed(**values), "f.toml")


@pytest.mark.parametrize("key", ["name", "family", "data", "net", "optimizer"])
def test_a_missing_key_is_named(key: str) -> None:
    table = changed()
    del table[key]
    with pytest.raises(UsageError, match=f"'{key}' is missing"):
        parse_task(table, "f.toml")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken\.toml is not valid TOML"):
        load_task(path)
    with pytest.raises(UsageError, match=r"absent\.toml: No such file"):
        load_task(tmp_path / "absent.toml")


def test_tasks_are_frozen() -> None:
    task: Task = parse_task(TABLE, "t")
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "other"  # type: ignore[misc]
