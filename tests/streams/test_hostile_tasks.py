"""Mutated task files: a task that runs, or a sentence; never a traceback, never all the memory.

What is accepted and small is planned and trained for a few steps. `pytest --evidence` mutates
10,000 of data and 10,000 of agents.
"""

from __future__ import annotations

import contextlib
import datetime
import random
import resource
import tomllib
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task
from ht_bench.streams.reinforcement import ReinforcementTask, parse_reinforcement
from ht_bench.streams.tables import read_toml
from ht_bench.streams.task import AnyTask, parse_task

from .task_mutations import mutate

DATA = """\
name = "tiny-v1"
family = "continual"
seeds = "100-101"
data = { name = "digits", train = 60 }
net = { name = "mlp", hidden = [4], activation = "relu", linear_norm = "layer" }
optimizer = { lr = 1e-2, clip = 0.5, betas = [0.9, 0.999], warmup = 0.1, weight_decay = 0.01 }
training = { batch = 16, stack = 2, points = 2 }
[[phases]]
new = 0.5
wrong = 0.5
updates = 4
[[phases]]
new = 0.5
keep = 0.5
epochs = 1
repeat = 1
"""
AGENT = """\
name = "tiny-v1"
family = "drift"
seeds = "100"
environment = { id = "CartPole-v1", copies = 1 }
evaluation = { episodes = 1, points = 2 }
reference = { random = 20.0, human = 100.0 }
[agent]
algorithm = "dqn"
replay_ratio = 0.25
settings = { learning_rate = 1e-3, batch_size = 4, buffer_size = 64, train_freq = 4, gamma = 0.9 }
network = { net_arch = [4, 4], activation_fn = "tanh" }
[[phases]]
steps = 16
[[phases]]
steps = 16
physics = { gravity = 5.0 }
"""
MEMORY = 3 * 2**30
"""Bytes of address space that a mutated task may add."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Let no task take more memory than MEMORY."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (size * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def is_small(task: AnyTask) -> bool:
    if isinstance(task, ReinforcementTask):
        work = task.steps + task.evaluation.episodes * task.evaluation.points * len(task.phases)
        return work < 200 and task.environment.copies < 5
    budgets = [(phase.epochs or 0) * 90 + (phase.updates or 0) for phase in task.phases]
    return sum(budgets) < 300 and task.training.points * len(task.phases) < 50 and task.stack < 20


def run(table: dict[str, Any]) -> str:
    """Parse, and where it is small train; returns what came of it."""
    try:
        task = get_task(parse_task(table, "tiny.toml"))
        assert len(task.sha256) == 64
        if not is_small(task) or getattr(getattr(task, "data", 0), "name", "digits") != "digits":
            return "large"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ht_bench.evaluate("none", task, task.seeds[:1], progress=False)
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 1_000  # noqa: PT017
        assert "failed on" not in str(error), error  # noqa: PT017
        return "refused"
    return "trained"


@pytest.fixture(scope="module")
def _loaded() -> None:
    """Import what a run imports, before its memory is measured."""
    ht_bench.evaluate("none", parse_task(tomllib.loads(DATA), "tiny.toml"), 100, progress=False)


HALF = {"new": 0.5, "updates": 4}


@pytest.mark.usefixtures("_loaded")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"net": {"name": "mlp", "hidden": [10**15]}}, "have 74,000,.* weights; at most"),
        ({"net": {"name": "mlp", "hidden": [10**18]}}, r"'net\.hidden\[0\]' is 1e\+18; at most"),
        ({"net": {"name": "mlp", "hidden": [4] * 2_000}}, "has 2000 layers; at most 1000"),
        (
            {"net": {"name": "mlp", "hidden": datetime.date(1979, 5, 27)}},
            "'net.hidden' is the date",
        ),
        (
            {"net": {"name": "mlp", "activation": float("nan")}},
            "'net.activation' is nan; .* finite numbers",
        ),
        ({"title": datetime.time(7, 32)}, "'title' is the date or time 07:32:00; quote it"),
        ({"phases": [{**HALF, "repeat": 10**12}]}, r"at most 10,000 \[\[phases\]\] are read"),
        ({"phases": [{**HALF, "updates": 10**12}]}, "the budget may be 1,000,000,000 at most"),
        ({"training": {"stack": 10**6}}, "'training.stack' is 1e.06; at most 1,000"),
        ({"training": {"points": 10**9}}, "'training.points' is 1e.09; at most"),
        ({"seeds": "0-99999," * 30 + "1"}, "more than 1,000,000 seeds"),
        ({"seeds": "1" * 5_000}, r"'1+ … \(5,002 characters\) is not a seed"),
        ({"name": "a" * 101}, "at most 100, and begin"),
    ],
)
def test_sizes_are_bounded_before_anything_is_allocated(
    changes: dict[str, Any], sentence: str
) -> None:
    table = {**tomllib.loads(DATA), **changes}
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=sentence):
            ht_bench.evaluate("none", parse_task(table, "tiny.toml"), 100, progress=False)
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


def test_a_stack_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = parse_task(tomllib.loads(DATA), "tiny.toml")
    monkeypatch.setattr("ht_bench.streams.stream.MOST_FLOATS", 2 * 1_000 * 64 - 1)
    with pytest.raises(UsageError, match="take 128,000 numbers at once, .* lower 'stack' or 'bat"):
        ht_bench.evaluate("none", task, 100, progress=False)


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [
        ({"replay_ratio": -1.0}, "'replay_ratio' is -1.0"),
        ({"settings": {"buffer_size": 10**12}}, "'buffer_size' is 10+; at most 100,000,000"),
        ({"settings": {"n_steps": "x"}}, "'n_steps' is 'x'; it must be a whole number"),
        ({"settings": {"train_freq": 0}}, "'train_freq' is 0; it must be a whole number"),
        ({"settings": {"batch_size": 0}}, "'batch_size' is 0"),
        ({"settings": {"action_noise": {"size": "x"}}}, "write { size = 1, normal = 0.1 }"),
        ({"network": {"net_arch": [10**6]}}, "a layer may have 65,536 units"),
        ({"network": {"net_arch": {"pi": [60_000, 60_000]}}}, "'pi' is .*268,435,456 weights"),
        ({"network": {"activation_fn": ["tanh"]}}, "there is no activation"),
    ],
)
def test_settings_of_agents_are_looked_at_first(agent: dict[str, Any], sentence: str) -> None:
    table = tomllib.loads(AGENT)
    table["agent"] |= {"replay_ratio": 0.25, **agent}
    with pytest.raises(UsageError, match=sentence):
        ht_bench.evaluate("none", parse_task(table, "tiny.toml"), 100, progress=False)


def test_physics_that_are_no_number_are_refused() -> None:
    table = tomllib.loads(AGENT)
    table["phases"][1]["physics"]["gravity"] = "heavy"
    with pytest.raises(UsageError, match=r"\(phase 1\): 'physics.gravity' is 'heavy'; .* number"):
        parse_task(table, "tiny.toml")


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_network_without_a_hidden_layer_is_diagnosed(name: str) -> None:
    net = {"name": name, "hidden": []} | ({"channels": []} if name == "cnn" else {})
    training = {"batch": 16, "stack": 2 if name == "mlp" else 1}
    task = parse_task({**tomllib.loads(DATA), "net": net, "training": training}, "tiny.toml")
    [record] = ht_bench.evaluate("none", task, 100, progress=False).records
    assert record["status"] == "finished"
    assert set(record["diagnostics"]["plasticity/dormant_fraction"]) == {0.0}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"name = " + b"1" * 5_000, "is not valid TOML"),
        (b"a = " + b"[" * 50_000, "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"method = 1979-05-27", "'method' is the date"),
        (b"x" * (2**22 + 1), "is no file of at most"),
        # The parser's time and memory grow by the square of a key's parts: minutes, gigabytes.
        (b"a" + b".a" * 100_000 + b" = 1", "a key of more than 32 parts"),
        (b"x = { a" + b' . "=" ' * 100_000 + b" = 1 }", "a key of more than 32 parts"),
        (b"a = " + b"[" * 40 + b"]" * 40, "is nested more than 32 deep"),
        (b'"' + b"k" * 300 + b'" = 1', "is no key here"),
        (b'"\\u001b[2J" = 1', "is no key here"),
        (None, "is no file of at most"),
    ],
)
def test_any_toml_file_that_cannot_be_read_is_named(
    content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    """Of recipes, suites and locks too: one reader."""
    file = tmp_path / "l2.toml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=rf"l2\.toml.* {sentence}") as caught:
        read_toml(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_prose_and_numbers_with_many_points_are_no_long_keys(tmp_path: Path) -> None:
    file = tmp_path / "l2.toml"
    many = ", ".join(["0.5"] * 100)
    file.write_text(f'a = [{many}] # {"a.b" * 99}\nb = "{"a.b" * 99}"\n', encoding="utf-8")
    assert len(read_toml(file)["a"]) == 100


@pytest.mark.parametrize("kind", ["data", "agents"])
@pytest.mark.parametrize("files", [75, pytest.param(10_000, marks=pytest.mark.evidence)])
def test_mutated_task_files(files: int, kind: str) -> None:
    table = tomllib.loads(DATA if kind == "data" else AGENT)
    assert run(table) == "trained"
    draw, met = random.Random(kind), dict.fromkeys(("trained", "refused", "large"), 0)
    with bounded():
        for _ in range(files):
            mutated = mutate(table, draw)
            try:
                met[run(mutated)] += 1
            except Exception as error:
                raise AssertionError(f"{str(mutated)[:3_000]} raises {error!r:.500}") from error
    assert met["trained"] > files / 20 and met["refused"] > files / 4


@pytest.mark.parametrize("widths", [[4, 0], [0], [-3]])
def test_an_agents_layer_has_units(widths: list[int]) -> None:
    table = {
        "name": "tiny-v1",
        "family": "swap",
        "seeds": "100",
        "environment": {"id": "CartPole-v1"},
        "agent": {"algorithm": "dqn", "network": {"net_arch": widths}},
        "reference": {"random": 20.0},
        "phases": [{"steps": 16}, {"steps": 16}],
    }
    with pytest.raises(UsageError, match="'net_arch' is .*; a layer has 1 unit or more"):
        parse_reinforcement(table, "tiny")
