"""Tasks: every shipped file is as the protocol says; the hash; sentences for malformed files."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.stream import phase_steps
from ht_bench.streams.task import Phase, Task, load_task, parse_task

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
        phases = [(phase.new, phase.wrong, phase.epochs) for phase in task.phases]
        assert phases == [(0.1, 0.5, 1000), (0.9, 0.0, 111)]


def test_cifar10_takes_the_published_number_of_steps() -> None:
    phases = get_task("warm-start-cifar10-v1").phases
    steps = [phase_steps(p, n, 256)[0] for p, n in zip(phases, (5_000, 50_000), strict=True)]
    assert steps == [20_000, 21_756]


@pytest.mark.parametrize("name", list(task_files()))
def test_every_task_is_within_the_protocol(name: str) -> None:
    task = load_task(task_files()[name])
    assert task.name == name and task.title and task.description and task.source
    assert parse_task(task.canonical(), "task.json").sha256 == task.sha256  # as beside runs
    assert min(task.seeds) >= 100  # below are for tuning
    if isinstance(task, ReinforcementTask):
        return  # tests/streams/test_reinforcement.py
    assert task.optimizer.warmup == 0.1
    abilities = {"noisy": "warm-start", "gradual": "permuted", "clean": "warm-start-clean"}
    ability = abilities.get(name.partition("-")[0])
    assert task.family in name or name.startswith("warm-start") or task.family == ability
    first, *later = task.phases
    wrong = {phase.wrong for phase in task.phases}
    if task.family == "warm-start":
        assert first.wrong in (0.5, 0.8) and {phase.wrong for phase in later} == {0.0}
        assert sum(phase.new for phase in task.phases) == pytest.approx(1)
    if task.family == "continual":
        expected = [0.5, 0.4, 0.3, 0.2, 0.0] if "narrow" in name else WRONG
        assert [phase.wrong for phase in task.phases] == expected
    if task.family in ("warm-start-clean", "class-incremental", "permuted", "shuffled"):
        assert wrong == {0.0}
    if task.family == "probe":
        assert [phase.labels == "random" for phase in task.phases[-2:]] == [False, True]
        return
    permuted = [phase.inputs == "permuted" for phase in task.phases]
    if name.startswith("clean-other"):  # other data first
        assert permuted == [True, False]
    else:
        assert set(permuted) == {task.family == "permuted"}
    assert {phase.labels == "random" for phase in task.phases} == {task.family == "shuffled"}
    assert {phase.keep for phase in task.phases} == {1.0}


@pytest.mark.parametrize(
    ("examples", "batch", "expected"), [(256, 256, 1), (257, 256, 2), (1, 256, 1), (512, 256, 2)]
)
def test_partial_batches_are_kept(examples: int, batch: int, expected: int) -> None:
    assert phase_steps(Phase(epochs=3), examples, batch) == (3 * expected, expected)
    assert phase_steps(Phase(updates=7), examples, batch) == (7, expected)


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
        *({"name": "other-v1"}, {"family": "continual"}, {"seeds": "100-118"}),
        *({"data__train": 101}, {"net__hidden": [9]}, {"optimizer__lr": 2e-3}),
        *({"optimizer__clip": 0.5}, {"training__stack": 3}, {"tolerance": 0.01}),
        {"phases": [{"new": 0.5, "wrong": 0.4, "updates": 5}, {"new": 0.5, "epochs": 2}]},
    ],
)
def test_the_hash_holds_everything_else(values: dict[str, Any]) -> None:
    assert parse_task(changed(**values), "t").sha256 != parse_task(TABLE, "t").sha256


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
        ({"optimizer__lr": float("nan")}, "'optimizer.lr' is nan; it must be above zero"),
        ({"optimizer__lr": float("inf")}, "'optimizer.lr' is inf; .* above zero and finite"),
        ({"optimizer__weight_decay": -1.0}, "'optimizer.weight_decay' is -1.0; it must be finite"),
        ({"optimizer__clip": 0.0}, "'optimizer.clip' is 0.0; it must be above zero"),
        ({"optimizer__warmup": 1.5}, "'optimizer.warmup' is 1.5; it is a share"),
        ({"optimizer__warmup": -0.1}, "'optimizer.warmup' is -0.1; it is a share"),
        ({"optimizer__betas": [0.9, 1.0]}, r"'optimizer.betas' is \[0.9, 1.0\]; each must be"),
        ({"tolerance": float("nan")}, "'tolerance' is nan; it must be finite"),
        ({"name": "../elsewhere"}, "the name '../elsewhere' must be of letters"),
        ({"name": ""}, "the name '' must be of letters"),
        ({"name": "a|b"}, "the name 'a|b' must be of letters"),
        ({"optimizer__name": "adam2"}, "'name' is 'adam2'; it must be one of 'adamw'"),
        ({"optimizer__betas": [0.9]}, "'betas' has 1 values; it must have 2"),
        ({"training__batch": 0}, "'training.batch' is 0"),
        ({"training__stack": True}, "'stack' is True; it must be of type int"),
        ({"family": "warm"}, "'family' is 'warm'"),
        ({"data": "digits"}, r"'data' must be a table; write \[data\]"),
        ({"net": {"hidden": [8]}}, r"\[net\]: the key 'name' is missing"),
        ({"net": {"name": "vit"}}, "the network 'vit' does not stack seeds; set stack = 1"),
        ({"net": {"name": "mpl"}}, "Did you mean 'mlp'"),
        ({"net": {"name": "mlp", "hiden": [8]}}, "unknown key 'hiden' .* Did you mean 'hidden'"),
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
        ({"phases": [{**PHASE, "repeat": True}]}, "'repeat' is True"),
        ({"phases": [{**PHASE, "repeat": 3}]}, "add up to 1.5"),
        ({"phases": [{**PHASE, "epochs": 1.5}]}, "'epochs' is 1.5; it must be of type int"),
        ({"phases": [{**PHASE, "wrong": float("nan")}]}, "'wrong' is nan; a fraction lies"),
        ({"phases": [{**PHASE, "labels": "random", "wrong": 0.5}]}, "nothing among random labels"),
        ({"phases": [{**PHASE, "inputs": "x"}]}, "'inputs' is 'x'; it must be one of"),
        ({"family": "class-incremental", "phases": [PHASE]}, "'classes' belongs to the family"),
        ({"family": "class-incremental", "phases": [{"classes": 0, "updates": 5}]}, "1 or more"),
        ({"family": "class-incremental", "phases": [{**PHASE, "classes": 2}]}, "'new' is not for"),
        ({"phases": [{**PHASE, "nwe": 1}]}, r"\[\[phases\]\] 1: unknown key 'nwe'"),
        ({"phases": [{"updates": 5}]}, "'new' must be above 0 in the first phase"),
    ],
)
def test_a_malformed_task_gets_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_task(changed(**values), "f.toml")


def test_a_malformed_file_is_named_as_it_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = task_files()["warm-start-digits-v1"].read_text(encoding="utf-8")
    path.write_text(text.replace("weight_decay", "weight_decai"), encoding="utf-8")
    with pytest.raises(UsageError, match="Did you mean 'weight_decay'") as caught:
        load_task(path)
    assert str(caught.value).startswith(f"{path} [optimizer]: unknown key 'weight_decai'.")
    for content in (b'name = "\xff"', b"name = "):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"mine\.toml is not valid TOML"):
            load_task(path)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # a byte order mark, as some editors write
    assert load_task(path).sha256 == get_task("warm-start-digits-v1").sha256
    with pytest.raises(UsageError, match=r"absent\.toml: No such file"):
        load_task(tmp_path / "absent.toml")


@pytest.mark.parametrize("key", ["name", "family", "data", "net", "optimizer"])
def test_a_missing_key_is_named(key: str) -> None:
    table = changed()
    del table[key]
    with pytest.raises(UsageError, match=f"'{key}' is missing"):
        parse_task(table, "f.toml")


def test_tasks_are_frozen() -> None:
    task: Task = parse_task(TABLE, "t")
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "other"  # type: ignore[misc]
