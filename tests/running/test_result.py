"""Result: finals, curves and scores of one method on one task, and what they are saved as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.records.record import read_record
from ht_bench.records.runs import read_spec
from ht_bench.running import result as module
from ht_bench.running.result import Result
from ht_bench.streams.suite import Anchors, Suite
from ht_bench.streams.task import Task, parse_task
from ht_bench.version import EPOCH

Make = Callable[..., dict[str, Any]]
MakeResult = Callable[..., Result]
Patch = pytest.MonkeyPatch
PHASES = [{"new": 0.5, "updates": 10}, {"new": 0.5, "updates": 10}]


def make_task(family: str = "warm-start") -> Task:
    table = {
        "name": "digits-v1",
        "family": family,
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [8]},
        "optimizer": {"lr": 1e-2},
        "phases": PHASES,
    }
    return parse_task(table, "digits-v1.toml")


@pytest.fixture
def make_result(make_record: Make) -> MakeResult:
    """Return make_result(finals by seed, method="none", family="warm-start", **record)."""

    def make(
        finals: dict[int, float], method: str = "none", family: str = "warm-start", **changes: Any
    ) -> Result:
        task = make_task(family)
        changes = {"task_sha256": task.sha256} | changes
        curves = {seed: [[0.1, 0.5], [final]] for seed, final in finals.items()}
        return Result(task, [make_record(c, method, s, **changes) for s, c in curves.items()])

    return make


def test_finals_and_seeds_keep_their_order(make_result: MakeResult) -> None:
    result = make_result({7: 0.25, -1: 0.75})
    assert (result.method, result.seeds) == ("none", (7, -1))
    assert result.final.dtype == np.float64
    assert result.final.tolist() == [0.25, 0.75]
    assert not result.diverged.any()


def test_finals_of_a_trainability_task_are_of_training(make_result: MakeResult) -> None:
    assert make_result({7: 0.5}, family="shuffled").final.tolist() == [0.25]


def test_a_diverged_seed_counts_as_guessing(make_result: MakeResult) -> None:
    result = make_result({7: 0.25}, status="diverged")
    assert result.final.tolist() == [0.1] and result.diverged.tolist() == [True]


def test_curves_are_arrays_of_seeds_and_points(make_result: MakeResult) -> None:
    result = make_result({7: 0.25, 8: 0.75})
    result.records[1]["curve"]["train/accuracy"][0] = None
    curves = result.curves
    assert curves["phase"].tolist() == [0, 0, 1] and curves["step"].tolist() == [0, 10, 20]
    assert curves["test/accuracy"].tolist() == [[0.1, 0.5, 0.25], [0.1, 0.5, 0.75]]
    assert np.isnan(curves["train/accuracy"][1, 0])


def test_the_score_is_paired_by_seed(make_result: MakeResult) -> None:
    own = make_result({1: 0.5, 2: 0.7, 3: 0.9}, "l2")
    warm = make_result({9: 0.0, 2: 0.4, 1: 0.3})
    fresh = make_result({1: 0.7, 2: 0.8, 3: 0.8}, "full-reset")
    # Seeds 1 and 2: own 0.6, warm 0.35, fresh 0.75.
    assert own.score(warm, fresh).value == pytest.approx((0.6 - 0.35) / (0.75 - 0.35))
    turned = make_result({3: 0.8, 2: 0.8, 1: 0.7}, "l2").score(warm, fresh)
    assert (turned.value, turned.low, turned.high) == pytest.approx((1, 1, 1))
    assert warm.score(warm, fresh).value == pytest.approx(0)


def test_no_common_seed_is_refused(make_result: MakeResult) -> None:
    own, other = make_result({1: 0.5}), make_result({2: 0.5})
    with pytest.raises(UsageError, match="No seed of this result has anchors on digits-v1"):
        own.score(other, other)


def freeze(monkeypatch: Patch, task: Task, benchmark: str = EPOCH, **changes: Any) -> None:
    """Ship one suite that holds anchors of `task` for the seeds 1 and 2."""
    table = {
        "task_sha256": task.sha256,
        "data_sha256": "b" * 64,
        "seeds": "1-2",
        "none": (0.3, 0.4),
        "full_reset": (0.7, 0.8),
    }
    anchors = {task.name: Anchors(**{**table, **changes})}
    suite = Suite("suite-x-v1", "x", (task.name,), benchmark, anchors=anchors)
    monkeypatch.setattr(module, "known_suites", lambda: {"suite-x-v1": suite})


def test_frozen_anchors_serve_where_none_are_passed(
    make_result: MakeResult, monkeypatch: Patch
) -> None:
    own = make_result({2: 0.7, 1: 0.5, 3: 0.0}, "l2")
    freeze(monkeypatch, own.task)
    assert own.score().value == pytest.approx((0.6 - 0.35) / (0.75 - 0.35))


@pytest.mark.parametrize(
    ("changes", "split"),
    [({"task_sha256": "other"}, "test"), ({"data_sha256": "other"}, "test"), ({}, "validation")],
)
def test_anchors_of_another_task_data_or_split_do_not_serve(
    make_result: MakeResult, monkeypatch: Patch, changes: dict[str, str], split: str
) -> None:
    own = make_result({1: 0.5}, split=split)
    freeze(monkeypatch, own.task, **changes)
    with pytest.raises(UsageError, match="No suite has anchors for digits-v1 as it is here"):
        own.score()


def test_a_device_is_a_kind_of_device_whatever_its_number(
    make_result: MakeResult, monkeypatch: Patch
) -> None:
    own = make_result({2: 0.7, 1: 0.5}, "l2", device="cuda:1", precision="tf32")
    freeze(monkeypatch, own.task, device="cuda", precision="tf32")
    assert own.score().value == pytest.approx((0.6 - 0.35) / (0.75 - 0.35))


def test_anchors_of_another_epoch_do_not_serve_and_say_so(
    make_result: MakeResult, monkeypatch: Patch
) -> None:
    own = make_result({1: 0.5, 2: 0.7}, "l2")
    freeze(monkeypatch, own.task, benchmark="0.1")
    said = f"suite-x-v1's anchors of digits-v1 are of ht-bench 0.1, .* this result is of {EPOCH}, "
    with pytest.raises(UsageError, match=said):
        own.score()
    for record in own.records:
        record["benchmark"] = "0.1"
    assert own.score().value == pytest.approx((0.6 - 0.35) / (0.75 - 0.35))


def test_a_plot_is_two_files(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result({7: 0.25, 8: 0.75})
    path = result.plot(tmp_path / "curves.png")
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert result.plot(tmp_path / "train", key="train/accuracy").is_file()


def test_saved_records_are_read_back_with_their_task(
    make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make_result({7: 0.25, 8: 0.75}, hyperparameters={"a": 1})
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    written = result.save(f"~/{tmp_path.name}")
    assert [path.parent.name for path in written] == ["seed7", "seed8"]
    assert [read_record(path) for path in written] == result.records
    assert read_spec(tmp_path, "digits-v1").sha256 == result.task.sha256


@pytest.mark.parametrize("finals", [{7: 0.25}, {7: 0.25, 8: 0.75}])
def test_it_says_what_it_is(make_result: MakeResult, finals: dict[int, float]) -> None:
    text = repr(make_result(finals))
    assert text.startswith("Result(none on digits-v1, ") and "nan" not in text
    assert f"{np.mean(list(finals.values())):.4f}" in text


def test_a_score_needs_both_anchors_run_alike(make_result: MakeResult) -> None:
    own, warm = make_result({1: 0.6, 2: 0.7}), make_result({1: 0.3, 2: 0.4}, "none")
    fresh = make_result({1: 0.7, 2: 0.8}, "full-reset")
    for given in ({"warm": warm}, {"fresh": fresh}):
        with pytest.raises(UsageError, match="is given; pass .* too, or neither"):
            own.score(**given)
    changes = {"precision": "bf16", "device": "cuda", "task_sha256": "f" * 64, "benchmark": "0.1"}
    for key, value in changes.items():
        other = make_result({1: 0.7, 2: 0.8}, "full-reset")
        for record in other.records:
            record[key] = value
        said = f"its {'epoch' if key == 'benchmark' else key} is {value}"
        with pytest.raises(UsageError, match=said):
            own.score(warm, other)


@pytest.mark.parametrize(("key", "value"), [("precision", "bf16"), ("device", "cuda")])
def test_frozen_anchors_serve_no_other_arithmetic(
    make_result: MakeResult, monkeypatch: Patch, key: str, value: str
) -> None:
    own = make_result({1: 0.6, 2: 0.7})
    freeze(monkeypatch, own.task)
    for record in own.records:
        record[key] = value
    with pytest.raises(UsageError, match=f"fp32 on cpu, this result is .*{value}"):
        own.score()
    freeze(monkeypatch, own.task, **{key: value})
    assert own.score().value == pytest.approx((0.65 - 0.35) / (0.75 - 0.35))


def test_where_nothing_is_to_close_the_score_is_no_number(make_result: MakeResult) -> None:
    warm = make_result({1: 0.3, 2: 0.4, 3: 0.35}, "none")
    fresh = make_result({1: 0.3, 2: 0.5, 3: 0.35}, "full-reset")
    assert np.isnan(make_result({1: 0.6, 2: 0.7, 3: 0.7}).score(warm, fresh).value)
