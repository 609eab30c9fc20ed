import pytest

from ht_bench.errors import UsageError
from ht_bench.records.metrics import (
    area_last_phase,
    describe_metric,
    final_metric,
    last_phase_accuracy,
    metric_key,
    on_split,
    phase_end_points,
    retention,
)
from ht_bench.streams.families import FAMILIES

# Untrained 0.1, then two points a phase.
THREE = [[0.1, 0.3, 0.5], [0.4, 0.7], [0.6, 0.9]]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("warm-start", 0.9),
        ("warm-start-clean", 0.9),
        ("continual", (0.7 + 0.9) / 2),
        ("class-incremental", (0.7 + 0.9) / 2),
        ("permuted", (0.7 + 0.9) / 2),
        ("shuffled", (0.35 + 0.45) / 2),  # of train/accuracy, half of test/accuracy here
        ("probe", (0.6 + 0.9) / 2 / 2),  # the last phase's curve
    ],
)
def test_final_metric_of_each_family(make_record, family, expected):
    assert final_metric(make_record(THREE), family, 10) == pytest.approx(expected)
    assert final_metric(make_record(THREE, status="diverged"), family, 10) == 0.1
    assert final_metric(make_record(THREE, status="diverged"), family, 4) == 0.25
    assert ("train" in describe_metric(family)) == (family in ("shuffled", "probe"))


def test_second_half_of_an_even_number_of_phases(make_record):
    record = make_record([[0.1, 0.2], [0.4], [0.6], [0.9]])
    assert final_metric(record, "permuted", 10) == pytest.approx(0.75)
    assert final_metric(record, "continual", 10) == pytest.approx((0.4 + 0.6 + 0.9) / 3)


def test_only_the_ends_of_phases_count(make_record):
    assert list(phase_end_points(make_record(THREE))) == [2, 4, 6]
    other = make_record([[0.0, 1.0, 0.5], [0.0, 0.7], [0.0, 0.9]])
    ends = [f.name for f in FAMILIES.values() if not f.is_control and f.reading.first is not None]
    assert len(ends) >= 6
    for family in ends:
        assert final_metric(other, family, 10) == final_metric(make_record(THREE), family, 10)


def test_last_phase_accuracy_uses_the_familys_own_curve(make_record):
    record = make_record(THREE)
    assert last_phase_accuracy(record, "continual", 10) == 0.9
    assert last_phase_accuracy(record, "shuffled", 10) == 0.45
    assert last_phase_accuracy(record | {"status": "diverged"}, "continual", 5) == 0.2


def test_area_starts_right_after_the_boundary(make_record):
    record = make_record([[0.0, 0.9], [0.5, 0.7, 0.8]])
    record["curve"]["step"] = [0, 10, 10, 40, 50]  # 30 steps, then 10
    assert area_last_phase(record, "warm-start", 10) == pytest.approx((3 * 0.6 + 0.75) / 4)
    assert area_last_phase(record | {"status": "diverged"}, "warm-start", 10) == 0.1


def test_area_of_an_older_curve_starts_at_its_phases_first_point(make_record):
    assert area_last_phase(make_record(THREE), "warm-start", 10) == pytest.approx(0.75)
    assert area_last_phase(make_record([[0.0, 0.9], [0.5]]), "warm-start", 10) == 0.5


def test_area_of_a_lone_phase_starts_at_the_untrained_network(make_record):
    assert area_last_phase(make_record([[0.1, 0.5]]), "warm-start", 10) == pytest.approx(0.3)


def test_retention_is_the_mean_over_phases_before_the_last(make_record):
    assert retention(make_record(THREE), 10) is None
    assert retention(make_record(THREE, retention=[0.4, 0.6]), 10) == pytest.approx(0.5)
    assert retention(make_record(THREE, retention=[0.4, 0.6, 0.9]), 10) == pytest.approx(0.5)
    assert retention(make_record(THREE, retention=[0.4, 0.6], status="diverged"), 10) == 0.1


def test_what_cannot_be_measured_is_refused_by_name(make_record):
    with pytest.raises(UsageError, match="family 'atari'"):
        metric_key("atari")
    with pytest.raises(UsageError, match="'continual' is scored on the phases after the first"):
        final_metric(make_record([[0.1, 0.5]]), "continual", 10)
    record = make_record(THREE, seed=107)
    record["curve"]["test/accuracy"][-1] = None
    with pytest.raises(UsageError, match="'none' on 'digits-v1' at seed 107"):
        final_metric(record, "warm-start", 10)
    with pytest.raises(UsageError, match="no number where it is scored"):
        area_last_phase(record, "warm-start", 10)
    del record["curve"]["test/accuracy"]
    with pytest.raises(UsageError, match="no curve 'test/accuracy'"):
        final_metric(record, "warm-start", 10)
    record = make_record(THREE)
    record["curve"]["step"][-1] = 0
    with pytest.raises(UsageError, match="Steps do not rise"):
        area_last_phase(record, "warm-start", 10)


def test_a_validation_run_is_no_test() -> None:
    words = describe_metric("warm-start")
    assert on_split(words, "test") == words == "test accuracy at the end of the last phase"
    assert on_split(words, "validation") == "validation accuracy at the end of the last phase"
    for family in ("probe", "swap"):  # on the phase's own examples, in an environment
        assert on_split(describe_metric(family), "validation") == describe_metric(family)
