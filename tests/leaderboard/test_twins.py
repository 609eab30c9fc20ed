"""Rounding twins: honest work passes at the stated rate, boosts and swaps do not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.commands.verify import _print
from ht_bench.leaderboard.known import find_known
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.reproduced import beyond_noise
from ht_bench.leaderboard.twins import ERROR_RATE, Quantity, count_tests, distances, excesses, power
from ht_bench.leaderboard.verify import _mates
from ht_bench.streams.task import Task

Content = dict[str, Any]
TASK = "quick-digits-v1"
Array = Any


def quantities(claimed: Array, again: Array) -> list[Quantity]:
    """What is compared of curves whose last point is the score: claimed [K, P], again [K, R, P]."""
    mean, largest = distances(claimed, again)
    return [
        Quantity("final", claimed[:, -1], again[..., -1], 1e-4, scored=True),
        Quantity("mean", claimed.mean(-1), again.mean(-1), 1e-4),
        Quantity("mean distance", *mean, 1e-4, distance=True),
        Quantity("largest distance", *largest, 1e-4, distance=True),
    ]


def draw(generator: np.random.Generator, seeds: int, tail: int | None = None) -> tuple[Any, Any]:
    """Return (claimed, again) of honest runs whose noise grows along the curve."""
    truth = 0.9 + 0.02 * generator.standard_normal((seeds, 1, 12))
    scale = np.linspace(0.0, 0.005, 12)
    shape = (seeds, 3, 12)
    noise = generator.standard_t(tail, shape) if tail else generator.standard_normal(shape)
    runs = truth + scale * noise
    return runs[:, 0], runs[:, 1:]


def refusals(forge: Callable[[Array], Array], seeds: int, tail: int | None = None) -> float:
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        claimed, again = draw(generator, seeds, tail)
        refused += any(True for _ in excesses(quantities(forge(claimed), again), ERROR_RATE))
    return refused / 400


@pytest.mark.parametrize(("seeds", "tail"), [(5, None), (10, None), (20, None), (5, 5), (10, 5)])
def test_honest_work_is_refused_no_more_often_than_stated(seeds: int, tail: int | None) -> None:
    assert refusals(lambda claimed: claimed, seeds, tail) <= 2 * ERROR_RATE


def raise_one(claimed: Array) -> Array:
    claimed[0] += 0.05
    return claimed


@pytest.mark.parametrize(
    ("forge", "least"),
    [
        (lambda claimed: claimed + 0.02, 0.99),
        (lambda claimed: claimed + 0.01, 0.9),
        (lambda claimed: claimed - 0.02, 0.99),  # a lower anchor flatters every other entry
        (raise_one, 0.99),
        (lambda claimed: claimed[::-1], 0.95),
    ],
    ids=["0.02", "0.01", "lower", "one seed", "seeds swapped"],
)
def test_forgeries_are_caught(forge: Callable[[Array], Array], least: float) -> None:
    assert refusals(forge, 10) >= least


def test_the_stated_power_is_reached() -> None:
    generator = np.random.default_rng(1)
    caught, one = 0, 0
    for _ in range(400):
        claimed, again = draw(generator, 10)
        able = power(quantities(claimed, again), ERROR_RATE)
        boosted = quantities(claimed + able.every_seed, again)
        caught += any(excess.index is None for excess in excesses(boosted, ERROR_RATE))
        claimed[3] += able.one_seed
        found = excesses(quantities(claimed, again), ERROR_RATE)
        one += any(excess.index == 3 for excess in found)
    assert caught / 400 >= 0.88 and one / 400 >= 0.88


def test_what_lies_beyond_is_named() -> None:
    claimed, again = draw(np.random.default_rng(2), 10)
    claimed[4] += 0.1
    found = [*excesses(quantities(claimed, again), ERROR_RATE)]
    outlier = next(excess for excess in found if excess.name == "final")
    assert outlier.index == 4 and outlier.difference == pytest.approx(0.1, abs=0.02)
    assert 0 < outlier.allowed < 0.1
    assert count_tests(quantities(claimed, again)) == 8


def test_without_any_noise_only_the_resolution_is_forgiven() -> None:
    again = np.full((5, 2, 3), 0.5)
    claimed = np.full((5, 3), 0.5)
    assert not [*excesses(quantities(claimed, again), ERROR_RATE)]
    assert [*excesses(quantities(claimed + 0.01, again), ERROR_RATE)]


# ---- through `verify` ----


Rerun = Callable[..., Mapping[int, Content]]


@pytest.fixture
def elsewhere(records: Mapping[int, Content]) -> Rerun:
    """A rerun on another machine: its curves differ by a few examples from a certain point on."""

    def rerun(
        known: Any, submission: Any, seeds: Sequence[int], twin: int
    ) -> Mapping[int, Content]:
        hardware = {**records[100]["hardware"], "instructions": "none to speak of"}
        return {seed: {**shaken(records[seed], seed, twin), "hardware": hardware} for seed in seeds}

    return rerun


def shaken(record: Content, seed: int, twin: int) -> Content:
    values = np.array(record["curve"]["test/accuracy"])
    generator = np.random.default_rng([seed, twin])
    values[5:] += generator.integers(-2, 3, len(values) - 5) / 500
    curve = {**record["curve"], "test/accuracy": values.round(3).tolist()}
    return {**record, "curve": curve}


def test_an_honest_entry_is_reproduced_elsewhere(
    elsewhere: Rerun, entry: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    report = entry.verify("reproduced", rerun=elsewhere, seeds=1)
    assert (report.level, report.faults) == ("reproduced", [])
    again = report.reruns[TASK]
    assert again["rule"] == "rounding twins" and again["agree"]
    assert len(again["seeds"]) >= 5
    assert "none to speak of" in again["hardware"]
    assert 0 < again["power"]["every_seed"] < again["power"]["one_seed"]
    assert "equal bits were not asked for, since this machine has other" in report.notes[0]
    _print(report)
    assert "would have been caught with probability 0.9" in capsys.readouterr().out


@pytest.mark.parametrize("boost", [0.01, 0.02, -0.02])
def test_a_boost_of_every_seed_is_not(boost: float, elsewhere: Rerun, entry: Any) -> None:
    for seed in range(100, 120):
        values = entry.curve(seed)
        values[1:] = [round(min(1.0, value + boost), 3) for value in values[1:]]
    report = entry.verify("reproduced", rerun=elsewhere, seeds=10)
    assert report.level == "consistent" and report.reruns[TASK]["how"] == "not at all"
    assert any("on average" in fault.sentence for fault in report.faults)


def test_claiming_another_machine_weakens_nothing(records: Any, replay: Any, entry: Any) -> None:
    """Only 0.004 above what this machine gives bit for bit, but on every seed."""
    entry.table["hardware"]["processor"] = "A processor that nobody has"
    for seed in range(100, 120):
        values = entry.curve(seed)
        values[1:] = [round(min(1.0, value + 0.004), 3) for value in values[1:]]
    assert entry.verify("reproduced", rerun=replay, seeds=10).level == "consistent"


@pytest.mark.parametrize("seeds", [(100,), (100, 101, 102, 103)])
def test_too_few_named_seeds_measure_no_noise(
    seeds: tuple[int, ...], elsewhere: Rerun, entry: Any
) -> None:
    report = entry.verify("reproduced", rerun=elsewhere, seeds=seeds)
    assert report.exit_code == 2 and "5 seeds or more" in report.could_not[0]


@pytest.mark.parametrize(("key", "value"), [("status", "diverged"), ("steps", 39)])
def test_rounding_changes_no_outcome(key: str, value: Any, elsewhere: Rerun, entry: Any) -> None:
    entry.table["seeds"]["101"][key] = value
    report = entry.verify("reproduced", rerun=elsewhere, seeds=(100, 101, 102, 103, 104))
    assert any(f"{key} is" in fault.sentence for fault in report.faults)


def test_a_retention_that_was_touched_up(records: Mapping[int, Content], entry: Any) -> None:
    known = find_known(TASK)
    assert not isinstance(known, str)
    seeds = range(100, 105)
    again = {
        seed: [{**records[seed], "retention": [0.5 + 0.002 * twin, 0.9]} for twin in (0, 1)]
        for seed in seeds
    }
    for first, agree in ((0.504, True), (0.6, False)):
        for seed in seeds:
            entry.table["seeds"][str(seed)]["retention"] = [first, 0.9]
        _, faults = beyond_noise(Submission(entry.content), known, again, ERROR_RATE)
        assert (not faults) is agree
        assert agree or "retention" in faults[0].sentence
    entry.table["seeds"]["100"]["retention"] = None
    _, faults = beyond_noise(Submission(entry.content), known, again, ERROR_RATE)
    assert "retained" in faults[0].sentence


# ---- how many seeds, at what rate, of which returns ----


def test_noise_is_measured_on_five_seeds_or_a_stack() -> None:
    known = find_known(TASK)
    assert not isinstance(known, str) and known.task.stack == 10
    assert isinstance(known.task, Task)
    training = dataclasses.replace(known.task.training, stack=1)
    lone = dataclasses.replace(known, task=dataclasses.replace(known.task, training=training))
    seeds = range(100, 120)
    assert len(_mates(known, {100: {}}, seeds, 1)) == 9
    assert len(_mates(lone, {100: {}}, seeds, 1)) == 4
    assert _mates(lone, {seed: {} for seed in range(100, 107)}, seeds, 7) == ()
    assert _mates(lone, {100: {}, 101: {}}, (100, 101), 1) == ()


def test_the_tasks_of_a_submission_share_its_error_rate(
    elsewhere: Rerun, entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def note(submission: Any, known: Any, runs: Any, rate: float) -> Any:
        asked.append(rate * len(submission.tasks))
        return beyond_noise(submission, known, runs, rate)

    monkeypatch.setattr("ht_bench.leaderboard.verify.beyond_noise", note)
    entry.verify("reproduced", rerun=elsewhere, seeds=1)
    assert asked == [ERROR_RATE]


@pytest.mark.parametrize(("boost", "agree"), [(0.0, True), (0.3, True), (100.0, False)])
def test_returns_are_compared_on_their_own_scale(boost: float, agree: bool) -> None:
    """Reruns that differ by a step or two of CartPole's 500, on 8 seeds of a committed entry."""
    name = "swap-cartpole-ppo-v1"
    known = find_known(name)
    assert not isinstance(known, str)
    folder = Path(__file__).parents[2] / "leaderboard" / "submissions" / "0.1"
    content = json.loads((folder / "none.json").read_text(encoding="utf-8"))
    honest = Submission(content)
    again = {}
    for seed in range(100, 108):
        record = honest.record(name, seed, known.random)
        again[seed] = [moved(record, seed, twin) for twin in (0, 1)]
    for seed in again:
        run = content["tasks"][name]["seeds"][str(seed)]
        run["curve"]["eval/return"] = [value + boost for value in run["curve"]["eval/return"]]
    _, faults = beyond_noise(Submission(content), known, again, ERROR_RATE)
    assert (not faults) is agree


def moved(record: Content, seed: int, twin: int) -> Content:
    values = np.array(record["curve"]["eval/return"])
    values += np.random.default_rng([seed, twin]).normal(0, 2, len(values))
    return {**record, "curve": {**record["curve"], "eval/return": values.tolist()}}
