"""ht-bench tensorboard: what it writes and says, and what the real TensorBoard then serves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ht_bench.ranking.comparison import compare_folder

Call = Callable[..., Any]
SERVED = 600.0
"""Seconds within which TensorBoard has started and read three runs, also on a busy machine."""
SESSIONS = {"startIndex": 0, "sliceSize": 100, "allowedStatuses": ["STATUS_SUCCESS"]}


@pytest.fixture(autouse=True)
def _a_gap_to_close(runs: Path) -> None:
    """Six updates open none for sure."""
    for path in runs.glob("*/full-reset-*/*/result.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        record["curve"]["test/accuracy"][-1] = 0.99
        path.write_text(json.dumps(record), encoding="utf-8")


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


def test_it_writes_a_run_per_method(call: Call, runs: Path) -> None:
    for _ in range(2):  # a second call replaces the first one's files
        answer = call("tensorboard", runs, "--no-serve")
        assert answer.code == 0
        assert answer.out.startswith(f"3 runs, one per method, in {runs}/aggregate.")
        assert f"tensorboard --logdir {runs}/aggregate" in answer.out
        assert "No gap closed" not in answer.out
    names = sorted(path.name for path in (runs / "aggregate").iterdir())
    assert names == ["full-reset", "hare-tortoise", "none"]
    events = EventAccumulator(str(runs / "aggregate" / "none"), size_guidance={"scalars": 0})
    events.Reload()
    records = [json.loads(path.read_text()) for path in runs.glob("*/none-*/*/result.json")]
    curves = [record["curve"]["test/accuracy"] for record in records]
    means = [sum(values) / 4 for values in zip(*curves, strict=True)]
    found = events.Scalars("tiny-v1/test accuracy")
    assert [event.step for event in found] == records[0]["curve"]["step"]
    assert [event.value for event in found] == pytest.approx(means)
    assert call("compare", runs).code == 0


def test_without_an_anchor_it_says_that_gap_closed_is_absent(call: Call, runs: Path) -> None:
    for folder in runs.glob("*/full-reset-*"):
        shutil.rmtree(folder)
    answer = call("tensorboard", runs, "--no-serve")
    assert answer.code == 0
    assert "No gap closed for tiny-v1 (test split, fp32 on cpu): it needs none and" in answer.out


def test_other_files_in_its_folder_are_refused(call: Call, runs: Path) -> None:
    (runs / "aggregate").mkdir()
    (runs / "aggregate" / "notes.txt").write_text("mine")
    answer = call("tensorboard", runs, "--no-serve")
    assert answer.code == 2 and "notes.txt is no TensorBoard file" in answer.error
    assert (runs / "aggregate" / "notes.txt").read_text() == "mine"


def test_a_port_in_use_is_named_before_anything_is_written(call: Call, runs: Path) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        answer = call("tensorboard", runs, "--port", str(port))
    assert answer.code == 2
    assert f"Port {port} is in use or not to be had; name another with --port" in answer.error
    assert not (runs / "aggregate").exists()


@pytest.mark.parametrize(("words", "shown"), [((), "aggregate"), (("--seeds",), ".")])
def test_seeds_are_served_when_asked_for(
    call: Call, runs: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], shown: str
) -> None:
    commands: list[list[str]] = []

    def record(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("ht_bench.commands.tensorboard.subprocess.run", record)
    port = str(free_port())
    answer = call("tensorboard", runs, "--port", port, *words)
    assert answer.code == 0
    assert ("a row per seed" in answer.out) is bool(words)
    assert commands[0][1:] == [
        "-m", "tensorboard.main", "--logdir", str(runs / shown), "--port", port,
    ]  # fmt: skip


# ---- the real TensorBoard ----


class Server:
    """A running `ht-bench tensorboard`; `get` asks it and returns the JSON it answers."""

    def __init__(self, port: int) -> None:
        self.address = f"http://localhost:{port}/data/"

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(self.address + path, data=data, headers=headers)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(asked, timeout=300) as answer:
            return json.load(answer)

    def wait(self, runs: list[str]) -> None:
        deadline = time.monotonic() + SERVED
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if sorted(self.get("runs")) == runs:
                    return
            time.sleep(0.2)
        raise AssertionError(f"TensorBoard did not serve {runs} within {SERVED:.0f} seconds.")


@pytest.fixture
def server(runs: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "ht_bench", "tensorboard", str(runs), "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield Server(port)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=300)


def test_tensorboard_serves_the_comparison(server: Server, runs: Path) -> None:
    methods = ["full-reset", "hare-tortoise", "none"]
    server.wait(methods)
    layout = server.get("plugin/custom_scalars/layout")["category"]
    assert [category["title"] for category in layout] == ["all tasks", "tiny-v1"]
    [chart] = layout[0]["chart"]
    assert chart["title"] == "tiny-v1 test/accuracy"

    tags = server.get("plugin/scalars/tags")
    assert sorted(tags) == methods
    series = [chart["margin"]["series"][0] for chart in layout[1]["chart"]]
    assert all(set(trio.values()) <= set(tags["hare-tortoise"]) for trio in series)

    [trio] = chart["margin"]["series"]
    for run in methods:
        for tag in trio.values():
            query = urlencode({"run": run, "tag": tag})
            found = server.get(f"plugin/custom_scalars/scalars?{query}")
            assert [step for _, step, _ in found["tag_to_events"][tag]] == [0, 2, 4, 5, 6]

    rows, _, _ = compare_folder(runs)
    wanted = {row.label: row.gap_closed for row in rows.tables[0].rows}
    groups = server.get("plugin/hparams/session_groups", SESSIONS)["sessionGroups"]
    assert sorted(group["name"] for group in groups) == methods
    for group in groups:
        assert group["hparams"]["method"] == group["name"]
        scores = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        gap = wanted[group["name"]]
        assert gap is not None
        assert scores["score/gap closed: tiny-v1"] == pytest.approx(gap.value, rel=1e-6)
        assert scores["score/seeds"] == 4
    names = [
        info["displayName"] for info in server.get("plugin/hparams/experiment", {})["metricInfos"]
    ]
    assert names == ["gap closed: tiny-v1", "metric: tiny-v1", "seeds"]
