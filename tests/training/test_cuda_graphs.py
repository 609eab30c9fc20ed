"""`CudaGraphs` on a torch.cuda made of tapes, whose captures carry nothing out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.streams.data import load
from ht_bench.streams.task import Task
from ht_bench.training.capture import CudaGraphs
from ht_bench.training.supervised import SupervisedRun
from ht_bench.training.tape import Tapes, _Tape


class Graph:
    """Records between begin and end, and takes back what was done meanwhile."""

    def capture_begin(self, pool: Any) -> None:
        assert pool == "pool" and CALLS[-1] == "synchronize"
        CALLS.append("begin")
        self.tape = _Tape()
        self.tape.__enter__()

    def capture_end(self) -> None:
        CALLS.append("end")
        self.tape.__exit__(None, None, None)
        self.tape.undo()

    def replay(self) -> None:
        CALLS.append("replay")
        self.tape.replay()


class Stream:
    def wait_stream(self, other: Any) -> None:
        CALLS.append("wait_stream")


class Event:
    def record(self) -> None:
        CALLS.append("record")

    def synchronize(self) -> None:
        CALLS.append("event")


CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def stream(chosen: Any) -> Iterator[None]:
        yield

    fakes: dict[str, Any] = {
        "CUDAGraph": Graph,
        "Stream": Stream,
        "Event": Event,
        "stream": stream,
        "current_stream": Stream,
        "graph_pool_handle": lambda: "pool",
        "synchronize": lambda: CALLS.append("synchronize"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    CALLS.clear()


def test_runs_on_cuda_graphs_are_those_on_tapes(make_task: Callable[..., Task]) -> None:
    runs = []
    for make in (CudaGraphs, Tapes):
        method = HareTortoise(0.9, reset_every=4, optimizer_state="clear")
        run = SupervisedRun(make_task(), load("digits"), method, (100, 101), graphs=make())
        run.train()
        runs.append(run)
    weights = runs[1].module.state_dict()
    for name, tensor in runs[0].module.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert CALLS.count("begin") == CALLS.count("end") == 4 + 2
    assert CALLS[0] == CALLS[-1] == "wait_stream"


def test_the_host_waits_for_what_lies_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaGraphs, "AHEAD", 2)
    total = torch.zeros(1)

    def step() -> None:
        total.add_(1)

    replay = CudaGraphs().capture(step)
    for _ in range(5):
        replay()
    assert total.item() == 5
    paced = [call for call in CALLS if call in ("replay", "record", "event")]
    assert paced == ["replay", "replay", "record", "replay", "replay", "event", "record", "replay"]


def test_a_step_that_fails_ends_its_capture() -> None:
    def step() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        CudaGraphs().capture(step)
    assert CALLS[-2:] == ["begin", "end"]
