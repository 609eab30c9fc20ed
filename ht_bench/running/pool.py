"""Worker processes that train one stack at a time and end with this process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from ht_bench.errors import UsageError, warn_in_sentences
from ht_bench.loading import import_sources
from ht_bench.registry import sources
from ht_bench.running.executor import Outcome, train
from ht_bench.running.failure import Death, Failure
from ht_bench.running.gpus import VISIBLE
from ht_bench.running.job import StackJob
from ht_bench.training.history import Observer


def pack(job: StackJob) -> bytes:
    """Pickle a job before anything starts: what cannot be pickled is a mistake of the caller."""
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(not_importable(job.method.name, error)) from error


def not_importable(name: str, error: Exception) -> str:
    """Say that a method does not come through to a worker."""
    return (
        f"{name} cannot be handed to worker processes ({error}); keep it in a module or name it "
        "as path/to/file.py:Class, or use one job."
    )


class Pool:
    """Worker processes, each with an executor of its own that is given one job at a time.

    So a death breaks no other worker's job, and no job queues up where Ctrl-C cannot reach it.
    """

    def __init__(self, workers: int, gpus: Sequence[str] = ()) -> None:
        """Prepare `workers` of them, which take the GPUs in turn: each sees its own alone."""
        _start_tracker()
        self.gpus = gpus
        self.context = multiprocessing.get_context("spawn")
        # Memory without locks: a worker that is killed would hold its lock for ever.
        self.steps = self.context.RawArray("q", workers)
        self.halt = self.context.RawValue("b")
        self.parent, self.lifeline = self.context.Pipe(duplex=False)
        self.executors = [self.executor(slot) for slot in range(workers)]
        self.idle = list(range(workers))
        self.running: dict[Future[Outcome], tuple[StackJob, int, int]] = {}
        self.steps_told = 0

    def executor(self, slot: int) -> ProcessPoolExecutor:
        """Return an executor whose process starts with its first job."""
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else ""
        shared = (self.steps, slot, self.halt, self.parent, sources(), gpu)
        return ProcessPoolExecutor(1, self.context, _begin, shared)

    def start(self, job: StackJob, packed: bytes) -> None:
        """Have an idle worker train `job`."""
        slot = self.idle.pop()
        with _ctrl_c_waits():
            try:
                future = self.executors[slot].submit(_train, packed)
            except BrokenProcessPool:  # it died with nothing to do
                self.executors[slot] = self.executor(slot)
                future = self.executors[slot].submit(_train, packed)
        self.running[future] = job, slot, self.steps[slot]

    def collect(self) -> Iterator[tuple[StackJob, Outcome]]:
        """Wait a moment, then yield the jobs that have ended with what came of each."""
        for future in wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED).done:
            job, slot, begun = self.running.pop(future)
            self.idle.append(slot)
            try:
                outcome = future.result()
            except BrokenProcessPool:
                self.executors[slot] = self.executor(slot)
                outcome = Outcome(failures=[Death.of(job)])
            outcome.left = [replace(left, job=job) for left in outcome.left]
            outcome.busy = [job] * len(outcome.busy)
            if outcome.is_cut_short and not self.halt.value:  # who goes on with it tells it again
                self.steps[slot] = begun
            yield job, outcome

    def new_steps(self) -> int:
        """Return the steps taken since the last call."""
        before, self.steps_told = self.steps_told, sum(self.steps)
        return self.steps_told - before

    def close(self, at_once: bool) -> None:
        """End the worker processes, in the middle of their jobs if `at_once`."""
        if at_once:
            self.lifeline.close()
        with ThreadPoolExecutor(len(self.executors)) as threads:  # each takes a second to end
            for executor in self.executors:
                threads.submit(executor.shutdown)


def _start_tracker() -> None:
    """Start what removes the semaphores of a killed process; its warning would be noise then."""
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        warnings = os.environ.get("PYTHONWARNINGS", "")
        os.environ["PYTHONWARNINGS"] = f"{warnings},ignore:resource_tracker".strip(",")
        resource_tracker.ensure_running()
        os.environ["PYTHONWARNINGS"] = warnings


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back: a child inherits that, so none dies of it while Python starts.

    As it would of the signal that Slurm sends to all processes of a job whose time is nearly up.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- inside a worker process ----

_observer = Observer()
_sources: tuple[str, ...] = ()
_terminated = threading.Event()


def _begin(
    steps: Any,
    slot: int,
    halt: Any,
    parent: Connection,
    sources: tuple[str, ...] = (),
    gpu: str = "",
) -> None:
    """Start a worker's life: it reports in its own slot, and never outlives the parent.

    sources: what it imports before its first job, to know the names that the parent knows. gpu:
    the one that it sees; CUDA, which starts with the first job, reads it then.
    """
    global _observer, _sources
    _sources = sources
    warn_in_sentences()
    if gpu:
        os.environ[VISIBLE] = gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _terminated.set())
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def progress(count: int) -> None:
        steps[slot] += count

    _observer = Observer(progress=progress, stop=lambda: bool(halt.value) or _terminated.is_set())


def _end_with(parent: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        parent.recv()  # nothing is ever sent: it ends when the other end closes
    os._exit(1)


def _train(packed: bytes) -> Outcome:
    _terminated.clear()
    try:
        import_sources(_sources)
        job = pickle.loads(packed)
    except UsageError as error:
        return Outcome(failures=[Failure(str(error), error)])
    except Exception as error:  # a user's module is imported here: it may raise anything
        return Outcome(failures=[Failure(not_importable("The method", error), error)])
    return train(job, _observer)
