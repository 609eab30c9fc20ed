"""A leaderboard of any size, made of copies of one submission: `benchmarks.growth` verifies it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth_folder import raised
from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.submit import write_submission
from ht_bench.leaderboard.valid import read_submission
from ht_bench.running.reruns import first_points
from ht_bench.streams.catalog import adopt_task


def write_board(path: Path, tasks: Sequence[Path], methods: Sequence[str]) -> None:
    """Write a submission per method beside the one at `path`, all of them consistent.

    Their curves begin where the untrained networks of their seeds do.
    """
    for task in tasks:
        adopt_task(task)
    submission, faults = read_submission(path)
    assert submission is not None, faults
    content = _begun(submission)
    draw = np.random.default_rng(0)
    for index, name in enumerate(methods):
        own = _named(content, name, 40 if name == "full-reset" else index, draw)
        write_submission(path.with_name(f"{name}.json"), own)


def _begun(submission: Submission) -> dict[str, Any]:
    content = copy.deepcopy(dict(submission.content))
    for name, table in content["tasks"].items():
        known = find_known(name)
        assert isinstance(known, KnownTask)
        for seed, values in first_points(known, submission).items():
            curve = table["seeds"][str(seed)]["curve"]
            curve["test/accuracy"][0] = values["test/accuracy"]
    return content


def _named(
    content: Mapping[str, Any], name: str, gain: int, draw: np.random.Generator
) -> dict[str, Any]:
    own = copy.deepcopy(dict(content))
    own["name"] = own["method"]["name"] = name
    own["method"]["source_sha256"] = hashlib.sha256(name.encode()).hexdigest()
    for table in own["tasks"].values():
        for run in table["seeds"].values():
            run["curve"]["test/accuracy"] = raised(run["curve"]["test/accuracy"], gain, draw)
    return own
