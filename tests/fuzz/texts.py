"""Readers of TOML and JSON: tasks, suites, recipes, the lock, results, submissions, rankings."""

from __future__ import annotations

import contextlib
import functools
import json
import tomllib
from pathlib import Path
from random import Random
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.version import EPOCH

from ..streams.task_mutations import mutate as mutate_task
from ..streams.test_hostile_tasks import AGENT, DATA
from .mutations import mutate_json, mutate_toml, to_json, to_toml
from .reader import Files, Reader, one_file

SUITE = """\
name = "suite-tiny-v1"
title = "Two tasks"
tasks = ["warm-start-digits-v1", "permuted-digits-v1"]
benchmark = "0.1"
description = "For the fuzzer."
[anchors.warm-start-digits-v1]
task_sha256 = "a"
data_sha256 = "b"
seeds = "100-102"
none = [0.5, 0.25, 0.125]
full_reset = [0.75, 0.5, 1.0]
precision = "fp32"
device = "cpu"
[anchors.warm-start-digits-v1.software]
torch = "2.13.0"
"""
RECIPE = """\
method = "l2"
summary = "Weight decay towards zero."
source = "Nobody 2024"
needs_boundaries = false
[default]
strength = 0.01
[agents]
strength = 0.001
[tasks.permuted-digits-v1]
strength = 0.1
[grid]
strength = [0.1, 0.01]
[space.strength]
low = 0.001
high = 1.0
log = true
[search.permuted-digits-v1]
task_sha256 = "a"
seeds = "200-201"
split = "validation"
regime = "whole"
sampler = "grid"
runs = 4
tried = [{ strength = 0.1, mean = 0.5, standard_error = 0.1 }]
"""
LOCK = "[tasks]\ntiny-v1 = 'aa'\nother-v1 = 'bb'\n"
RECORD: dict[str, Any] = {
    **{"schema": 1, "benchmark": "0.1", "task": "tiny-v1", "task_sha256": "a", "method": "none"},
    **{"data_sha256": "b", "hyperparameters": {"rate": 0.1}, "source_sha256": "c", "seed": 100},
    **{"split": "test", "precision": "fp32", "device": "cpu", "stack": 4, "classes": 10},
    **{"status": "finished", "retention": [0.5, None], "steps": 6, "extra_parameters": 0},
    "traits": {"needs_boundaries": False, "network": {}},
    "curve": {
        "phase": [0, 0, 1, 1],
        "step": [0, 4, 4, 6],
        "test/accuracy": [0.1, 0.5, 0.5, 0.75],
        "train/accuracy": [0.1, 0.5, None, 0.75],
    },
    "diagnostics": {"plasticity/dormant_fraction": [0.0, 0.0, None, 0.5]},
    "cost": {"seconds": 2.0, "peak_memory_bytes": 1000},
    "software": {"torch": "2.13.0"},
    "hardware": {"cpu": "one"},
}
VERIFIED = {
    "none": {
        **{"sha256": "a", "benchmark": "0.1", "level": "reproduced", "how": ["trained"]},
        **{"reruns": {"t": [100]}, "rules": {"t": "bits"}, "hardware": {"t": "one"}},
    },
    "l2": {"sha256": "b", "level": "consistent"},
}


def read_task(place: Path) -> str:
    from ht_bench.streams.task import load_task

    return load_task(place / "tiny.toml").sha256


def read_suite(place: Path) -> None:
    from ht_bench.streams.suite import get_suite

    for anchors in get_suite(place / "suite.toml").anchors.values():
        anchors.by_seed()


def read_recipe(place: Path) -> None:
    from ht_bench.methods.recipe import get_recipe

    assert get_recipe(str(place / "l2.toml")) is not None


def read_lock(place: Path) -> None:
    from ht_bench.streams import lock

    lock.read_lock(place)


def read_result(place: Path) -> None:
    from ht_bench.records import metrics, runs

    [record], _ = runs.read_runs(place)
    runs.is_finished(place / "seed100/result.json", "a", "b", "c")
    with contextlib.suppress(UsageError):  # it names the run
        metrics.final_metric(record, "warm-start", record["classes"])


def read_kept_task(place: Path) -> None:
    from ht_bench.records.runs import read_spec, write_spec

    try:
        read_spec(place, "tiny-v1")
    finally:
        write_spec(place, _task())


@functools.cache
def _task() -> Any:
    from ht_bench.streams.task import parse_task

    return parse_task(tomllib.loads(DATA), "tiny")


def kept_task() -> bytes:
    return to_json(_task().canonical())


def submission() -> bytes:
    file = Path(__file__).parents[2] / "leaderboard" / "submissions" / "0.1" / "l2.json"
    content = {**json.loads(file.read_bytes()), "benchmark": EPOCH}
    _, *others = content["tasks"]
    for other in others:
        del content["tasks"][other]
    return to_json(content)


def read_submission(place: Path) -> None:
    from ht_bench.leaderboard.valid import read_submission

    _, faults = read_submission(place / "l2.json")
    for fault in faults:
        assert len(str(fault)) < 1_000 and str(fault).isprintable() and str(fault).isascii()


def read_ranking(place: Path) -> None:
    from ht_bench.leaderboard.ranking_file import ranking_faults, read_ranking

    ranking_faults(read_ranking(place / "ranking.json"), ())


RANKING = {
    "benchmark": "0.1",
    "entries": [],
    "suites": {"suite-core-v1": {"none": {"rank": 1, "gap_closed": [0.0, 0.0, None]}}},
}


def read_verified(place: Path) -> None:
    from ht_bench.leaderboard import reading, verified

    found = verified.read_verified(place / "verified.json")
    verified.digests(found)
    content = {"name": "none", "benchmark": "0.1"}
    verified.level_of(reading.Submission(content, "a"), found)


def mutated_task(files: Files, draw: Random) -> Files:
    """With the keys of tasks half of the time."""
    [(name, content)] = files.items()
    if draw.random() < 0.4:
        return {name: to_toml(mutate_task(tomllib.loads(content.decode()), draw))}
    return {name: mutate_toml(content, draw)}


def toml(name: str, text: str, read: Any) -> Reader:
    return Reader(lambda: {name: text.encode()}, one_file(mutate_toml), read)


def of_json(name: str, content: Any, read: Any) -> Reader:
    return Reader(lambda: {name: content()}, one_file(mutate_json), read)


READERS = {
    "task": Reader(lambda: {"tiny.toml": DATA.encode()}, mutated_task, read_task),
    "agents-task": Reader(lambda: {"tiny.toml": AGENT.encode()}, mutated_task, read_task),
    "suite": toml("suite.toml", SUITE, read_suite),
    "recipe": toml("l2.toml", RECIPE, read_recipe),
    "lock": toml("LOCK.toml", LOCK, read_lock),
    "result": of_json("seed100/result.json", lambda: to_json(RECORD), read_result),
    "kept-task": of_json("tiny-v1/task.json", kept_task, read_kept_task),
    "submission": of_json("l2.json", submission, read_submission),
    "ranking": of_json("ranking.json", lambda: to_json(RANKING), read_ranking),
    "verified": of_json("verified.json", lambda: to_json(VERIFIED), read_verified),
}
