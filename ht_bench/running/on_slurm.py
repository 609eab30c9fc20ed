"""Stacks trained by Slurm jobs, through submitit; each job trains a batch (slurm_batch.py).

This process submits, waits and collects. It may end before the jobs do: they go on, write their
results, and the same command finds them by the notes under `<out>/.slurm/`.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.running.executor import Announce, ExecutorRequest, Outcome, Progress
from ht_bench.running.expected import Left
from ht_bench.running.failure import Failure
from ht_bench.running.job import StackJob
from ht_bench.running.kinds import steps_of
from ht_bench.running.slurm_batch import Batch, Report, finished, group
from ht_bench.running.slurm_jobs import (
    BETWEEN_QUESTIONS,
    GRACE,
    Cluster,
    Submitted,
    key,
    notes,
)
from ht_bench.running.slurm_settings import read_settings
from ht_bench.running.time_limit import TimeLimit
from ht_bench.streams.seeds import format_seeds

BETWEEN_LOOKS = 2.0
"""Seconds between two looks into the folder of the jobs."""
BLAMELESS = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "TIMEOUT", "DEADLINE", "REVOKED")
"""States in which no stack can have taken down the others of its job."""


class SlurmExecutor:
    """Trains in Slurm jobs: an `executor.Executor`."""

    def __init__(self, request: ExecutorRequest, announce: Announce) -> None:
        """Raise UsageError for settings that are none, and where submitit or Slurm is missing."""
        self.request, self.announce = request, announce
        self.settings = read_settings(request)
        self.cluster = Cluster(self.settings)

    def execute(
        self,
        jobs: Sequence[StackJob],
        progress: Progress,
        limit: TimeLimit,
        stop: Callable[[], bool],
    ) -> Outcome:
        """Train the stacks in jobs; where this process is to stop, the jobs of Slurm go on."""
        if not jobs:
            return Outcome()
        if any(job.out is None for job in jobs):
            raise UsageError(
                "--executor slurm: Slurm's jobs hand results over in a folder that all nodes "
                "share; name one with out=."
            )
        if self.request.gpus == 0 and any(job.compute.device == "cuda" for job in jobs):
            raise UsageError("--gpus-per-run 0: what trains on CUDA needs a GPU; leave it out.")
        return _Sweep(self, Path(jobs[0].out or "").absolute(), progress).run(jobs, limit, stop)


@dataclass(frozen=True)
class _Waiting:
    """Stacks of one device that are to be submitted together."""

    stacks: list[StackJob]
    attempt: int = 0


class _Sweep:
    """One call of `execute`."""

    def __init__(self, executor: SlurmExecutor, out: Path, progress: Progress) -> None:
        self.request, self.announce = executor.request, executor.announce
        self.settings, self.cluster = executor.settings, executor.cluster
        self.notes, self.progress = out / ".slurm", progress
        self.folder = self.notes / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.outcome = Outcome()
        self.waiting: deque[_Waiting] = deque()
        self.running: list[Submitted] = []
        self.asked_at = float("-inf")
        self.queue: set[str] | None = None
        self.has_submitted = False

    def run(self, jobs: Sequence[StackJob], limit: TimeLimit, stop: Callable[[], bool]) -> Outcome:
        """Submit what is neither finished nor submitted, and wait for all."""
        rest = self._without_submitted([job for job in jobs if not self._take_finished(job)])
        for kind in dict.fromkeys(map(_kind, rest)):
            own = [job for job in rest if _kind(job) == kind]
            self.waiting += [_Waiting(batch) for batch in group(own, self.settings)]
        while self.waiting or self.running:
            if not (halted := stop() or limit.is_over()):
                self._submit()
            if halted or not self.settings.wait:
                self._leave()
                break
            self._look()
            self._pause(stop, limit)
        self.outcome.interrupted = stop() and bool(self.outcome.left)
        return self.outcome

    def _take_finished(self, job: StackJob) -> bool:
        """Take a stack's results if they are there, as those of a job that nobody waited for."""
        checkpoint = job.checkpoint_file
        if checkpoint is None or checkpoint.exists() or (records := finished(job)) is None:
            return False
        self.outcome.records += records
        self.progress(_steps(job))
        return True

    # ---- submitting ----

    def _without_submitted(self, jobs: list[StackJob]) -> list[StackJob]:
        """Take over the jobs of an earlier command that still wait or run; return the rest."""
        if not self.cluster.is_slurm:
            return jobs
        by_key = {key(job): job for job in jobs}
        found = list(notes(self.notes))
        queue = self.cluster.in_queue([]) if found else set()
        for path, table in found:
            if queue is not None and table["job"] not in queue:
                path.unlink(missing_ok=True)
            stacks = [by_key.get(name) for name in table["stacks"]]
            if queue is None or table["job"] not in queue or not any(stacks):
                continue
            job = self.cluster.find(path.parent, table["job"])
            steps = path.parent / table["steps_file"]
            self.running.append(Submitted(job, stacks, steps, table["attempt"]))
            for name in table["stacks"]:
                by_key.pop(name, None)
        if self.running:
            self.announce(f"Slurm has {_jobs(self.running)} of an earlier command: waiting.")
        return list(by_key.values())

    def _submit(self) -> None:
        """Submit as much as there is room for, the batches of a device as one array."""
        before = len(self.running)
        first, self.has_submitted = not self.has_submitted, True
        while self.waiting and (room := self.cluster.most - len(self.running)) > 0:
            kind = _kind(self.waiting[0].stacks[0])
            own: list[_Waiting] = []
            others: deque[_Waiting] = deque()
            for each in self.waiting:
                fits = _kind(each.stacks[0]) == kind and len(own) < room
                (own if fits else others).append(each)
            self.waiting = others
            try:
                self._submit_array(own, *kind)
            except UsageError as error:
                if first and len(self.running) == before:  # nothing is lost by giving up
                    raise
                self._fail(str(error), error.__cause__)
        if (new := self.running[before:]) and self.cluster.is_slurm:
            count = sum(len(each.stacks) for each in new)
            self.announce(f"{count} stack(s) submitted as {_jobs(new)}; logs in {self.folder}.")

    def _submit_array(self, waiting: Sequence[_Waiting], device: str, threads: int) -> None:
        settings = self.settings
        batches = []
        for each in waiting:
            steps = self.folder / f"{uuid.uuid4().hex}.steps"
            batches.append(Batch.of(each.stacks, steps, settings.at_once, self.request.retries))
        parameters = settings.parameters(device, threads)
        jobs = self.cluster.submit(self.folder, batches, parameters)
        for job, each, batch in zip(jobs, waiting, batches, strict=True):
            submitted = Submitted(job, list(each.stacks), batch.steps_file, each.attempt)
            submitted.write_note()
            self.running.append(submitted)

    # ---- waiting ----

    def _pause(self, stop: Callable[[], bool], limit: TimeLimit) -> None:
        end = time.monotonic() + (BETWEEN_LOOKS if self.cluster.is_slurm else 0.2)
        while self.running and time.monotonic() < end and not stop() and not limit.is_over():
            time.sleep(min(0.1, BETWEEN_LOOKS))

    def _look(self) -> None:
        """See which jobs have ended, and how far the others are."""
        asks = not self.cluster.is_slurm or time.monotonic() - self.asked_at >= BETWEEN_QUESTIONS
        if asks:  # before the look for results: who ends in between has left one
            self.queue = self.cluster.in_queue([each.job for each in self.running])
            self.asked_at = time.monotonic()
        there = {each.job.paths.folder: set[str]() for each in self.running}
        for folder in there:
            with contextlib.suppress(OSError):
                folder.chmod(folder.stat().st_mode)  # so that NFS looks anew
                there[folder] = {path.name for path in folder.iterdir()}
        grace = GRACE if self.cluster.is_slurm else 0.0
        for each in list(self.running):
            if each.job.paths.result_pickle.name in there[each.job.paths.folder]:
                self.running.remove(each)
                self._collect(each)
            elif asks and each.is_lost(self.queue, grace):
                self.running.remove(each)
                self._try_again(each, each.asked, each.job.state.split()[0])
            elif each.steps_file.name in there[each.job.paths.folder]:
                self.progress(each.new_steps())

    def _collect(self, each: Submitted) -> None:
        """Take over what a job reports."""
        try:
            report: Report = each.job.result()
        except Exception:  # submitit's own, or whatever unpickling raises; the log tells
            self._try_again(each, each.asked, "FAILED", together=True)
            return
        undone = []
        for place, stack in enumerate(each.stacks):
            if stack is None:
                continue
            if place in report.records:
                self.outcome.records += report.records[place]
                each.steps_told -= _steps(stack)
            elif place in report.busy:
                self.outcome.busy.append(stack)
            elif place in report.left or not report.failures:
                undone.append(stack)
        self.outcome.failures += report.failures
        if undone:
            self._try_again(each, undone, "INTERRUPTED")
            return
        self.progress(-each.steps_told)
        each.tidy()

    def _try_again(
        self, each: Submitted, stacks: list[StackJob], state: str, together: bool = False
    ) -> None:
        """Submit the stacks of a job that ended before they did, or say why not.

        Where one of several may have taken the others down, each gets a job of its own; together:
        it cannot have.
        """
        self.progress(-each.steps_told)
        rest = [stack for stack in stacks if not self._take_finished(stack)]
        each.note.unlink(missing_ok=True)
        if not rest:
            return
        what = f"Slurm job {each.job.job_id} ({state}) ended before {_names(rest)}"
        if state == "CANCELLED":
            self._fail(f"{what}; run the same command again to go on from the checkpoints.")
        elif len(rest) > 1 and not together and state not in BLAMELESS:
            self.announce(f"{what}; each is trained on in a job of its own; {each.log()}")
            self.waiting += [_Waiting([stack], each.attempt) for stack in rest]
        elif each.attempt < self.request.retries:
            self.announce(f"{what}; trained on from the last checkpoint; {each.log()}")
            self.waiting.append(_Waiting(rest, each.attempt + 1))
        else:
            self._fail(f"{what}; {_remedy(state)}; {each.log()}")

    def _fail(self, sentence: str, cause: BaseException | None = None) -> None:
        self.outcome.failures.append(Failure(sentence, cause))

    # ---- leaving ----

    def _leave(self) -> None:
        """Go without waiting: Slurm's jobs go on, those of this machine save and end."""
        if self.cluster.is_slurm and self.running:
            ids = _ids(self.running)
            self.announce(
                f"{_jobs(self.running)} go on without this process; the same command waits for "
                f"them and collects what they did, `scancel {' '.join(ids)}` ends them, what they "
                "have saved being kept."
            )
        for each in self.running:
            if not self.cluster.is_slurm:
                each.job.cancel()
        for each in self.running:
            if not self.cluster.is_slurm:
                _wait_for(each)
        stacks = [stack for each in self.running for stack in each.asked]
        stacks += [stack for each in self.waiting for stack in each.stacks]
        self.outcome.left += [Left(job) for job in stacks if not self._take_finished(job)]


def _kind(job: StackJob) -> tuple[str, int]:
    return job.compute.device, job.compute.threads


def _steps(job: StackJob) -> int:
    return steps_of(job.task, job.seeds[0], job.split)


def _ids(submitted: Sequence[Submitted]) -> list[str]:
    return list(dict.fromkeys(each.job.job_id.split("_")[0] for each in submitted))


def _jobs(submitted: Sequence[Submitted]) -> str:
    ids = _ids(submitted)
    return f"{len(submitted)} Slurm job(s) ({', '.join(ids)})"


def _names(stacks: Sequence[StackJob]) -> str:
    first = stacks[0]
    more = f" and {len(stacks) - 1} more" if len(stacks) > 1 else ""
    seeds = format_seeds(first.seeds)
    return f"'{first.method.name}' on {first.task.name}, seeds {seeds}{more} was finished"


def _remedy(state: str) -> str:
    again = "run the same command again to go on from the checkpoint"
    if state == "OUT_OF_MEMORY":
        return f"{again}, with more memory (--slurm mem_gb=N)"
    return f"{again}, with more --retries if the cluster was at fault"


def _wait_for(each: Submitted, seconds: float = 10.0) -> None:
    """Wait for the end of a process of this machine."""
    end = time.monotonic() + seconds
    with contextlib.suppress(Exception):  # whatever submitit raises of a process that is gone
        while each.job.state == "RUNNING" and time.monotonic() < end:
            time.sleep(0.05)
