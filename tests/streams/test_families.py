"""Families: the only list of them, so that a new family is one entry."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.envs import ids
from ht_bench.errors import UsageError
from ht_bench.ranking.comparison import TaskInfo, compare
from ht_bench.records.metrics import describe_metric, final_metric, metric_key
from ht_bench.streams.families import FAMILIES, HALF_OF_ENDS, LAST_CURVE, Family, get_family
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import Task, parse_task

PACKAGE = Path(ht_bench.__file__).parent
BRANCH = re.compile(r"""famil(?:y|ies)\s*(?:==|!=|in|not in)\s*[(\[{]?\s*f?["']""")
"""A family told by its name: `family == "shuffled"`, `family in ("swap", "drift")`."""
DATA = {
    "data": {"name": "digits"},
    "net": {"name": "mlp", "hidden": [4]},
    "optimizer": {"lr": 1e-3},
    "phases": [{"classes": 5, "updates": 4}, {"classes": 5, "updates": 4}],
}
ENVIRONMENTS = {
    "environment": {"id": "CartPole-v1"},
    "agent": {"algorithm": "ppo"},
    "reference": {"random": 20.0},
    "phases": [{"steps": 100}],
}
SORTED = Family("sorted", HALF_OF_ENDS, "trainability", "train/loss", by_class=True, retains=True)
WINDY = Family("windy", LAST_CURVE, "control", "eval/return", retains=True)


def parse(family: str, table: dict[str, Any]) -> Any:
    return parse_task({"name": "t-v1", "family": family, **table}, "t.toml")


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for family in (SORTED, WINDY):
        monkeypatch.setitem(FAMILIES, family.name, family)


@pytest.mark.usefixtures("_registered")
def test_a_new_family_of_data_is_one_entry(make_record: Any) -> None:
    task = parse("sorted", DATA)
    assert isinstance(task, Task) and task.retains
    with pytest.raises(UsageError, match="the family 'class-incremental' or 'sorted', and only"):
        parse("warm-start", DATA)
    assert metric_key("sorted") == "train/loss"
    described = "train loss, mean over the ends of the second half of the phases"
    assert describe_metric("sorted") == described
    record = make_record([[0.1, 0.3], [0.5], [0.9]])
    record["curve"]["train/loss"] = [4.0, 3.0, 2.0, 1.0]
    assert final_metric(record, "sorted", 10) == 1.5


@pytest.mark.usefixtures("_registered")
def test_a_new_family_of_environments_is_one_entry(
    make_record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = parse("windy", ENVIRONMENTS)
    assert isinstance(task, ReinforcementTask) and task.retains
    assert describe_metric("windy") == "evaluation return, mean over the last phase's curve"
    record = make_record([[0.0, 1.0], [0.0, 5.0]])
    record["curve"]["eval/return"] = record["curve"]["test/accuracy"]
    assert final_metric(record, "windy", 0) == 2.5  # the phase has a point at its start
    (tmp_path / "gusts-v1.toml").write_text('family = "windy"\n', encoding="utf-8")
    monkeypatch.setattr(ids, "folder", lambda name: tmp_path)
    monkeypatch.setattr(ids, "registry", registered := {})
    monkeypatch.setattr(ids, "register", lambda name, **rest: registered.update({name: rest}))
    ids.register_all()
    assert registered["ht_bench/Gusts-v1"]["entry_point"] == ids.ENVIRONMENTS[0]


@pytest.mark.usefixtures("_registered")
def test_a_new_family_is_scored_with_those_of_its_kind(make_record: Any) -> None:
    records, tasks = [], {}
    for name, family in {"a-v1": "sorted", "b-v1": "shuffled", "c-v1": "permuted"}.items():
        tasks[name] = TaskInfo(name, family, 10, tuple(range(100, 105)))
        for seed, method in itertools.product(range(100, 105), ("none", "full-reset")):
            values = [(0.5 if method == "none" else 0.9) - 0.01 * (seed % 3)] * 2
            record = make_record([values, values], method, seed, task=name)
            record["curve"]["train/loss"] = record["curve"]["test/accuracy"]
            records.append(record)
    suites = {t.name: t.tasks for t in compare(records, tasks).tables if t.is_suite}
    assert suites == {"all tasks, trainability": ("a-v1", "b-v1")}


def test_an_unknown_family_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"Unknown family 'permutd'. Did you mean 'permuted'"):
        get_family("permutd")


def test_no_other_place_tells_families_by_their_names() -> None:
    own = {PACKAGE / "streams" / "families.py", PACKAGE / "doctor" / "golden.py"}  # a task's text
    others = [path for path in PACKAGE.rglob("*.py") if path not in own]
    assert not [str(path) for path in others if BRANCH.search(path.read_text(encoding="utf-8"))]
    for name in set(FAMILIES) - {"permuted"}:  # which is also said of inputs and labels
        quoted = f'"{name}"'
        assert not [str(p) for p in others if quoted in p.read_text(encoding="utf-8")], name


@pytest.mark.parametrize(
    "text", ['if task.family == "shuffled":', 'info.family in ("a",)', 'family not in ["a"]']
)
def test_a_branch_on_a_name_would_be_seen(text: str) -> None:
    assert BRANCH.search(text)
