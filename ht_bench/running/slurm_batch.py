"""What one Slurm job does: train a batch of stacks, save them when its end is near, and go on.

Slurm announces the end of a job's time by a signal (submitit's choice, SIGUSR2): the stacks are
saved, and the job is queued again. SIGTERM comes before preemption and scancel, after which Slurm
itself queues the job again or does not: the stacks are saved, and trained on until the end comes.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.loading import import_sources
from ht_bench.records.record import Record, read_record
from ht_bench.records.runs import result_file
from ht_bench.registry import sources
from ht_bench.running.executor import ExecutorRequest
from ht_bench.running.expected import Times
from ht_bench.running.failure import Failure
from ht_bench.running.job import StackJob
from ht_bench.running.local import LocalExecutor
from ht_bench.running.pool import pack
from ht_bench.running.slurm_settings import SlurmSettings
from ht_bench.running.time_limit import TimeLimit

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

MOST_JOBS = 1000
"""In an array, by Slurm's default."""
BETWEEN_NOTES = 5.0
"""Seconds between two notes of how many steps are done."""


@dataclass
class Report:
    """What came of a batch; its stacks are named by their place in it.

    records: of the finished ones.
    """

    records: dict[int, list[Record]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)


@dataclass
class Batch:
    """A callable for submitit: trains pickled stacks and returns a Report.

    at_once: how many at a time. steps_file: where the number of steps that are done is noted.
    """

    packed: tuple[bytes, ...]
    steps_file: Path
    at_once: int = 1
    retries: int = 1
    sources: tuple[str, ...] = ()

    @classmethod
    def of(cls, jobs: Sequence[StackJob], steps_file: Path, at_once: int, retries: int) -> Batch:
        """Return the batch; raises UsageError for a method that cannot be pickled."""
        # A line of `setup` may change the folder.
        placed = [replace(job, out=job.out.absolute() if job.out else None) for job in jobs]
        return cls(tuple(map(pack, placed)), steps_file, at_once, retries, sources())

    def __call__(self) -> Report:
        """Train to the end, or until the job's time is up, which queues it again and exits."""
        try:
            import_sources(self.sources)
            jobs = [pickle.loads(packed) for packed in self.packed]
        except UsageError as error:
            return Report(failures=[Failure(str(error), error)])
        except Exception as error:  # a user's module is imported here: it may raise anything
            return Report(failures=[Failure(_not_importable(error), error)])
        with _told_of_the_end() as end:
            report = self._train(jobs, end)
        if report.left and end.is_near:
            end.queue_again()
        return report

    def checkpoint(self) -> DelayedSubmission:
        """Return what the job does when it is run again: the same, from the checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _train(self, jobs: list[StackJob], end: _End) -> Report:
        """Train until the stacks are done or the end is near."""
        executor = LocalExecutor(
            ExecutorRequest(workers=self.at_once, retries=self.retries), _say_in_log
        )
        report, rest = Report(), jobs
        while rest:
            end.asked_to_save = False
            note = _Steps(self.steps_file)
            outcome = executor.execute(rest, note.add, TimeLimit(), end)
            note.write()
            report.failures += outcome.failures
            report.busy += map(jobs.index, outcome.busy)
            rest = [left.job for left in outcome.left]
            if end.is_near or end.is_interrupted:
                break
            if rest:
                _say_in_log("Saved on SIGTERM; the stacks are trained on until the end comes.")
        report.left = list(map(jobs.index, rest))
        for place, job in enumerate(jobs):
            if place not in report.left + report.busy and (records := finished(job)) is not None:
                report.records[place] = records
        return report


def finished(job: StackJob) -> list[Record] | None:
    """Return the records of a stack whose results all lie in its folder; else None."""
    folder = job.folder
    if folder is None or not all(map(job.is_done, job.seeds)):
        return None
    return [read_record(result_file(folder, seed)) for seed in job.seeds]


def _say_in_log(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _not_importable(error: Exception) -> str:
    return (
        f"The methods cannot be imported where the Slurm job runs ({error}); keep them in a module "
        "or name them as path/to/file.py:Class, in a folder that all nodes share."
    )


class _Steps:
    """Notes now and then how many steps are done."""

    def __init__(self, path: Path) -> None:
        self.path, self.steps, self.next = path, 0, 0.0

    def add(self, steps: int) -> None:
        self.steps += steps
        if time.monotonic() >= self.next:
            self.write()
            self.next = time.monotonic() + BETWEEN_NOTES

    def write(self) -> None:
        with contextlib.suppress(UsageError):  # it is only for the progress bar
            write_atomically(self.path, str(self.steps))


class _End:
    """What the signals to a job have said; as a function, whether to save and stop."""

    def __init__(self) -> None:
        self.is_near = self.is_interrupted = self.asked_to_save = False
        self.number = 0
        self.handlers: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.is_near or self.is_interrupted or self.asked_to_save

    def take(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        if number == signal.SIGTERM:
            self.asked_to_save = True
        elif number == signal.SIGINT:
            self.is_interrupted = True
        else:
            self.is_near, self.number = True, number

    def queue_again(self) -> None:
        """Have submitit's own handler ask for the batch's checkpoint, queue the job and exit."""
        handler = self.handlers.get(self.number)
        if callable(handler):
            signal.signal(self.number, signal.SIG_IGN)  # a second one would come into its midst
            handler(self.number, None)


@contextlib.contextmanager
def _told_of_the_end() -> Iterator[_End]:
    """Take over the signals that submitit handles: it would act before anything is saved."""
    from submitit import JobEnvironment

    end = _End()
    near: int = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
    numbers: tuple[int, ...] = (near, signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        end.handlers[number] = signal.signal(number, end.take)
    try:
        yield end
    finally:
        for number, handler in end.handlers.items():
            signal.signal(number, handler)


def group(jobs: Sequence[StackJob], settings: SlurmSettings) -> list[list[StackJob]]:
    """Cut stacks of one device into batches, in their order.

    A batch takes `minutes_per_job` at least, by what the tasks say of their stacks, and holds as
    many stacks as are trained at once; a stack whose time nobody knows fills one of its own. There
    are never more batches than an array holds.
    """
    fewest = max(settings.at_once, -(-len(jobs) // MOST_JOBS))
    if settings.stacks_per_job:
        size = max(settings.stacks_per_job, -(-len(jobs) // MOST_JOBS))
        return [list(jobs[i : i + size]) for i in range(0, len(jobs), size)]
    return list(_filled(jobs, fewest, 60 * settings.minutes_per_job * settings.at_once))


def _filled(jobs: Sequence[StackJob], fewest: int, seconds: float) -> Iterator[list[StackJob]]:
    expected: Callable[[StackJob], float | None] = Times().of
    batch: list[StackJob] = []
    total = 0.0
    for job in jobs:
        batch.append(job)
        each = expected(job)
        total += seconds if each is None else each
        if len(batch) >= fewest and total >= seconds:
            yield batch
            batch, total = [], 0.0
    if batch:
        yield batch
