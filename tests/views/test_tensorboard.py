"""What TensorBoard is given to compare methods with: means, margins, layout, HPARAMS."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from ht_bench.errors import UsageError
from ht_bench.ranking.comparison import Comparison, compare
from ht_bench.ranking.entries import TaskInfo, group_records
from ht_bench.views.tensorboard import tags_of, write_aggregate

Make = Callable[..., dict[str, Any]]
Series = list[tuple[int, float]]
TASKS = {
    "a-v1": TaskInfo("a-v1", "warm-start", 10, (0, 1, 2)),
    "b-v1": TaskInfo("b-v1", "shuffled", 10, (0, 1, 2)),
}
FINALS = {"none": (0.4, 0.5, 0.5), "full-reset": (0.8, 0.8, 0.9), "ema": (0.6, 0.7, 0.9)}


@pytest.fixture
def records(make_record: Make) -> list[dict[str, Any]]:
    """Three methods on two tasks, three seeds each; ema's decay differs by task."""
    return [
        make_record(
            [[0.1, final - 0.01 * (task == "b-v1")]],
            method=method,
            task=task,
            seed=seed,
            hyperparameters=hyperparameters(method, task),
            diagnostics={"phase": [0], "step": [10], "weights/norm": [1.0 + seed]},
        )
        for method, finals in FINALS.items()
        for task in TASKS
        for seed, final in enumerate(finals)
    ]


def hyperparameters(method: str, task: str) -> dict[str, Any]:
    if method != "ema":
        return {}
    return {"decay": 0.9 if task == "a-v1" else 0.99, "buffers": "average", "every": 5}


def write(records: list[dict[str, Any]], folder: Path, **options: Any) -> Comparison:
    infos = {name: TASKS[name] for name in sorted({record["task"] for record in records})}
    suites = {"suite-both-v1": tuple(infos)} if len(infos) > 1 else None
    comparison = compare(records, infos, suites=suites)
    write_aggregate(folder, comparison, group_records(records, infos), infos, **options)
    return comparison


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def scalars(folder: Path) -> dict[str, Series]:
    events = read(folder)
    return {t: [(e.step, e.value) for e in events.Scalars(t)] for t in events.Tags()["scalars"]}


def runs_below(folder: Path) -> list[str]:
    return sorted({str(file.parent.relative_to(folder)) for file in folder.rglob("events.out.*")})


def assert_series(found: Series, wanted: Series) -> None:
    assert [step for step, _ in found] == [step for step, _ in wanted]
    np.testing.assert_allclose([v for _, v in found], [v for _, v in wanted], rtol=1e-6)


def hparams(folder: Path, what: str) -> Any:
    content = read(folder).PluginTagToContent("hparams")[f"_hparams_/{what}"]
    return getattr(HParamsPluginData.FromString(content), what)


def row(folder: Path) -> dict[str, Any]:
    found = hparams(folder, "session_start_info").hparams
    return {key: getattr(cell, cell.WhichOneof("kind")) for key, cell in found.items()}


def layout(folder: Path) -> Layout:
    [event] = read(folder).Tensors("custom_scalars__config__")
    return Layout.FromString(event.tensor_proto.string_val[0])


# ---- curves ----


def test_a_run_is_a_method_and_its_tags_begin_with_the_task(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    write(records, tmp_path / "all")
    assert runs_below(tmp_path / "all") == ["ema", "full-reset", "none"]
    found = scalars(tmp_path / "all" / "ema")
    groups = {tag.partition("/")[0] for tag in found}
    assert groups == {"a-v1", "b-v1", "± a-v1", "± b-v1", "score"}
    for task, lower in (("a-v1", 0.0), ("b-v1", 0.01)):
        finals = [value - lower for value in FINALS["ema"]]
        width = stats.t.ppf(0.975, 2) * stats.sem(finals)
        wanted = np.mean(finals) + np.array([0, -width, width])
        for tag, value in zip(tags_of(task, "test/accuracy"), wanted, strict=True):
            [first, (step, last)] = found[tag]
            assert first == (0, pytest.approx(0.1)) and step == 10
            assert last == pytest.approx(value, rel=1e-4)
        assert_series(found[f"{task}/weights norm"], [(10, 2.0)])


def test_writing_again_replaces_what_was_there(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    stale = tmp_path / "all" / "test-fp32-cpu" / "a-v1" / "none" / "events.out.tfevents.1.host"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    for _ in range(2):
        write(records, tmp_path / "all")
    assert not stale.parent.parent.parent.exists()
    assert len(list((tmp_path / "all").rglob("events.out.*"))) == 3
    assert len(scalars(tmp_path / "all" / "none")["a-v1/test accuracy"]) == 2


def test_a_folder_of_something_else_is_left_alone(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "all" / "mine").mkdir(parents=True)
    for name in ("notes.txt", "events.out.tfevents.1.host"):
        (tmp_path / "all" / "mine" / name).write_text("")
    with pytest.raises(UsageError, match="notes.txt is no TensorBoard file"):
        write(records, tmp_path / "all")
    assert len(list((tmp_path / "all" / "mine").iterdir())) == 2


def test_an_unwritable_place_is_named(records: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "all").write_text("")
    with pytest.raises(UsageError, match=f"Could not write .*{tmp_path}/all"):
        write(records, tmp_path / "all")


def test_a_lone_seed_has_no_width(make_record: Make, tmp_path: Path) -> None:
    write([make_record([[0.1, 0.4]], task="a-v1", seed=0)], tmp_path)
    found = scalars(tmp_path / "none")
    for tag in tags_of("a-v1", "test/accuracy"):
        assert_series(found[tag], [(0, 0.1), (10, 0.4)])


def test_missing_values_and_diverged_seeds_are_left_out(make_record: Make, tmp_path: Path) -> None:
    members = [make_record([[0.1, 0.2 * s]], task="a-v1", seed=s) for s in range(3)]
    members[0]["status"] = "diverged"
    members[1]["curve"]["train/accuracy"] = [None, 0.5]
    write(members, tmp_path)
    found = scalars(tmp_path / "none")
    assert_series(found["a-v1/test accuracy"], [(0, 0.1), (10, 0.3)])
    assert_series(found["a-v1/train accuracy"], [(10, 0.35)])  # a mean of all seeds, or none
    assert found["score/diverged runs"] == [(0, 1.0)]


def test_settings_stand_apart(make_record: Make, tmp_path: Path) -> None:
    members = [
        make_record([[0.1, 0.4]], task="a-v1", seed=0, split=split)
        for split in ("test", "validation")
    ]
    write(members, tmp_path)
    assert runs_below(tmp_path) == ["test-fp32-cpu/none", "validation-fp32-cpu/none"]
    shown = row(tmp_path / "validation-fp32-cpu" / "none")
    assert (shown["split"], shown["precision"], shown["device"]) == ("validation", "fp32", "cpu")


# ---- CUSTOM SCALARS ----


def test_the_layout_is_written_once(records: list[dict[str, Any]], tmp_path: Path) -> None:
    write(records, tmp_path)
    tag = "custom_scalars__config__"
    holders = [run for run in runs_below(tmp_path) if tag in read(tmp_path / run).Tags()["tensors"]]
    assert holders == ["ema"]


def test_the_layout_has_a_category_per_task(records: list[dict[str, Any]], tmp_path: Path) -> None:
    """The tab draws a category's charts from the last to the first."""
    write(records, tmp_path)
    shown = {
        c.title: [chart.title for chart in c.chart][::-1] for c in layout(tmp_path / "ema").category
    }
    assert shown == {
        "all tasks": ["a-v1 test/accuracy", "b-v1 train/accuracy"],
        "a-v1": ["test/accuracy", "train/accuracy", "weights/norm"],
        "b-v1": ["train/accuracy", "test/accuracy", "weights/norm"],
    }
    assert [category.closed for category in layout(tmp_path / "ema").category] == [
        False,
        True,
        True,
    ]


def test_a_margin_names_tags_that_every_run_has(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    write(records, tmp_path)
    series = [
        tuple(getattr(chart.margin.series[0], name) for name in ("value", "lower", "upper"))
        for category in layout(tmp_path / "ema").category
        for chart in category.chart
    ]
    assert tags_of("b-v1", "train/accuracy") in series
    for run in FINALS:
        found = scalars(tmp_path / run)
        for tags in series:
            mean, lower, upper = (found[tag] for tag in tags)
            assert [s for s, _ in mean] == [s for s, _ in lower] == [s for s, _ in upper]


# ---- HPARAMS ----


def test_a_session_has_its_hyperparameters(records: list[dict[str, Any]], tmp_path: Path) -> None:
    write(records, tmp_path)
    assert row(tmp_path / "none") == {"method": "none", "tasks": "a-v1 | b-v1"}
    assert row(tmp_path / "ema") == {
        "method": "ema",
        "tasks": "a-v1 | b-v1",
        "buffers": "average",
        "decay": "0.9 | 0.99",
        "every": 5.0,
    }
    assert hparams(tmp_path / "ema", "session_start_info").group_name == "ema"


def test_a_column_has_one_type(records: list[dict[str, Any]], tmp_path: Path) -> None:
    """Full-reset is given one decay for both tasks, ema has two: the column is text."""
    for record in records:
        if record["method"] == "full-reset":
            record["hyperparameters"] = {"decay": 0.5}
    write(records, tmp_path)
    assert row(tmp_path / "full-reset")["decay"] == "0.5"
    columns = {c.name: c for c in hparams(tmp_path / "ema", "experiment").hparam_infos}
    assert sorted(v.string_value for v in columns["decay"].domain_discrete.values) == [
        "0.5",
        "0.9 | 0.99",
    ]
    assert columns["decay"].differs and not columns["every"].differs
    interval = columns["every"].domain_interval
    assert (interval.min_value, interval.max_value) == (5.0, 5.0)


def test_the_scores_are_those_of_the_comparison(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    comparison = write(records, tmp_path)
    tags = [metric.name.tag for metric in hparams(tmp_path / "ema", "experiment").metric_infos]
    assert tags == [
        "score/gap closed: suite-both-v1",
        "score/gap closed: a-v1",
        "score/gap closed: b-v1",
        "score/metric: a-v1",
        "score/metric: b-v1",
        "score/seeds",
    ]
    for table in comparison.tables:
        for entry in table.rows:
            found = scalars(tmp_path / entry.label)
            assert entry.gap_closed is not None and math.isfinite(entry.gap_closed.value)
            wanted = {f"score/gap closed: {table.name}": entry.gap_closed.value, "score/seeds": 3.0}
            if not table.is_suite:
                wanted[f"score/metric: {table.name}"] = entry.metric.value
            for tag, value in wanted.items():
                assert found[tag] == [(0, pytest.approx(value, rel=1e-6))]
    gap = scalars(tmp_path / "ema")["score/gap closed: a-v1"][0][1]
    assert gap == pytest.approx((2.2 - 1.4) / (2.5 - 1.4))  # of means: three seeds have no quarter


def test_without_anchors_there_is_no_gap(records: list[dict[str, Any]], tmp_path: Path) -> None:
    write([r for r in records if r["method"] != "full-reset" or r["task"] == "a-v1"], tmp_path)
    tags = [metric.name.tag for metric in hparams(tmp_path / "ema", "experiment").metric_infos]
    assert [tag for tag in tags if "gap" in tag] == ["score/gap closed: a-v1"]
    assert "score/gap closed: b-v1" not in scalars(tmp_path / "ema")


def test_only_the_first_run_has_the_columns(records: list[dict[str, Any]], tmp_path: Path) -> None:
    write(records, tmp_path)
    tag = "_hparams_/experiment"
    holders = [run for run in FINALS if tag in read(tmp_path / run).PluginTagToContent("hparams")]
    assert holders == ["ema"]


def test_hparams_may_be_left_to_the_seeds(records: list[dict[str, Any]], tmp_path: Path) -> None:
    write(records, tmp_path, hparams=False)
    for run in FINALS:
        with pytest.raises(KeyError):
            read(tmp_path / run).PluginTagToContent("hparams")
    assert layout(tmp_path / "ema").category
