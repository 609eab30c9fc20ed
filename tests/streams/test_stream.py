"""The protocol's rules of a stream, on digits and on made-up data."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task
from ht_bench.streams.data import load
from ht_bench.streams.dataset import Dataset, make_dataset
from ht_bench.streams.stream import Stream
from ht_bench.streams.task import Task, parse_task

SEEDS = [0, 100, -7, 2**70]
ON_BOTH_SPLITS = pytest.mark.parametrize("split", ["test", "validation"])
HALVES = [{"new": 0.5, "wrong": 0.5}, {"new": 0.5, "wrong": 0.5}]


def made_up(train: int = 200, test: int = 60, classes: int = 5) -> Dataset:
    draw = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        images = draw.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
        return images, np.arange(count) % classes

    return make_dataset("made-up", part(train), part(test), classes)


def labels_of(phase: Any) -> dict[int, int]:
    """The label of each example."""
    return dict(zip(phase.indices, phase.labels, strict=True))


def assert_equal_draws(one: Any, two: Any) -> None:
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.labels, two.labels)


def task(phases: list[dict[str, Any]], family: str = "warm-start", **data: Any) -> Task:
    table = {
        "name": "made-up-v1",
        "family": family,
        "data": {"name": "made-up", **data},
        "net": {"name": "mlp"},
        "optimizer": {"lr": 1e-3},
        "phases": [{"updates": 1, **phase} for phase in phases],
    }
    return parse_task(table, "made-up")


ARRIVALS = [{"new": 0.1}, {"new": 0.3}, {"new": 0.6}]


@pytest.mark.parametrize("seed", SEEDS)
def test_arrivals_are_parts_of_the_training_set(seed: int) -> None:
    stream = Stream(task(ARRIVALS), made_up(), seed)
    before: set[int] = set()
    for index, size in enumerate((20, 80, 200)):
        indices = stream.phase(index).indices
        assert len(indices) == len(set(indices)) == size
        assert before <= set(indices)
        before = set(indices)
    assert before == set(range(200))


def test_old_examples_are_kept_as_asked() -> None:
    phases = [{"new": 0.5}, {"new": 0.5, "keep": 0.25}, {"keep": 0.0, "new": 0.0}]
    stream = Stream(task(phases[:2]), made_up(), 1)
    first, second = stream.phase(0).indices, stream.phase(1).indices
    assert len(second) == 25 + 100
    assert len(set(second) & set(first)) == 25
    with pytest.raises(UsageError, match="phase 2 has no examples"):
        Stream(task(phases), made_up(), 1).phase(2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.37, 1.0])
def test_wrong_labels_are_wrong_and_counted(seed: int, share: float) -> None:
    data = made_up()
    stream = Stream(task([{"new": 0.5, "wrong": share}, {"new": 0.5, "wrong": share}]), data, seed)
    for index, size in enumerate((100, 200)):
        phase = stream.phase(index)
        true = data.train_labels[phase.indices]
        assert (phase.labels != true).sum() == int(size * share)
        assert set(phase.labels) <= set(range(5))


def test_wrong_labels_are_spread_over_the_other_classes() -> None:
    data = made_up(train=4000)
    phase = Stream(task([{"new": 1.0, "wrong": 1.0}]), data, 0).phase(0)
    away = (phase.labels - data.train_labels[phase.indices]) % 5
    counts = np.bincount(away, minlength=5)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - 1000) < 5 * np.sqrt(1000 * 0.75)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_labels_of_digits_are_uniform_within_every_class(seed: int) -> None:
    """Chi-square over the 10 × 9 cells (true class, wrong class), 8 free in each row."""
    data = load("digits")
    spec = dataclasses.replace(get_task("continual-digits-v1"), name="all-wrong-v1")
    phases = tuple(dataclasses.replace(phase, wrong=1.0) for phase in spec.phases)
    counts = np.zeros((10, 10))
    stream = Stream(dataclasses.replace(spec, phases=phases), data, seed)
    for index in range(10):
        phase = stream.phase(index)
        np.add.at(counts, (data.train_labels[phase.indices], phase.labels), 1)
    assert np.trace(counts) == 0
    expected = np.repeat(counts.sum(1, keepdims=True) / 9, 10, 1)
    cells = ~np.eye(10, dtype=bool)
    statistic = ((counts - expected) ** 2 / expected)[cells].sum()
    assert 80 - 5 * np.sqrt(160) < statistic < 80 + 5 * np.sqrt(160)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_wrong_does_not_depend_on_class_or_arrival(seed: int) -> None:
    data = made_up(train=4000)
    stream = Stream(task([{"new": 0.5}, {"new": 0.5, "wrong": 0.5}]), data, seed)
    phase = stream.phase(1)
    true = data.train_labels[phase.indices]
    wrong = phase.labels != true
    old = np.isin(phase.indices, stream.phase(0).indices)
    for group in [old, ~old, *(true == label for label in range(5))]:
        assert abs(wrong[group].mean() - 0.5) < 5 * 0.5 / np.sqrt(group.sum())


@pytest.mark.parametrize("labels", ["true", "permuted", "random"])
def test_equal_phases_draw_their_labels_anew(labels: str) -> None:
    """The same examples in the same order: only the phase's number can tell the draws apart."""
    share = {} if labels == "random" else {"wrong": 0.5}
    phases = [{"new": 1.0, "labels": labels, **share}, {"labels": labels, **share}]
    stream = Stream(task(phases, "shuffled"), made_up(), 3)
    first, second = stream.phase(0), stream.phase(1)
    np.testing.assert_array_equal(first.indices, second.indices)
    assert (first.labels != second.labels).mean() > 0.3


def test_wrong_labels_are_drawn_anew_over_kept_examples() -> None:
    data = made_up()
    stream = Stream(task(HALVES), data, 3)
    old, new = labels_of(stream.phase(0)), labels_of(stream.phase(1))
    assert any(old[index] != new[index] for index in old)
    kept_wrong = sum(new[index] != data.train_labels[index] for index in old)
    assert 30 < kept_wrong < 70


@pytest.mark.parametrize("name", ["warm-start-digits-v1", "continual-digits-v1"])
def test_test_labels_are_never_wrong(name: str) -> None:
    data = load("digits")
    stream = Stream(get_task(name), data, 100)
    for index in range(len(get_task(name).phases)):
        view = stream.test(index)
        assert not view.from_training
        np.testing.assert_array_equal(view.labels, data.test_labels[view.indices])


@ON_BOTH_SPLITS
def test_inputs_are_permuted_as_tested_and_anew_in_each_phase(split: Any) -> None:
    stream = Stream(get_task("permuted-digits-v1"), load("digits"), 100, split)
    seen = set()
    for index in range(30):
        training, test = stream.phase(index).permutation, stream.test(index).permutation
        np.testing.assert_array_equal(training, test)
        np.testing.assert_array_equal(np.sort(training), np.arange(64))
        seen.add(tuple(training))
    assert (len(seen), len(stream.phase(29).indices)) == (30, 300)
    assert Stream(task(ARRIVALS), made_up(), 0).phase(0).permutation is None


@ON_BOTH_SPLITS
@pytest.mark.parametrize("seed", SEEDS)
def test_no_view_carries_a_wrong_label(seed: int, split: Any) -> None:
    data = made_up()
    stream = Stream(task([{"new": 1.0, "wrong": 1.0}]), data, seed, split)
    view = stream.test(0)
    source = data.train_labels if view.from_training else data.test_labels
    assert view.from_training is (split == "validation")
    np.testing.assert_array_equal(view.labels, source[view.indices])


def test_label_names_are_permuted_alike_in_training_and_test() -> None:
    data = made_up()
    phases = [{"new": 1.0, "labels": "permuted"}, {"labels": "permuted"}]
    stream = Stream(task(phases, "permuted"), data, 0)
    for index in range(2):
        phase, test = stream.phase(index), stream.test(index)
        names = dict(zip(data.train_labels[phase.indices], phase.labels, strict=True))
        assert sorted(names.values()) == list(range(5))
        expected = [names[label] for label in data.test_labels[test.indices]]
        np.testing.assert_array_equal(test.labels, expected)


def test_shuffled_labels_do_not_depend_on_the_images() -> None:
    data = load("digits")
    stream = Stream(get_task("shuffled-digits-v1"), data, 100)
    first, second = stream.phase(0), stream.phase(1)
    for phase in (first, second):
        assert 0.02 < (phase.labels == data.train_labels[phase.indices]).mean() < 0.2
    old, new = labels_of(first), labels_of(second)
    assert np.mean([old[index] == new[index] for index in new]) < 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_digits_keep_one_test_set_and_validate_on_the_undrawn(seed: int) -> None:
    data = load("digits")
    spec = get_task("continual-digits-v1")
    test, validation = Stream(spec, data, seed), Stream(spec, data, seed, "validation")
    assert len(data.test_labels) == 500
    np.testing.assert_array_equal(test.test(0).indices, np.arange(500))
    view = validation.test(9)
    assert view.from_training and len(view.indices) == 1297 - 1000
    drawn = set(validation.phase(9).indices)
    assert drawn == set(test.phase(9).indices)
    assert not drawn & set(view.indices)


@ON_BOTH_SPLITS
def test_both_splits_train_on_the_same_drawn_digits(split: Any) -> None:
    """Every seed draws its own, whatever the split."""
    spec, data = get_task("warm-start-digits-v1"), load("digits")
    drawn = [set(Stream(spec, data, seed, split).phase(1).indices) for seed in (100, 101)]
    assert [len(part) for part in drawn] == [300, 300]
    assert 30 < len(drawn[0] & drawn[1]) < 110  # 69 expected of 300 twice out of 1,297
    assert drawn[0] == set(Stream(spec, data, 100).phase(1).indices)


@pytest.mark.parametrize("train", [10, 15, 199, 200, 205])
def test_a_tenth_is_held_out_whatever_the_size(train: int) -> None:
    spec, data = task([{"new": 1.0}]), made_up(train=train)
    stream = Stream(spec, data, 3, "validation")
    training, held_out = set(stream.phase(0).indices), set(stream.test(0).indices)
    assert len(training) == train * 9 // 10
    assert training | held_out == set(range(train)) and not training & held_out
    assert set(Stream(spec, data, 3).phase(0).indices) == set(range(train))


def test_classes_arrive_once_and_are_tested_when_seen() -> None:
    data = made_up()
    phases = [{"classes": 2}, {"classes": 2}, {"classes": 1}]
    stream = Stream(task(phases, "class-incremental"), data, 5)
    sizes = []
    for index, seen in enumerate((2, 4, 5)):
        phase, test = stream.phase(index), stream.test(index)
        assert len(set(phase.labels)) == seen and set(phase.labels) == set(test.labels)
        sizes.append(len(test.indices))
    assert sizes == [24, 48, 60]
    streams = [Stream(task(phases, "class-incremental"), data, seed) for seed in range(9)]
    assert len({tuple(stream._class_order) for stream in streams}) > 4


@ON_BOTH_SPLITS
def test_old_classes_are_kept_whole(split: Any) -> None:
    data = made_up()
    phases = [{"classes": 2}, {"classes": 1}, {"classes": 2}]
    stream = Stream(task(phases, "class-incremental"), data, 5, split)
    seen: set[int] = set()
    for index in range(3):
        phase, test = stream.phase(index), stream.test(index)
        assert seen < set(phase.indices)
        seen = set(phase.indices)
        np.testing.assert_array_equal(phase.labels, data.train_labels[phase.indices])
        assert set(phase.labels) == set(test.labels)
        assert split == "test" or not seen & set(test.indices)
    assert seen == set(stream.training)


def test_draws_depend_on_seed_phase_and_epoch_alone() -> None:
    data = made_up()
    stream, again = (Stream(task(ARRIVALS), data, 7) for _ in range(2))
    later = stream.order(2, 3)  # asked for first: nothing is consumed in order
    np.testing.assert_array_equal(later, again.order(2, 3))
    orders = {tuple(stream.order(2, epoch)) for epoch in range(5)}
    orders |= {tuple(Stream(task(ARRIVALS), data, seed).order(2, 3)) for seed in (8, -8, 2**70)}
    assert len(orders) == 8
    np.testing.assert_array_equal(np.sort(later), np.arange(200))


def test_another_budget_or_noise_in_one_phase_shifts_nothing_in_the_next() -> None:
    data = made_up()
    longer = task([{**phase, "updates": 9} for phase in ARRIVALS])
    noisy = task([{"new": 0.1, "wrong": 0.5}, *ARRIVALS[1:]])
    for spec in (longer, noisy):
        one, two = Stream(task(ARRIVALS), data, 7), Stream(spec, data, 7)
        assert_equal_draws(one.phase(2), two.phase(2))
        np.testing.assert_array_equal(one.order(2, 0), two.order(2, 0))


@ON_BOTH_SPLITS
@pytest.mark.parametrize("name", ["continual-digits-v1", "shuffled-digits-v1"])
def test_nothing_depends_on_what_was_asked_before(name: str, split: Any) -> None:
    """A method that stops early, skips an epoch or looks ahead sees the same as every other."""
    spec, data = get_task(name), load("digits")
    ahead, behind = Stream(spec, data, 100, split), Stream(spec, data, 100, split)
    for index in range(5):
        for epoch in range(index):
            behind.order(index, epoch)
        behind.phase(index), behind.test(index)
    assert_equal_draws(ahead.phase(4), behind.phase(4))
    assert_equal_draws(ahead.test(4), behind.test(4))
    np.testing.assert_array_equal(ahead.order(4, 7), behind.order(4, 7))


@pytest.mark.parametrize("change", ["name", "seed"])
def test_another_name_or_seed_is_another_stream(change: str) -> None:
    data, spec = made_up(), task(HALVES)
    other = dataclasses.replace(spec, name="other-v1") if change == "name" else spec
    one, two = Stream(spec, data, 7), Stream(other, data, 8 if change == "seed" else 7)
    assert set(one.phase(0).indices) != set(two.phase(0).indices)
    assert (one.order(0, 0) != two.order(0, 0)).any()


def test_what_is_kept_is_drawn_anew_in_each_phase() -> None:
    phases = [{"new": 0.5}, {"keep": 0.5}, {"keep": 0.5}]
    stream = Stream(task(phases), made_up(), 1)
    first, second = set(stream.phase(1).indices), set(stream.phase(2).indices)
    assert len(first) == len(second) == 50 and first != second
    assert first | second <= set(stream.phase(0).indices)


@pytest.mark.parametrize("shares", [[0.1] * 10, [1 / 3] * 3, [0.1, 0.9], [0.7, 0.2, 0.1]])
def test_shares_that_binary_numbers_miss_lose_no_example(shares: list[float]) -> None:
    stream = Stream(task([{"new": share} for share in shares]), made_up(train=300), 0)
    sizes = [len(stream.phase(index).indices) for index in range(len(shares))]
    assert sizes == [round(300 * share) for share in np.cumsum(shares)]


def test_a_task_that_asks_for_too_much_is_refused() -> None:
    with pytest.raises(UsageError, match="train = 200, but made-up has 200"):
        Stream(task([{"new": 1.0}], train=200), made_up(), 0)
    with pytest.raises(UsageError, match="bring 6 classes, but made-up has 5"):
        Stream(task([{"classes": 6}], "class-incremental"), made_up(), 0)
