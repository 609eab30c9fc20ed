"""Jobs that were submitted: what the cluster says of them, what they left, and a note on disk."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.running.cores import available_cores
from ht_bench.running.job import StackJob
from ht_bench.running.slurm_batch import Batch, Report
from ht_bench.running.slurm_settings import SlurmSettings

if TYPE_CHECKING:
    from submitit import Job

BETWEEN_QUESTIONS = 30.0
"""Seconds between two questions to Slurm, which serves many users."""
GRACE = 60.0
"""Seconds that a job may be out of the queue before its result is given up: shared file systems
show new files late."""


class Cluster:
    """Slurm, or in its place processes of this machine, as submitit drives them."""

    def __init__(self, settings: SlurmSettings) -> None:
        """Raise UsageError where submitit or Slurm is missing."""
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise UsageError(
                f"--executor slurm needs submitit ({error}): pip install 'ht-bench[slurm]'."
            ) from error
        self.settings = settings
        self.is_slurm = settings.cluster == "slurm"
        lacking = [name for name in ("sbatch", "srun", "squeue") if not shutil.which(name)]
        if self.is_slurm and lacking:
            raise UsageError(
                f"--executor slurm: there is no {lacking[0]} here; start the command on a node "
                "of the cluster that submits jobs, or try it with --slurm cluster=local."
            )

    @property
    def most(self) -> int:
        """Jobs that may be submitted at a time: Slurm has a queue, this machine has cores."""
        return 10**9 if self.is_slurm else self.settings.parallel or available_cores()

    def submit(
        self, folder: Path, batches: Sequence[Batch], parameters: Mapping[str, Any]
    ) -> list[Job[Report]]:
        """Submit batches, as one array; raises UsageError with Slurm's reason if it refuses."""
        from submitit import AutoExecutor

        folder.mkdir(parents=True, exist_ok=True)
        executor = AutoExecutor(
            folder,
            cluster=self.settings.cluster,
            slurm_max_num_timeout=self.settings.timeouts,
            local_max_num_timeout=self.settings.timeouts,
        )
        try:
            executor.update_parameters(**parameters)
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints it too
                return executor.submit_array(batches)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            raise UsageError(
                f"Slurm takes no jobs: {' '.join(str(error).split())[-300:]}; the script is in "
                f"{folder}: change --slurm key=value."
            ) from error

    def in_queue(self, jobs: Sequence[Job[Report]]) -> set[str] | None:
        """Return the ids of the jobs that wait or run; None where nobody answers."""
        if not self.is_slurm:
            return {job.job_id for job in jobs if job.state == "RUNNING"}
        # Not sacct: many clusters keep no accounts, and there a preempted job never ends.
        command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
        try:
            answer = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return set(answer.stdout.split())

    def find(self, folder: Path, job_id: str) -> Job[Report]:
        """Return a job that another process has submitted to Slurm."""
        from submitit import SlurmJob

        return SlurmJob(folder, job_id)


@dataclass
class Submitted:
    """A job and its stacks; None for one that is not asked for.

    attempt: how often its stacks have been tried before. gone: when it was first missing from the
    queue.
    """

    job: Job[Report]
    stacks: list[StackJob | None]
    steps_file: Path
    attempt: int = 0
    steps_told: int = 0
    gone: float | None = None

    @property
    def asked(self) -> list[StackJob]:
        """The stacks that are asked for."""
        return [stack for stack in self.stacks if stack is not None]

    @property
    def note(self) -> Path:
        """Where it stands what this job is, for who comes after this process."""
        return self.job.paths.folder / f"{self.job.job_id}.json"

    def write_note(self) -> None:
        """Write it."""
        table = {
            "job": self.job.job_id,
            "stacks": [key(stack) for stack in self.asked],
            "steps_file": self.steps_file.name,
            "attempt": self.attempt,
        }
        write_atomically(self.note, json.dumps(table, indent=1) + "\n")

    def new_steps(self) -> int:
        """Return the steps since the last call."""
        try:
            steps = int(self.steps_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
        # A job that was queued again counts from its checkpoint on before it counts further.
        before, self.steps_told = self.steps_told, max(self.steps_told, steps)
        return self.steps_told - before

    def is_lost(self, queue: set[str] | None, grace: float) -> bool:
        """Whether a job without a result has been out of the queue for too long."""
        if queue is None or self.job.job_id in queue:
            self.gone = None
            return False
        self.gone = self.gone or time.monotonic()
        return time.monotonic() - self.gone >= grace

    def log(self) -> str:
        """Return the last lines of what the job said, and where."""
        paths = self.job.paths
        for path in (paths.stderr, paths.stdout):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            except OSError:
                continue
            if last := " | ".join([line.strip() for line in lines if line.strip()][-3:]):
                return f"its log {path} ends with: {last[-300:]}"
        return f"its log should be {paths.stderr}"

    def tidy(self) -> None:
        """Delete what is of no use any more; the log and the script stay."""
        paths = self.job.paths
        for path in (self.note, self.steps_file, paths.submitted_pickle, paths.result_pickle):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def key(stack: StackJob) -> str:
    """Return what names a stack, its task and its method's code, in notes."""
    place = stack.checkpoint_file
    name = "" if place is None else "/".join(place.parts[-3:])
    return f"{name} {stack.task.sha256[:16]} {stack.method.source_sha256[:16]}"


def notes(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the notes of jobs below a folder; what is none, or damaged, is left out."""
    for path in sorted(folder.glob("*/*.json")):
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            strings = [table["job"], table["steps_file"], *table["stacks"]]
            if all(isinstance(each, str) for each in strings) and type(table["attempt"]) is int:
                yield path, table
        except (OSError, ValueError, KeyError, TypeError):
            continue
