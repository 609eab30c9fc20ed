"""Level *consistent*: untrained networks recomputed, whole numbers of examples, retention."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.verify import Checks, verify
from ht_bench.running import reruns
from ht_bench.streams.catalog import get_task

from .conftest import committed

Content = dict[str, Any]
Write = Callable[..., Path]
CURVE = "$.tasks['quick-digits-v1'].seeds['100'].curve['test/accuracy']"


def test_the_honest_one(entry: Any) -> None:
    report = entry.verify()
    assert (report.level, report.faults, report.exit_code) == ("consistent", [], 0)


def test_untrained_networks_are_recomputed(
    honest_bytes: bytes, first_points: Any, entry: Any
) -> None:
    """They are the curves' first points, bit for bit, on the software that made them."""
    submission = Submission(json.loads(honest_bytes))
    found = first_points(find_known("quick-digits-v1"), submission)
    assert {seed: values["test/accuracy"] for seed, values in found.items()} == {
        seed: entry.curve(seed)[0] for seed in range(100, 120)
    }


def test_a_first_point_one_example_off(entry: Any) -> None:
    entry.curve()[0] += 1 / 500
    report = entry.verify()
    assert report.level == "valid" and report.exit_code == 1
    [fault] = report.faults
    assert fault.path == CURVE and "untrained network gives" in fault.sentence


@pytest.mark.parametrize(("examples", "caught"), [(2, False), (3, True)])
def test_other_arithmetic_may_turn_two_examples(examples: int, caught: bool, entry: Any) -> None:
    entry.curve()[0] = round(entry.curve()[0] + examples / 500, 3)
    entry.table["software"]["torch"] = "1.0"
    assert bool(entry.verify().faults) is caught


@pytest.mark.parametrize(("part", "key"), [("software", "threads"), ("hardware", "processor")])
def test_what_counts_as_other_arithmetic(part: str, key: str, entry: Any) -> None:
    entry.curve()[0] = round(entry.curve()[0] + 1 / 500, 3)
    if part == "software":
        entry.table[part]["python"] = "other"
        assert entry.verify().level == "valid"
    entry.table[part][key] = "other"
    assert entry.verify().level == "consistent"


def test_a_curve_shifted_in_time(entry: Any) -> None:
    for seed in range(100, 120):
        values = entry.curve(seed)
        values[:] = values[1:] + values[-1:]
    report = entry.verify()
    assert report.level == "valid" and len(report.faults) == 20


def test_curves_swapped_between_seeds(entry: Any) -> None:
    seeds = entry.table["seeds"]
    other = next(s for s in seeds if entry.curve(int(s))[0] != entry.curve()[0])
    seeds["100"], seeds[other] = seeds[other], seeds["100"]
    assert len(entry.verify().faults) == 2


@pytest.mark.parametrize("change", [0.0005, 1e-6, -0.001])
def test_accuracies_are_whole_numbers_of_examples(change: float, entry: Any) -> None:
    entry.curve()[9] += change
    [fault] = entry.verify().faults
    assert fault.path == CURVE and "at point 9 is no whole number of 500" in fault.sentence


def test_a_diverged_run_stands_at_chance(entry: Any) -> None:
    entry.curve()[5:] = [0.1] * (len(entry.curve()) - 5)
    entry.table["seeds"]["100"]["status"] = "diverged"
    assert entry.verify().level == "consistent"


def test_faults_are_bounded(entry: Any) -> None:
    for seed in range(100, 120):
        entry.curve(seed)[0] = 0.9001
    assert len(entry.verify().faults) == 20


def test_train_accuracy_is_counted_on_the_phases_examples() -> None:
    known = find_known("shuffled-digits-v1")
    assert not isinstance(known, str)
    assert known.sizes(100, "train/accuracy") == [500] * 20
    assert known.sizes(100, "test/accuracy") == [500] * 20


def retention_report(write: Write, change: Callable[[list[float]], None]) -> Any:
    content = committed("none")
    content["tasks"] = {"permuted-digits-v1": content["tasks"]["permuted-digits-v1"]}
    change(content["tasks"]["permuted-digits-v1"]["seeds"]["103"]["retention"])
    checks = Checks(reruns.machine, first_points=lambda known, submission: {})
    return verify(write(content, "none.json"), checks)


def test_retention_ends_where_the_curve_does(write: Write) -> None:
    assert retention_report(write, lambda kept: None).level == "consistent"
    [fault] = retention_report(write, lambda kept: kept.__setitem__(-1, 0.5)).faults
    assert fault.path.endswith("seeds['103'].retention") and "its curve at" in fault.sentence
    [fault] = retention_report(write, lambda kept: kept.__setitem__(0, 0.12345)).faults
    assert "at point 0 is no whole number of 500 examples" in fault.sentence


NETWORKS: list[tuple[dict[str, Any], str]] = [
    ({"hidden": [64, 64]}, "untrained network gives"),
    ({"activation": "crelu"}, "untrained network gives"),
    ({"hidden": 5}, "untrained network gives"),
    ({"hidden": []}, "untrained network gives"),
    ({"hidden": None}, "every width must be a positive integer"),
    ({"hidden": "wide"}, "every width must be a positive integer"),
    ({"hidden": [True]}, "every width must be a positive integer"),
    ({"hidden": [128.0]}, "every width must be a positive integer"),
    ({"hidden": [0]}, "every width must be a positive integer"),
    ({"hidden": [-1]}, "every width must be a positive integer"),
    ({"hidden": [["x"]]}, "not valid"),
    ({"hidden": [3], "activation": "crelu"}, "multiple of 2"),
    ({"hidden": [8193]}, "beyond 8192"),
    ({"hidden": [1e308]}, "beyond 8192"),
    ({"hidden": [8192] * 100}, "at most 536,870,912 are built"),
    ({"hidden": [4] * 2000}, "more than 100 items"),
    ({"hidden": [2000, 2000]}, "are the most here"),
    ({"hidden": [2500, 1, 1]}, "units, more than 4 times"),
    ({"activation": "tanhh"}, "must be one of"),
    ({"activation": ["relu"]}, "must be one of"),
    ({"activation": "os:system"}, "names code"),
    ({"name": "my_net.py:build"}, "names code"),
    ({"activation": {"name": "relu", "inplace": True}}, "no option 'inplace'"),
    ({"activation": {"name": "interval-dropout", "keep": "$keep"}}, "names no hyperparameter"),
    ({"activation": {"name": "leaky-relu", "negative_slope": "x"}}, "it fails"),
    ({"activation": {"name": "leaky-relu", "negative_slope": 1e308}}, "beyond 8192"),
    ({"linear_norm": True}, "must be one of"),
    ({"name": "cnn", "hidden": 16, "channels": [4]}, "does not stack seeds"),
    ({"name": "cnn", "hidden": 16, "channels": [1024]}, "units, more than 4 times"),
    ({"name": "vgg16"}, "unknown key 'hidden'"),
    ({"name": "../../etc/passwd"}, "unknown network"),
    ({"name": None}, "unknown network"),
    ({"name": ["mlp"]}, "unknown network"),
    ({"score": 1}, "unknown key"),
    ({"a\nb": 1}, "unknown key 'a\\nb'"),
    ({"": 1}, "not valid"),
]


@pytest.mark.parametrize(("network", "said"), NETWORKS)
def test_a_strangers_network(network: dict[str, Any], said: str, entry: Any) -> None:
    entry.content["method"]["network"] = network
    report = entry.verify()
    assert report.exit_code == 1
    assert said in str(report.faults[0]) or report.level == said == "not valid"
    assert all(str(fault).isascii() and str(fault).isprintable() for fault in report.faults)


def test_channels_that_would_fill_the_memory() -> None:
    """Few parameters, yet a thousand images of 8192 maps of 32 x 32 take 33 GB."""
    task = get_task("warm-start-cifar10-small-v1")
    photographs: Any = SimpleNamespace(train_images=np.empty((0, 3, 32, 32)))
    known = KnownTask(task, 10, photographs, None)
    with pytest.raises(UsageError, match="units, more than 4 times"):
        reruns._check_network(known, {"channels": [8192, 1, 1]})
    reruns._check_network(known, {"channels": [64, 64, 64]})


def test_the_submissions_precision_is_what_is_recomputed(
    honest_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reruns._untrained.cache_clear()
    seen = []
    make = reruns.make_run
    monkeypatch.setattr(reruns, "make_run", lambda *given: seen.append(given[-1]) or make(*given))
    content = json.loads(honest_bytes)
    content["precision"] = "bf16"
    content["tasks"]["quick-digits-v1"]["software"]["threads"] = 10**18
    found = reruns.first_points(find_known("quick-digits-v1"), Submission(content))
    assert {compute.precision for compute in seen} == {"bf16"}
    assert {compute.threads for compute in seen} == {1}
    assert len(found) == 20


def test_untrained_networks_are_built_once_for_entries_that_share_them(
    honest_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other names and hyperparameters share them; another network and precision do not."""
    reruns._untrained.cache_clear()
    built = []
    make = reruns.make_run
    monkeypatch.setattr(reruns, "make_run", lambda *given: built.append(given) or make(*given))

    def points(name: str, network: Content, precision: str) -> Any:
        content = json.loads(honest_bytes)
        content["name"], content["precision"] = name, precision
        content["method"]["network"] = network
        return reruns.first_points(find_known("quick-digits-v1"), Submission(content))

    first = points("a", {}, "fp32")
    stacks = len(built)
    assert stacks >= 1 and points("b", {}, "fp32") == first and len(built) == stacks
    assert points("c", {"hidden": [8]}, "fp32") != first and len(built) == 2 * stacks
    points("d", {}, "bf16")
    assert len(built) == 3 * stacks


def test_data_that_are_not_here(monkeypatch: pytest.MonkeyPatch, entry: Any) -> None:
    known = find_known("quick-digits-v1")
    assert not isinstance(known, str)
    absent = dataclasses.replace(known, data=None)
    monkeypatch.setattr("ht_bench.leaderboard.verify.find_known", lambda name: absent)
    report = entry.verify()
    assert (report.level, report.exit_code) == ("valid", 2)
    assert "needs data that are not on this machine" in report.could_not[0]
