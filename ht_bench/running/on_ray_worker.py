"""What a worker of a Ray cluster does: it trains one stack, in the driver's folder or apart."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ht_bench.errors import UsageError
from ht_bench.loading import import_sources
from ht_bench.registry import sources
from ht_bench.running.executor import Outcome, train
from ht_bench.running.expected import Left
from ht_bench.running.failure import Failure, failure
from ht_bench.running.job import StackJob
from ht_bench.running.on_ray_board import Files, Grant
from ht_bench.running.on_ray_files import read_files, write_files
from ht_bench.running.pool import not_importable
from ht_bench.training.history import Observer
from ht_bench.version import VERSION

BETWEEN_REPORTS = 0.5
"""Seconds between two messages of a worker."""


def versions() -> dict[str, str]:
    """Return what must be the same on every node, since the numbers would differ."""
    torch_version = str(torch.__version__).partition("+")[0]  # the rest names its CUDA
    return {"ht-bench": VERSION, "torch": torch_version, "numpy": np.__version__}


@dataclass(frozen=True)
class Setting:
    """What all workers of one driver are told.

    tokens: what stands in a file of each of the driver's folders, by its path: who reads the same
    there shares the folder. sources, path, environment: what the driver imports first, where it
    looks for modules, and its variables HT_BENCH_….
    """

    tokens: Mapping[str, str]
    sources: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)

    @classmethod
    def of_driver(cls, tokens: Mapping[str, str]) -> Setting:
        """Return this process's."""
        own = {name: value for name, value in os.environ.items() if name.startswith("HT_BENCH_")}
        return cls(tokens, sources(), tuple(map(os.path.abspath, sys.path)), own)

    def adopt(self) -> None:
        """Have this process find the driver's modules and data, where the node has none its own."""
        sys.path += [place for place in self.path if place not in sys.path and Path(place).is_dir()]
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)

    def mismatch(self) -> str:
        """Say which versions are not the driver's; "" where all are."""
        here = versions()
        other = {name for name, version in self.versions.items() if here.get(name) != version}
        return ", ".join(
            f"{name} {here.get(name)} where the driver has {self.versions[name]}"
            for name in sorted(other)
        )

    def shares(self, folder: Path) -> bool:
        """Whether this process sees the driver's folder."""
        for file, text in self.tokens.items():
            if Path(file).parent == folder:
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    return Path(file).read_text(encoding="utf-8") == text
        return False


@dataclass
class Answer:
    """What a worker returns of a stack.

    mismatch: its versions, where they are not the driver's; then it has done nothing. files: those
    of a stack that was trained apart from the driver's folder. steps: all that are done.
    """

    node: str
    outcome: Outcome = field(default_factory=Outcome)
    mismatch: str = ""
    files: Files | None = None
    steps: int = 0


def work(packed: bytes, ticket: int, board: Any, setting: Setting) -> Answer:
    """Train one stack, as a Ray task. packed: its job; board: the actor that knows its ticket."""
    ray: Any = importlib.import_module("ray")
    answer = Answer(ray.get_runtime_context().get_node_id(), mismatch=setting.mismatch())
    if answer.mismatch:
        return answer
    setting.adopt()
    with _terminated() as terminated:
        reporter = Reporter(ray, board, ticket, terminated)
        answer.outcome, answer.files = _train(packed, setting, reporter)
    answer.steps = reporter.steps
    return answer


def _train(packed: bytes, setting: Setting, reporter: Reporter) -> tuple[Outcome, Files | None]:
    try:
        import_sources(setting.sources)
        job = pickle.loads(packed)
    except UsageError as error:
        return Outcome(failures=[Failure(str(error), error)]), None
    except Exception as error:  # a user's module is imported here: it may raise anything
        return Outcome(failures=[Failure(not_importable("The method", error), error)]), None
    if reporter.is_halted_now():  # it waited for its turn until then
        return Outcome(left=[Left(job)]), None
    observer = Observer(progress=reporter.progress, stop=reporter.stop)
    if job.out is None or setting.shares(job.out):
        return train(job, observer), None
    return _train_apart(job, observer, reporter)


def _train_apart(
    job: StackJob, observer: Observer, reporter: Reporter
) -> tuple[Outcome, Files | None]:
    """Train in a folder of this node, from the files of the driver's folder, and return them."""
    grant = reporter.ask()
    if grant is None:
        return Outcome(left=[Left(job)]), None
    if grant.busy:
        return Outcome(busy=[job]), None
    if grant.refusal:
        return Outcome(failures=[Failure(grant.refusal)]), None
    try:
        with tempfile.TemporaryDirectory(prefix="ht-bench-", ignore_cleanup_errors=True) as place:
            there = replace(job, out=Path(place))
            assert there.folder is not None
            write_files(there.folder, grant.files)
            outcome = train(there, observer)
            return outcome, read_files(there.folder)
    except (OSError, UsageError) as error:
        return Outcome(failures=[failure(job, error)]), None


class Reporter:
    """Tells the board a worker's steps and hears whether to stop, without waiting for it.

    terminated: set by a SIGTERM to this process. A board that does not answer, since its node was
    lost, stops nobody.
    """

    def __init__(self, ray: Any, board: Any, ticket: int, terminated: threading.Event) -> None:
        self.ray, self.board, self.ticket = ray, board, ticket
        self.steps, self._halted, self._terminated = 0, False, terminated
        self._sent: Any = None
        self._next = 0.0

    def progress(self, steps: int) -> None:
        """Count steps; they are told with the next message."""
        self.steps += steps

    def stop(self) -> bool:
        """Whether to save and stop, by what the board said last."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + BETWEEN_REPORTS
            self._exchange()
        return self._halted or self._terminated.is_set()

    def _exchange(self) -> None:
        if self._sent is not None and not self.ray.wait([self._sent], timeout=0)[0]:
            return
        with contextlib.suppress(self.ray.exceptions.RayError):
            if self._sent is not None:
                self._halted = self.ray.get(self._sent)
        with contextlib.suppress(self.ray.exceptions.RayError):
            self._sent = self.board.report.remote(self.ticket, self.steps)

    def is_halted_now(self) -> bool:
        """Ask the board, and wait for its answer."""
        with contextlib.suppress(self.ray.exceptions.RayError):
            self._halted = self.ray.get(self.board.report.remote(self.ticket, self.steps))
        return self._halted or self._terminated.is_set()

    def ask(self) -> Grant | None:
        """Wait for the driver's grant of a stack; None where it is to stop instead."""
        while not self.is_halted_now():
            with contextlib.suppress(self.ray.exceptions.RayError):
                grant: Grant | None = self.ray.get(self.board.ask.remote(self.ticket))
                if grant is not None:
                    return grant
            time.sleep(BETWEEN_REPORTS)
        return None


@contextlib.contextmanager
def _terminated() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets: the stack is saved, and taken up again elsewhere."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
