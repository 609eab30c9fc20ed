"""Who trains the planned stacks: this process, or worker processes that end with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.loading import import_sources
from ht_bench.records.record import Record
from ht_bench.registry import sources
from ht_bench.running.expected import Left, Times
from ht_bench.running.failure import Failure, failure
from ht_bench.running.job import StackJob, run_stack
from ht_bench.running.time_limit import NO_LIMIT, TimeLimit
from ht_bench.streams.seeds import format_seeds
from ht_bench.training.history import Interrupted, Observer

Progress = Callable[[int], None]


@dataclass
class Outcome:
    """What came of a plan: records in order of completion, why stacks failed, and what is left.

    interrupted: whether Ctrl-C ended it; otherwise what is left was left for want of time.
    """

    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    interrupted: bool = False

    def add(self, other: Outcome) -> None:
        """Take over what came of other jobs."""
        self.records += other.records
        self.failures += other.failures
        self.left += other.left
        self.interrupted |= other.interrupted


def execute(
    jobs: Sequence[StackJob], workers: int, progress: Progress, limit: TimeLimit = NO_LIMIT
) -> Outcome:
    """Train all jobs; a failed one leaves the others running. Ctrl-C saves and stops, as `limit`.

    workers: 1 trains in this process. A worker that dies fails its own stack only.
    """
    stop = threading.Event()
    with _ctrl_c_sets(stop):
        if workers <= 1 or len(jobs) <= 1:
            observer = Observer(progress, stop=lambda: stop.is_set() or limit.is_over())
            outcome = _execute_here(jobs, observer, limit)
        else:
            outcome = _execute_in_pool(jobs, min(workers, len(jobs)), progress, stop, limit)
        outcome.interrupted = stop.is_set() and bool(outcome.left)
        return outcome


@contextlib.contextmanager
def _ctrl_c_sets(stop: threading.Event) -> Iterator[None]:
    """First Ctrl-C asks for a clean stop, a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _execute_here(
    jobs: Sequence[StackJob], observer: Observer, limit: TimeLimit = NO_LIMIT
) -> Outcome:
    outcome, times = Outcome(), Times()
    for job in jobs:
        if observer.stop() or not limit.admits(times.of(job)):
            outcome.left.append(Left(job))
            continue
        try:
            outcome.records += (records := run_stack(job, observer))
            times.add(records[0])
        except Interrupted as stopped:
            outcome.left.append(Left(job, *stopped.args))
        except (Exception, SystemExit) as error:  # a user's method may raise anything
            outcome.failures.append(failure(job, error))
    return outcome


def _execute_in_pool(
    jobs: Sequence[StackJob],
    workers: int,
    progress: Progress,
    stop: threading.Event,
    limit: TimeLimit = NO_LIMIT,
) -> Outcome:
    outcome, times = Outcome(), Times()
    waiting = deque([(job, pack(job)) for job in jobs])
    pool = Pool(workers)
    try:
        while pool.running or waiting:
            halted = stop.is_set() or limit.is_over()
            while waiting and (halted or pool.idle):
                job, packed = waiting.popleft()
                if halted or not limit.admits(times.of(job)):
                    outcome.left.append(Left(job))
                else:
                    pool.start(job, packed)
            for ended in pool.collect():
                outcome.add(ended)
                for record in ended.records[:1]:
                    times.add(record)
            pool.halt.value = halted
            progress(pool.new_steps())
    except BaseException:
        pool.close(at_once=True)
        raise
    pool.close(at_once=False)
    return outcome


def pack(job: StackJob) -> bytes:
    """Pickle a job before anything starts: what cannot be pickled is a mistake of the caller."""
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(_not_importable(job.method.name, error)) from error


def _not_importable(name: str, error: Exception) -> str:
    return (
        f"{name} cannot be handed to worker processes ({error}); keep it in a module or name it "
        "as path/to/file.py:Class, or use one job."
    )


class Pool:
    """Worker processes, each with an executor of its own that is given one job at a time.

    So a death breaks no other worker's job, and no job queues up where Ctrl-C cannot reach it.
    """

    def __init__(self, workers: int) -> None:
        _start_tracker()
        self.context = multiprocessing.get_context("spawn")
        # Memory without locks: a worker that is killed would hold its lock for ever.
        self.steps = self.context.RawArray("q", workers)
        self.halt = self.context.RawValue("b")
        self.parent, self.lifeline = self.context.Pipe(duplex=False)
        self.executors = [self.executor(slot) for slot in range(workers)]
        self.idle = list(range(workers))
        self.running: dict[Future[Outcome], tuple[StackJob, int]] = {}
        self.steps_told = 0

    def executor(self, slot: int) -> ProcessPoolExecutor:
        """Return an executor whose process starts with its first job."""
        shared = (self.steps, slot, self.halt, self.parent, sources())
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
        self.running[future] = job, slot

    def collect(self) -> Iterator[Outcome]:
        """Wait a moment, then yield what came of the jobs that have ended."""
        for future in wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED).done:
            job, slot = self.running.pop(future)
            self.idle.append(slot)
            try:
                outcome = future.result()
            except BrokenProcessPool:
                self.executors[slot] = self.executor(slot)
                outcome = Outcome(failures=[Failure(_death(job))])
            outcome.left = [replace(left, job=job) for left in outcome.left]
            yield outcome

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
    """Hold Ctrl-C back: a child inherits that, so none dies of it while Python starts."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(job: StackJob) -> str:
    return (
        f"The worker process that trained '{job.method.name}' on {job.task.name}, seeds "
        f"{format_seeds(job.seeds)}, died, often a sign that memory ran out; run the same command "
        "again to go on, with fewer --jobs if it happens again."
    )


# ---- inside a worker process ----

_observer = Observer()
_sources: tuple[str, ...] = ()


def _begin(
    steps: Any, slot: int, halt: Any, parent: Connection, sources: tuple[str, ...] = ()
) -> None:
    """Start a worker's life: it reports in its own slot, and never outlives the parent.

    sources: what it imports before its first job, to know the names that the parent knows.
    """
    global _observer, _sources
    _sources = sources
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def progress(count: int) -> None:
        steps[slot] += count

    _observer = Observer(progress=progress, stop=lambda: bool(halt.value))


def _end_with(parent: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        parent.recv()  # nothing is ever sent: it ends when the other end closes
    os._exit(1)


def _train(packed: bytes) -> Outcome:
    try:
        import_sources(_sources)
        job = pickle.loads(packed)
    except UsageError as error:
        return Outcome(failures=[Failure(str(error), error)])
    except Exception as error:  # a user's module is imported here: it may raise anything
        return Outcome(failures=[Failure(_not_importable("The method", error), error)])
    return _execute_here([job], _observer)
