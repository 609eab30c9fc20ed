"""TensorBoard runs say what the records say, once per step, also after an interruption."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

from ht_bench.methods.resolve import resolve
from ht_bench.running import job as running_job
from ht_bench.running.job import StackJob, run_stack
from ht_bench.streams.task import parse_task
from ht_bench.training.history import Interrupted, Observer
from ht_bench.views.live import COORDINATES, EventFile, SeedWriters

Make = Callable[..., dict[str, Any]]
Series = list[tuple[int, float]]


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events


def scalars(folder: Path) -> dict[str, Series]:
    events = read(folder)
    return {t: [(e.step, e.value) for e in events.Scalars(t)] for t in events.Tags()["scalars"]}


def assert_series(found: Series, wanted: Series) -> None:
    assert [step for step, _ in found] == [step for step, _ in wanted]
    np.testing.assert_allclose([v for _, v in found], [v for _, v in wanted], rtol=1e-6)


def hyperparameters(folder: Path) -> dict[str, Any]:
    content = read(folder).PluginTagToContent("hparams")["_hparams_/session_start_info"]
    found = HParamsPluginData.FromString(content).session_start_info.hparams
    return {k: getattr(v, v.WhichOneof("kind")) for k, v in found.items()}


def test_points_of_each_seed_go_to_its_own_run(tmp_path: Path) -> None:
    writers = SeedWriters([tmp_path / "a", tmp_path / "b"])
    writers.point({"phase": 0, "step": 0, "test/accuracy": [0.1, 0.2, 9.0], "k": [None, 1.0, 9.0]})
    writers.point({"phase": 1, "step": 7, "test/accuracy": [0.3, None, 9.0], "k": [2.0, 3.0, 9.0]})
    writers.close()
    first, second = scalars(tmp_path / "a"), scalars(tmp_path / "b")
    assert first["phase"] == second["phase"] == [(0, 0.0), (7, 1.0)]
    assert_series(first["test/accuracy"], [(0, 0.1), (7, 0.3)])
    assert_series(second["test/accuracy"], [(0, 0.2)])
    assert first["k"] == [(7, 2.0)] and second["k"] == [(0, 1.0), (7, 3.0)]
    assert "step" not in first


def test_closing_adds_diagnostics_and_hyperparameters(make_record: Make, tmp_path: Path) -> None:
    record = make_record(
        [[0.1, 0.4]],
        method="hare-tortoise",
        hyperparameters={"decay": 0.99, "reset_every": None, "optimizer_state": "keep"},
        diagnostics={"phase": [0, 1], "step": [5, 9], "weights/norm": [2.0, None]},
    )
    writers = SeedWriters([tmp_path])
    writers.close([record])
    writers.close()
    assert scalars(tmp_path)["weights/norm"] == [(5, 2.0)]
    assert hyperparameters(tmp_path) == {
        "method": "hare-tortoise",
        "seed": 100.0,
        "decay": 0.99,
        "reset_every": "None",
        "optimizer_state": "keep",
    }
    assert scalars(tmp_path)["final/accuracy"][0][1] == pytest.approx(0.4)


def test_a_seed_leaves_the_columns_of_hparams_to_tensorboard(
    make_record: Make, tmp_path: Path
) -> None:
    """It shows those of one run for all; without any it gathers them from the rows."""
    SeedWriters([tmp_path]).close([make_record([[0.1, 0.4]])])
    assert set(read(tmp_path).PluginTagToContent("hparams")) == {
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }


def test_opening_a_run_again_drops_what_was_there(tmp_path: Path) -> None:
    for values in ([1.0, 2.0], [1.0, 2.0, 3.0]):
        writers = SeedWriters([tmp_path])
        for step, value in enumerate(values):
            writers.point({"phase": 0, "step": step, "k": [value]})
        writers.close()
    assert scalars(tmp_path)["k"] == [(0, 1.0), (1, 2.0), (2, 3.0)]


# ---- a real run ----


@pytest.fixture
def job(tmp_path: Path) -> StackJob:
    """Return a job of two seeds and two phases, 16 steps, on digits."""
    table = {
        "name": "tiny-tracking",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [8]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 16, "points": 4, "stack": 2},
        "phases": [{"new": 0.5, "updates": 8}, {"new": 0.5, "updates": 8}],
    }
    method = resolve("hare-tortoise", "", {"reset_every": 5, "decay": 0.9})
    return StackJob(parse_task(table, "tiny"), method, (3, -4), out=tmp_path / "runs")


def assert_shows(folder: Path, record: Mapping[str, Any]) -> None:
    found = scalars(folder)
    for table in (record["curve"], record["diagnostics"]):
        for key in table.keys() - set(COORDINATES):
            points = zip(table["step"], table[key], strict=True)
            series = [(step, value) for step, value in points if value is not None]
            assert_series(found.get(key, []), series)
    assert [step for step, _ in found["phase"]] == record["curve"]["step"]
    assert hyperparameters(folder)["seed"] == record["seed"]


@pytest.mark.parametrize("stops", [(), (3,), (8, 1), (1, 14)])
def test_a_run_shows_its_record_and_no_step_twice(job: StackJob, stops: tuple[int, ...]) -> None:
    for steps in stops:
        counter = itertools.count(1)
        with pytest.raises(Interrupted):
            run_stack(job, Observer(stop=lambda n=counter, s=steps: next(n) == s))
    records = run_stack(job)
    assert job.folder is not None
    for record in records:
        folder = job.folder / f"seed{record['seed']}"
        assert_shows(folder, record)
        hare = scalars(folder)["hare/accuracy"]
        assert len(hare) == len(record["curve"]["step"]) == 10


def test_events_are_whole_before_there_is_a_result(
    job: StackJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, a run with a result would never have its diagnostics written."""
    seen: dict[int, set[str]] = {}

    def write(path: Path, record: dict[str, Any]) -> None:
        seen[record["seed"]] = set(record["diagnostics"]) - set(scalars(path.parent))
        assert hyperparameters(path.parent)["seed"] == record["seed"]

    monkeypatch.setattr(running_job, "write_record", write)
    run_stack(job)
    assert seen == {seed: {"step"} for seed in job.seeds}


def test_a_full_disk_is_an_error_where_it_happens(tmp_path: Path) -> None:
    """No thread of a writer's dies of it, with a traceback beside the command's sentence."""
    import os
    import threading

    threads = threading.active_count()
    events = EventFile(tmp_path)
    assert threading.active_count() == threads
    events._file.close()
    full = os.open("/dev/full", os.O_WRONLY)
    events._file = os.fdopen(full, "wb")
    events._records = RecordWriter(events._file)
    with pytest.raises(OSError, match="No space left"):
        events.scalars(0, {"a": 1.0})
    with contextlib.suppress(OSError):
        events.close()
