"""Freezing a suite: its anchors are the runs' own numbers, and it is written once."""

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ht_bench
from ht_bench.ranking.admission import admission, least_gap
from ht_bench.records.metrics import final_metric
from ht_bench.records.record import read_record, write_record
from ht_bench.records.runs import group_folder, result_file, write_spec
from ht_bench.running.freeze import freeze
from ht_bench.streams import catalog, suite
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import Task, parse_task
from ht_bench.version import EPOCH

TEN_SEEDS = "suite-control-v2"  # its agents take minutes a run
SPEC = {
    "name": "made-up-v1",
    "family": "warm-start",
    "seeds": "100-105",
    "data": {"name": "digits", "train": 60},
    "net": {"name": "mlp", "hidden": [4]},
    "optimizer": {"lr": 1e-3},
    "training": {"stack": 2, "points": 1},
    "phases": [{"new": 0.5, "updates": 1}, {"new": 0.5, "updates": 1}],
}


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    made = parse_task(SPEC, "made-up")
    monkeypatch.setattr("ht_bench.running.freeze.get_task", lambda name: made)
    return made


def write_runs(out: Path, task: Task, gap: float, seeds: range = range(100, 106)) -> None:
    """Runs of both anchors whose last accuracies are `gap` apart, a little scattered."""
    template = ht_bench.evaluate("none", task, seeds=[100], progress=False).records[0]
    write_spec(out, task)
    for method in ("none", "full-reset"):
        for seed in seeds:
            record = json.loads(json.dumps(template))
            accuracy = 0.5 + 0.001 * (seed % 3) + gap * (method == "full-reset")
            record["curve"]["test/accuracy"][-1] = accuracy
            record.update(method=method, seed=seed, hyperparameters={})
            write_record(result_file(group_folder(out, task.name, method, "0" * 8), seed), record)


def freeze_runs(folder: Path, task: Task, gap: float, **options: range) -> Path:
    write_runs(folder / "runs", task, gap, **options)
    return freeze(folder / "runs", "suite-made-up-v1", "made up", [task.name], folder)


def test_frozen_anchors_are_the_runs_finals(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_runs(tmp_path, task, gap=0.1)
    monkeypatch.setattr(suite, "folder", lambda name: tmp_path)
    anchors = suite.get_suite("suite-made-up-v1").anchors[task.name]
    assert (anchors.task_sha256, anchors.seeds) == (task.sha256, "100-105")
    assert anchors.none == pytest.approx([0.501, 0.502, 0.5, 0.501, 0.502, 0.5])
    assert anchors.full_reset == pytest.approx([0.601, 0.602, 0.6, 0.601, 0.602, 0.6])


def test_a_suite_is_released_once(task: Task, tmp_path: Path) -> None:
    path = freeze_runs(tmp_path, task, gap=0.1)
    before = path.read_bytes()
    with pytest.raises(ht_bench.UsageError, match="never changes"):
        freeze(tmp_path / "runs", "suite-made-up-v1", "other", [task.name], tmp_path)
    assert path.read_bytes() == before


def test_a_draft_is_not_released(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = dataclasses.replace(task, status="draft")
    monkeypatch.setattr("ht_bench.running.freeze.get_task", lambda _: draft)
    with pytest.raises(ht_bench.UsageError, match="is a draft, which may still change"):
        freeze_runs(tmp_path, task, gap=0.1)
    assert not (tmp_path / "suite-made-up-v1.toml").exists()


def test_runs_of_another_epoch_freeze_nothing(task: Task, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", task, 0.1)
    for path in tmp_path.rglob("result.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        write_record(path, record | {"benchmark": "0.1"})
    with pytest.raises(ht_bench.UsageError, match=f"are of ht-bench 0.1, this is {EPOCH}"):
        freeze(tmp_path / "runs", "suite-made-up-v1", "made up", [task.name], tmp_path)
    assert not list(tmp_path.glob("*.toml"))


@pytest.mark.parametrize("gap", [0.005, -0.1])
def test_a_task_without_a_gap_is_refused(task: Task, tmp_path: Path, gap: float) -> None:
    with pytest.raises(ht_bench.UsageError, match="does not pass admission"):
        freeze_runs(tmp_path, task, gap)
    assert not (tmp_path / "suite-made-up-v1.toml").exists()


def test_missing_seeds_are_named(task: Task, tmp_path: Path) -> None:
    with pytest.raises(ht_bench.UsageError, match="lacks seeds 104-105"):
        freeze_runs(tmp_path, task, 0.1, seeds=range(100, 104))


def test_released_suites_pass_admission() -> None:
    """That their anchors fit their tasks: tests/streams/test_suite.py."""
    for name in suite.suite_files():
        released = suite.get_suite(name)
        assert set(released.anchors) == set(released.tasks)
        for member, anchors in released.anchors.items():
            task = catalog.get_task(member)
            assert len(anchors.none) == len(task.seeds) == (10 if name == TEN_SEEDS else 20)
            random = task.reference.random if isinstance(task, ReinforcementTask) else None
            least = least_gap(anchors.full_reset, random)
            verdict = admission(anchors.none, anchors.full_reset, least)
            if released.benchmark == "0.1":  # its rule: a sure gap, a third and a half of today's
                share = 1 / 3 if random is None else 1 / 2
                assert verdict.gap.low > 0 and verdict.gap.value >= share * least
            else:
                assert verdict.passes, member


def test_finals_are_recomputed_not_stored(task: Task) -> None:
    result = ht_bench.evaluate("none", task, seeds=[100], progress=False)
    record = result.records[0]
    assert not {"final", "score"} & set(record)
    assert result.final[0] == final_metric(record, task.family, 10)


@pytest.mark.evidence
@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("suite-core-v1", 10),
        ("suite-trainability-v1", 10),
        ("suite-control-v1", 1),
        ("suite-noisy-start-v1", 10),
        ("suite-trainability-v2", 10),
        ("suite-clean-start-v1", 10),
        ("suite-shift-v1", 10),
        ("suite-images-small-v1", 5),
        ("suite-control-v2", 1),
    ],
)
def test_anchors_are_reproduced(name: str, seeds: int) -> None:
    """Seeds of `full-reset` again, within tolerance: a suite does not say which processor made it.

    On that processor the bits are equal; on another rounding differs, and grows.
    """
    released = suite.get_suite(name)
    if released.benchmark != EPOCH:
        pytest.skip(f"the anchors of {name} are of {released.benchmark}: numbers moved since")
    for member, anchors in released.anchors.items():
        again = range(100, 100 + seeds)
        result = ht_bench.evaluate("full-reset", member, seeds=again, progress=False)
        frozen, tolerance = anchors.full_reset[:seeds], catalog.get_task(member).tolerance
        assert result.final == pytest.approx(frozen, abs=tolerance)
        assert result.final.mean() == pytest.approx(np.mean(frozen), abs=tolerance / 5)


def test_anchors_have_the_tasks_own_precision(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tf32, which is fp32 where a CPU trained; of two devices' runs neither is taken."""
    published = replace(task, training=replace(task.training, precision="tf32"))
    monkeypatch.setattr("ht_bench.running.freeze.get_task", lambda name: published)
    runs = tmp_path / "runs"

    def rewrite(to: str, **changes: str) -> None:
        for file in runs.glob(f"{task.name}/*-{'0' * 8}/seed*/result.json"):
            record = read_record(file) | {"task_sha256": published.sha256} | changes
            group = group_folder(runs, task.name, record["method"], to * 8)
            write_record(result_file(group, record["seed"]), record)

    write_runs(runs, task, gap=0.1)
    write_spec(runs, published)
    rewrite("0")
    rewrite("1", precision="bf16", device="cuda")
    rewrite("2", precision="tf32", device="cuda")
    with pytest.raises(ht_bench.UsageError, match="on several devices"):
        freeze(runs, "suite-made-up-v1", "made up", [task.name], tmp_path)
    for folder in runs.glob(f"{task.name}/*-{'0' * 8}"):
        shutil.rmtree(folder)
    path = freeze(runs, "suite-made-up-v1", "made up", [task.name], tmp_path)
    monkeypatch.setattr(suite, "folder", lambda name: tmp_path)
    assert suite.get_suite(path.stem).anchors[task.name].setting == "tf32 on cuda"
