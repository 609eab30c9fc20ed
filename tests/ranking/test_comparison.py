"""Tables of entries from records: who is compared, on what, and what a row says.

Long: all tests build their records by the same few fixtures.
"""

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.ranking import score
from ht_bench.ranking.comparison import Setting, TaskInfo, compare
from ht_bench.ranking.entries import variant_notes
from ht_bench.version import EPOCH
from ht_bench.views.text import to_csv, to_json, to_markdown, to_text

SEEDS = range(100, 106)
LEVELS = {"none": 0.90, "full-reset": 0.95, "hare-tortoise": 0.94, "shrink-perturb": 0.96}


def info(name="digits-v1", family="warm-start", **changes):
    return TaskInfo(name, family, 10, tuple(SEEDS), **changes)


DIGITS = {"digits-v1": info()}


@pytest.fixture
def make_runs(make_record):
    """Build records of several methods over seeds, whose shared noise makes pairing matter."""

    def make(levels=LEVELS, seeds=SEEDS, **changes):
        runs = []
        for place, (method, level) in enumerate(levels.items()):
            for seed in seeds:
                end = level + 0.02 * np.random.default_rng(seed).normal()
                end += 0.001 * np.random.default_rng([seed, place]).normal()
                runs.append(make_record([[0.1, 0.6], [0.8, end]], method, seed, **changes))
        return runs

    return make


def rows(comparison, table=0):
    return {row.label: row for row in comparison.tables[table].rows}


def without(runs, task, method, seed=None):
    """Leave the records of a method out, or the one of a seed."""
    cell = (task, method)
    return [r for r in runs if (r["task"], r["method"]) != cell or r["seed"] != (seed or r["seed"])]


def shift(runs, method, amount):
    """Change what a method ends at on letters-v1."""
    for record in runs:
        if (record["task"], record["method"]) == ("letters-v1", method):
            record["curve"]["test/accuracy"][-1] += amount


def finals(runs, method):
    return [r["curve"]["test/accuracy"][-1] for r in runs if r["method"] == method]


def shown(runs, **options):
    """The text of the table without its legend."""
    return to_text(compare(runs, DIGITS), **options).split("gap closed: 0")[0]


def test_a_row_holds_the_entrys_scores_in_rank_order(make_runs):
    runs = make_runs()
    [table] = compare(runs, DIGITS).tables
    best_first = sorted(LEVELS, key=LEVELS.get, reverse=True)
    assert [(row.rank, row.label) for row in table.rows] == list(enumerate(best_first, 1))
    methods = ("hare-tortoise", "none", "full-reset")
    own, warm, fresh = ({"digits-v1": finals(runs, method)} for method in methods)
    expected = score.suite_score(own, warm, fresh)
    row = table.rows[2]
    assert row.gap_closed == expected.gap_closed
    assert row.mean_of_tasks == expected.mean_of_tasks == expected.gap_closed  # of one task
    assert row.error_reduction == expected.error_reduction
    assert [row.bands for row in table.rows] == [(1,), (2,), (3,), (4,)]
    values = np.array(own["digits-v1"])
    assert row.metric == score.mean_estimate(values)
    assert row.last_phase_accuracy == pytest.approx(values.mean())
    assert row.area == pytest.approx((0.8 + values.mean()) / 2)
    assert row.improvement["none"] == score.probability_of_improvement(own, warm)
    assert row.improvement["full-reset"].value == 0
    assert row.improvement["hare-tortoise"] is None
    assert (row.n, row.missing, row.complete, row.diverged) == (6, (), True, 0)


def test_anchors_are_rows_at_zero_and_one(make_runs):
    none, fresh = (rows(compare(make_runs(), DIGITS))[m] for m in ("none", "full-reset"))
    for row, value in ((none, 0.0), (fresh, 1.0)):
        assert dataclasses.astuple(row.gap_closed) == pytest.approx((value,) * 3, abs=1e-12)
    assert none.improvement["none"] is None


def test_the_order_of_records_changes_nothing(make_runs):
    runs = make_runs()
    order = np.random.default_rng(0).permutation(len(runs))
    assert to_json(compare([runs[i] for i in order], DIGITS)) == to_json(compare(runs, DIGITS))


def test_only_common_seeds_enter_and_an_incomplete_entry_is_not_ranked(make_runs):
    runs = without(make_runs(), "digits-v1", "hare-tortoise", 103)
    found = rows(compare(runs, DIGITS))
    row = found["hare-tortoise"]
    assert (row.n, row.rank, row.complete) == (5, None, False)
    assert row.missing == ("digits-v1 seeds 103",)
    common = rows(compare([r for r in runs if r["seed"] != 103], DIGITS))
    assert row.gap_closed == common["hare-tortoise"].gap_closed
    assert [found[m].rank for m in ("shrink-perturb", "full-reset", "none")] == [1, 2, 3]
    assert list(found)[-1] == "hare-tortoise"
    # The reference runs on fewer seeds than the others: no fair probability.
    assert found["shrink-perturb"].improvement["hare-tortoise"] is None


def test_an_anchors_missing_seed_is_no_ones_fault(make_runs):
    runs = without(make_runs(), "digits-v1", "full-reset", 103)
    comparison = compare(runs, DIGITS)
    assert {row.n for row in comparison.tables[0].rows} == {5}
    assert all(row.complete and row.rank for row in comparison.tables[0].rows)
    assert "not compared here: 103" in " ".join(comparison.tables[0].notes)


def test_a_diverged_run_counts_as_guessing_and_is_counted(make_runs):
    runs = make_runs()
    for record in runs:
        if (record["method"], record["seed"]) == ("hare-tortoise", 101):
            record["status"] = "diverged"
            record["curve"] = {key: values[:2] for key, values in record["curve"].items()}
    row = rows(compare(runs, DIGITS))["hare-tortoise"]
    others = finals(runs, "hare-tortoise")
    assert row.diverged == 1
    assert row.metric.value == pytest.approx((sum(others) - others[1] + 0.1) / 6)
    assert row.metric.value < 0.9 and 0 < row.gap_closed.value < 1  # one of six is trimmed
    assert "div." in shown(runs) and "div." not in shown(make_runs())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_sha256": "d" * 64}, ["two task hashes", "aaaa", "dddd"]),
        ({"data_sha256": "d" * 64}, ["two data hashes", "bbbb", "dddd"]),
        ({"benchmark": "0.1.0"}, ["two benchmark epochs", f"has {EPOCH}", "has 0.1"]),
    ],
)
def test_records_of_two_worlds_are_refused_with_both_named(make_runs, make_record, changes, words):
    alien = make_record([[0.1, 0.6], [0.8, 0.9]], "ema", 100, **changes)
    with pytest.raises(UsageError) as caught:
        compare([*make_runs(), alien], DIGITS)
    for word in [*words, "'none' on 'digits-v1'", "'ema' on 'digits-v1'"]:
        assert word in str(caught.value)


def test_a_patch_release_compares(make_runs, make_record):
    other = make_record([[0.1, 0.6], [0.8, 0.9]], "ema", 100, benchmark=f"{EPOCH}.7")
    assert "ema" in rows(compare([*make_runs(), other], DIGITS))


def test_wrong_use_is_refused(make_runs):
    runs = make_runs()
    with pytest.raises(UsageError, match="no results"):
        compare([], {})
    with pytest.raises(UsageError, match="Did you mean 'digits-v2'"):
        compare(runs, {"digits-v2": info("digits-v2")})
    with pytest.raises(UsageError, match="two results for seed 100"):
        compare([*runs, runs[0]], DIGITS)
    with pytest.raises(UsageError, match="the task's file has eeee"):
        compare(runs, {"digits-v1": info(sha256="e" * 64)})
    second = [r | {"hyperparameters": {"x": 1}} for r in make_runs({"none": 0.9})]
    with pytest.raises(UsageError, match="anchor 'none' has two variants"):
        compare([*runs, *second], DIGITS)


def test_splits_devices_and_precisions_are_tables_of_their_own(make_runs):
    runs = make_runs() + make_runs(split="validation") + make_runs(device="cuda:0")
    runs += make_runs({"none": 0.9}, precision="bf16")
    comparison = compare(runs, DIGITS)
    assert [table.setting for table in comparison.tables] == [
        Setting("test", "bf16", "cpu"),
        Setting("test", "fp32", "cpu"),
        Setting("test", "fp32", "cuda"),
        Setting("validation", "fp32", "cpu"),
    ]
    assert [len(table.rows) for table in comparison.tables] == [1, 4, 4, 4]
    measured = ["test accuracy at the end of the last phase"] * 3
    measured += ["validation accuracy at the end of the last phase"]
    assert [table["metric"] for table in json.loads(to_json(comparison))["tables"]] == measured
    for text in (to_text(comparison), to_markdown(comparison)):
        assert text.count(f"metric: {measured[0]}.") == 3 and text.count(measured[3]) == 1


def test_variants_carry_the_digits_of_their_folder(make_runs):
    runs = make_runs()
    for reset_every in (50, 100):
        settings = {"decay": 0.99, "reset_every": reset_every}
        runs += make_runs({"ema": 0.92 + reset_every / 1e4}, hyperparameters=settings)
    comparison = compare(runs, DIGITS)
    variants = [label for label in rows(comparison) if label.startswith("ema")]
    assert [len(label) for label in variants] == [len("ema-01234567")] * 2
    notes = [note for note in comparison.tables[0].notes if note.startswith("ema-")]
    settings = sorted(note.split(": ")[1] for note in notes)
    assert settings == ["reset_every = 100.", "reset_every = 50."]
    assert variant_notes([]) == []
    assert "hare-tortoise" in rows(comparison)


def test_without_anchors_there_is_a_rank_but_no_gap(make_runs):
    comparison = compare(make_runs({"ema": 0.9, "redo": 0.95}), DIGITS)
    redo, ema = rows(comparison).values()
    assert (redo.label, redo.rank, ema.label, ema.rank) == ("redo", 1, "ema", 2)
    assert (ema.gap_closed, ema.wall_time) == (None, None)
    assert "--method none,full-reset" in " ".join(comparison.tables[0].notes)


def test_one_seed_is_shown_but_not_ranked(make_runs):
    comparison = compare(make_runs(seeds=[100]), DIGITS)
    row = rows(comparison)["hare-tortoise"]
    assert (row.rank, row.metric.high) == (None, math.inf)
    assert math.isnan(row.gap_closed.value)  # nothing is sure of one seed
    assert json.loads(to_json(comparison))["tables"][0]["rows"][0]["gap_closed"]["low"] is None
    assert "[" not in to_text(comparison).split("reset over none")[0].split("gap closed")[1]


def test_costs_are_relative_to_none_on_the_same_seeds(make_runs):
    runs = make_runs()
    for record in runs:
        if record["method"] == "none" and record["seed"] == 105:
            record["cost"] = {"seconds": 1e6, "peak_memory_bytes": 1000}
        if record["method"] == "hare-tortoise":
            record["cost"] = {"seconds": 3.0, "peak_memory_bytes": None}
            record["extra_parameters"] = 26506
    runs = without(runs, "digits-v1", "hare-tortoise", 105)
    row = rows(compare(runs, DIGITS))["hare-tortoise"]
    assert (row.wall_time, row.peak_memory, row.extra_parameters) == (1.5, None, 26506)


def test_retention_is_shown_where_it_was_tested(make_runs):
    runs = make_runs(retention=[0.7])
    assert rows(compare(runs, DIGITS))["none"].retention == pytest.approx(0.7)
    assert "kept" in shown(runs, details=True) and "kept" not in shown(make_runs(), details=True)


@pytest.fixture
def two_tasks(make_runs):
    runs = make_runs() + make_runs(task="letters-v1", task_sha256="e" * 64)
    return runs, {name: info(name) for name in ("digits-v1", "letters-v1")}


def test_a_suites_score_is_over_all_runs_and_no_task_swamps_it(two_tasks):
    """On one task the method is five gaps ahead: the mean over tasks follows it alone."""
    runs, tasks = two_tasks
    shift(runs, "hare-tortoise", 0.25)
    comparison = compare(runs, tasks)
    suite, first, second = (rows(comparison, table)["hare-tortoise"] for table in range(3))
    assert comparison.tables[0].is_suite
    for name, own in (("mean_of_tasks", "gap_closed"), ("metric", "metric")):
        mean, *values = (
            getattr(suite, name).value,
            *(getattr(r, own).value for r in (first, second)),
        )
        assert mean == pytest.approx(sum(values) / 2)
    methods = ("hare-tortoise", "none", "full-reset")
    values = [finals([r for r in runs if r["task"] == t], m) for t in tasks for m in methods]
    pooled = [*score.seed_scores(*values[:3]), *score.seed_scores(*values[3:])]
    assert suite.gap_closed.value == pytest.approx(float(score.interquartile_mean(pooled)))
    assert suite.metric.low < suite.metric.value < suite.metric.high
    assert (suite.profile[0], suite.profile[-1]) == (1, 0.5)


def test_tasks_of_unequal_numbers_of_seeds_are_named(two_tasks):
    runs, tasks = two_tasks
    assert not any("numbers of seeds" in note for note in compare(runs, tasks).tables[0].notes)
    seeds = sorted({r["seed"] for r in runs})
    fewer = [r for r in runs if r["task"] == "digits-v1" or r["seed"] != seeds[-1]]
    wanted = dataclasses.replace(tasks["letters-v1"], seeds=tuple(seeds[:-1]))
    [told] = [
        note
        for note in compare(fewer, tasks | {"letters-v1": wanted}).tables[0].notes
        if "numbers of seeds" in note
    ]
    assert f"(digits-v1 {len(seeds)}, letters-v1 {len(seeds) - 1})" in told


def test_returns_of_two_tasks_have_no_mean(two_tasks):
    runs, tasks = two_tasks
    agents = {name: dataclasses.replace(task, random=0.8) for name, task in tasks.items()}
    comparison = compare(runs, agents)
    suite, first, _ = (rows(comparison, table)["hare-tortoise"] for table in range(3))
    assert (suite.metric, suite.area, suite.retention) == (None, None, None)
    assert suite.wall_time is not None and suite.gap_closed is not None
    assert first.metric is not None and first.area is not None
    assert "metric: none, returns of different tasks" in to_text(comparison)


def test_a_task_that_decides_alone_is_named(two_tasks):
    runs, tasks = two_tasks
    for method, amount in (("hare-tortoise", -0.2), ("shrink-perturb", 0.2)):
        shift(runs, method, amount)
    comparison = compare(runs, tasks)
    table = comparison.tables[0]
    assert sum(table.shares.values()) == pytest.approx(1) and table.shares["letters-v1"] > 0.8
    assert any(note.startswith("letters-v1 brings 8") for note in table.notes)
    assert "variance between entries: digits-v1" in to_text(comparison)
    assert not comparison.tables[1].shares
    calm = compare(*two_tasks_alike(runs, tasks))
    assert not any("the ranking follows" in note for note in calm.tables[0].notes)


def two_tasks_alike(runs, tasks):
    """Return the records with those of the first task under both names."""
    first = [record for record in runs if record["task"] == "digits-v1"]
    again = [{**record, "task": "letters-v1", "task_sha256": "e" * 64} for record in first]
    return first + again, tasks


def test_an_entry_without_a_task_of_the_suite_is_shown_without_score(two_tasks):
    runs, tasks = two_tasks
    runs = without(runs, "letters-v1", "hare-tortoise")
    row = rows(compare(runs, tasks))["hare-tortoise"]
    assert (row.rank, row.gap_closed, row.metric) == (None, None, None)
    assert row.missing == ("letters-v1 (not run)",)
    assert "missing: letters-v1 (not run)" in to_text(compare(runs, tasks))


def test_a_stream_without_a_gap_enters_no_suite_of_its_own_accord(two_tasks):
    runs, tasks = two_tasks
    shift(runs, "full-reset", -0.05)
    comparison = compare(runs, tasks)
    assert not any(table.is_suite for table in comparison.tables)
    assert comparison.notes[0].startswith("letters-v1 is left out")
    assert [table.admission.passes for table in comparison.tables] == [True, False]
    named = compare(runs, tasks, suites={"suite-x-v1": ("digits-v1", "letters-v1")})
    assert named.tables[0].name == "suite-x-v1"
    assert rows(named)["hare-tortoise"].least_gap < 1
    assert "standard errors above none" in named.tables[0].notes[0]


def test_trainability_never_enters_the_generalization_score(two_tasks):
    runs, tasks = two_tasks
    for record in runs:
        record["curve"]["train/accuracy"] = record["curve"]["test/accuracy"]
    tasks["letters-v1"] = info("letters-v1", "shuffled")
    assert not any(table.is_suite for table in compare(runs, tasks).tables)


def test_a_suite_that_lacks_anchors_is_named_not_scored(two_tasks):
    runs, tasks = two_tasks
    comparison = compare(runs, tasks, suites={"suite-x-v1": ("digits-v1", "images-v1")})
    assert not any(table.is_suite for table in comparison.tables)
    note = "suite-x-v1 is not scored: it needs none and full-reset on images-v1"
    assert note in comparison.notes[0]
    half = without(runs, "letters-v1", "full-reset")
    comparison = compare(half, tasks, suites={"suite-x-v1": ("digits-v1", "letters-v1")})
    assert "full-reset on letters-v1" in comparison.notes[0]
    assert compare(half, tasks, suites={"suite-x-v1": ("images-v1",)}).notes == ()


def test_mixed_sources_and_machines_are_told(make_runs):
    runs = make_runs()
    runs[-1] = runs[-1] | {"source_sha256": "d" * 64, "hardware": {"cpu": "another"}}
    notes = " ".join(compare(runs, DIGITS).tables[0].notes)
    assert "shrink-perturb was run from 2 versions of its source (cccccccc, dddddddd)" in notes
    assert "2 kinds of machine" in notes
    assert "source" not in " ".join(compare(make_runs(), DIGITS).tables[0].notes)


def test_text_fits_the_terminal_and_says_what_it_shows(two_tasks, make_runs):
    runs, tasks = two_tasks
    for settings in ({"x": 1}, {"x": 2}):
        runs = runs + make_runs({"spectral-regularization": 0.93}, hyperparameters=settings)
    text = to_text(compare(runs, tasks))
    assert max(map(len, text.splitlines())) <= 100
    for part in ("seeds 100-105", f"split, fp32 on cpu, benchmark {EPOCH}", "95 % interval"):
        assert part in text
    assert "full-reset over none: 0.0" in " ".join(text.split())
    line = next(x for x in text.splitlines() if "hare-tortoise" in x and "[" in x)
    assert line.split()[:4] == ["3", "c", "hare-tortoise", "6"]


def test_markdown_is_one_table_each_and_escapes(make_runs):
    runs = make_runs() + make_runs({"a|b<i>": 0.93})
    text = to_markdown(compare(runs, DIGITS))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 5
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "a\\|b&lt;i>" in text
    assert text.startswith("### digits-v1 (test split")


def test_json_and_csv_hold_every_row(two_tasks):
    runs, tasks = two_tasks
    comparison = compare(runs, tasks)
    content = json.loads(to_json(comparison))
    assert [table["name"] for table in content["tables"]] == [t.name for t in comparison.tables]
    row, stored = comparison.tables[1].rows[0], content["tables"][1]["rows"][0]
    assert stored["gap_closed"] == dataclasses.asdict(row.gap_closed)
    assert stored["rank"] == 1 and len(stored["profile"]) == len(content["profile_thresholds"])
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert len(lines) == 3 * 4
    assert float(lines[4]["gap_closed_low"]) == row.gap_closed.low
    assert lines[4]["table"] == "digits-v1"
    assert float(lines[4]["improvement over none"]) == row.improvement["none"].value
