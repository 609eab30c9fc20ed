"""Who trains the planned stacks: this process, or a pool of worker processes that end with it."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.records.record import Record
from ht_bench.running.job import StackJob, run_stack
from ht_bench.training.history import Interrupted, Observer

Progress = Callable[[int], None]
PROGRESS_STEPS = 20
"""Optimizer steps a worker gathers before it reports them."""
GRACE_SECONDS = 30.0
"""How long stopped workers may take to write their checkpoints."""


@dataclass
class Outcome:
    """What came of a plan: records in order of completion, and a sentence per failed stack."""

    records: list[Record] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False


def execute(jobs: Sequence[StackJob], workers: int, progress: Progress) -> Outcome:
    """Train all jobs; a failed one leaves the others running. Ctrl-C saves and stops.

    workers: 1 trains in this process. A worker that dies is reported as a failure.
    """
    stop = threading.Event()
    with _ctrl_c_sets(stop):
        if workers <= 1 or len(jobs) <= 1:
            return _execute_here(jobs, progress, stop)
        return _execute_in_pool(jobs, min(workers, len(jobs)), progress, stop)


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


def _execute_here(jobs: Sequence[StackJob], progress: Progress, stop: threading.Event) -> Outcome:
    outcome = Outcome()
    for job in jobs:
        if stop.is_set():
            outcome.interrupted = True
            break
        try:
            outcome.records += run_stack(job, Observer(progress=progress, stop=stop.is_set))
        except Interrupted:
            outcome.interrupted = True
        except (
            Exception
        ) as error:  # a method is a user's code: any of its errors ends its stack only
            outcome.failures.append(describe_failure(job, error))
    return outcome


def describe_failure(job: StackJob, error: BaseException) -> str:
    """Return one sentence: what failed, where in whose file, and what to do."""
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full ({error.filename or job.out}); free some space and run the same "
            "command again: what was finished is kept."
        )
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "unknown place"
    return (
        f"Method '{job.method.name}' failed on {job.task.name} with "
        f"{type(error).__name__}: {error} ({place}); mend it and run the same command again: "
        "finished runs are kept."
    )


def _execute_in_pool(
    jobs: Sequence[StackJob], workers: int, progress: Progress, stop: threading.Event
) -> Outcome:
    context = multiprocessing.get_context("spawn")
    inbox, outbox, halt = context.Queue(), context.Queue(), context.Event()
    for packed in [_pack(job) for job in jobs]:
        inbox.put(packed)
    for _ in range(workers):
        inbox.put(None)
    processes = [
        context.Process(target=_work, args=(inbox, outbox, halt), daemon=True)
        for _ in range(workers)
    ]
    with _ctrl_c_waits():
        for process in processes:
            process.start()
    try:
        return _collect(jobs, processes, outbox, halt, progress, stop)
    finally:
        halt.set()
        for process in processes:
            process.join(GRACE_SECONDS)
            if process.is_alive():
                process.terminate()


def _pack(job: StackJob) -> bytes:
    """Pickle a job here: a queue would drop one that cannot be pickled, and go on."""
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(_not_importable(job.method.name, error)) from error


def _not_importable(name: str, error: Exception) -> str:
    return (
        f"{name} cannot be handed to worker processes ({error}); keep it in a module or name it "
        "as path/to/file.py:Class, or use one job."
    )


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


def _collect(
    jobs: Sequence[StackJob],
    processes: Sequence[Any],
    outbox: Any,
    halt: Any,
    progress: Progress,
    stop: threading.Event,
) -> Outcome:
    outcome = Outcome()
    ended = 0
    while ended < len(processes):
        if stop.is_set():
            halt.set()
        exits = [process.exitcode for process in processes if process.exitcode is not None]
        try:
            kind, value = outbox.get(timeout=0.2)
        except queue.Empty:
            if len(exits) > ended:  # one left without a word, be it by exit code 0
                _report_death(outcome, max(exits, key=abs))
                break
            continue
        if kind == "progress":
            progress(value)
        elif kind == "records":
            outcome.records += value
        elif kind == "failure":
            outcome.failures.append(value)
        elif kind == "interrupted":
            outcome.interrupted = True
        elif kind == "end":
            ended += 1
    return outcome


def _report_death(outcome: Outcome, exit_code: int) -> None:
    outcome.failures.append(
        f"A worker process died (exit code {exit_code}; -9 often means that memory ran out); run "
        "the same command again to go on, with fewer --jobs if it happens again."
    )


def _work(inbox: Any, outbox: Any, halt: Any) -> None:
    """A worker's life: take jobs until there are none, report, and never outlive the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while (packed := inbox.get()) is not None:
        if halt.is_set():
            outbox.put(("interrupted", None))
            break
        try:
            job = pickle.loads(packed)
        except Exception as error:  # a user's module is imported here: it may raise anything
            outbox.put(("failure", _not_importable("The method", error)))
            continue
        _work_on(job, outbox, halt)
    outbox.put(("end", None))


def _work_on(job: StackJob, outbox: Any, halt: Any) -> None:
    gathered = 0

    def progress(steps: int) -> None:
        nonlocal gathered
        gathered += steps
        if gathered >= PROGRESS_STEPS:
            outbox.put(("progress", gathered))
            gathered = 0

    try:
        records = run_stack(job, Observer(progress=progress, stop=halt.is_set))
        outbox.put(("records", records))
    except Interrupted:
        outbox.put(("interrupted", None))
    except Exception as error:  # as in _execute_here
        outbox.put(("failure", describe_failure(job, error)))
    outbox.put(("progress", gathered))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
