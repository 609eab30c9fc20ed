"""One job: a stack of seeds of one task and method, trained, recorded, and saved as it goes."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ht_bench.files import remove_leftovers
from ht_bench.methods.base import Method
from ht_bench.methods.resolve import MethodSpec
from ht_bench.records.record import SCHEMA, Record, group_digest, read_record, write_record
from ht_bench.records.runs import group_folder, is_finished, locked, result_file
from ht_bench.running.kinds import data_sha256, libraries, make_run, steps_of
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.stream import Split
from ht_bench.streams.task import AnyTask
from ht_bench.training import checkpoint
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.device import (
    Compute,
    PeakMemory,
    hardware,
    settings,
    software,
)
from ht_bench.training.diagnosing import Schedule
from ht_bench.training.history import Interrupted, Observer
from ht_bench.version import EPOCH, VERSION

if TYPE_CHECKING:
    from ht_bench.training.reinforcement import ReinforcementRun
    from ht_bench.training.supervised import SupervisedRun
    from ht_bench.views.live import SeedWriters


@dataclass(frozen=True)
class StackJob:
    """What one worker trains. `out` None keeps everything in memory."""

    task: AnyTask
    method: MethodSpec
    seeds: tuple[int, ...]
    split: Split = "test"
    compute: Compute = field(default_factory=Compute)
    out: Path | None = None
    tensorboard: bool = True
    checkpoint_seconds: float = 120.0
    twin: int = 0
    """0, or the number of a rounding twin (`Run.twin`); its results need their own folder."""
    diagnostics: Schedule = field(default_factory=Schedule)
    brief: bool = False
    """Whether outlines of the records do, once they are on disk."""

    @property
    def folder(self) -> Path | None:
        """The group folder runs/<task>/<method>-<8 hex>, or None."""
        if self.out is None:
            return None
        digest = group_digest(
            self.method.hyperparameters, self.split, self.compute.precision, self.compute.device
        )
        return group_folder(self.out, self.task.name, self.method.name, digest)

    @property
    def checkpoint_file(self) -> Path | None:
        """Where the stack's checkpoint lies while it trains, or None."""
        return self.folder / f"stack-{format_seeds(self.seeds)}.pt" if self.folder else None

    @property
    def is_brief(self) -> bool:
        """Whether an executor hands back outlines of the records, which are on disk."""
        return self.brief and self.out is not None

    @property
    def seed_folders(self) -> list[Path]:
        """Where each seed's result lies, and its claim; none without a folder."""
        return [self.folder / f"seed{seed}" for seed in self.seeds] if self.folder else []

    def is_done(self, seed: int) -> bool:
        """Whether a result of this very task, data, method and code is there."""
        return self.method.has_source and self.has_result(seed, self.method.source_sha256)

    def has_result(self, seed: int, source_sha256: str | None = None) -> bool:
        """Whether a result is there; source_sha256: of what code, None does not ask."""
        if self.folder is None:
            return False
        path = result_file(self.folder, seed)
        return is_finished(path, self.task.sha256, data_sha256(self.task), source_sha256)

    def fingerprint(self) -> str:
        """Everything that decides the job's bits, the machine among it, as text."""
        identity = {
            "task": self.task.sha256,
            "data": data_sha256(self.task),
            "method": [self.method.name, dict(self.method.hyperparameters)],
            "source": self.method.source_sha256,
            "seeds": self.seeds,
            "split": self.split,
            "compute": dataclasses.asdict(self.compute),
            "software": {**software(self.compute), **libraries(self.task)},
            "hardware": hardware(self.compute),
            "version": VERSION,
        }
        return json.dumps(identity, sort_keys=True, default=repr)


def run_stack(job: StackJob, observer: Observer | None = None) -> list[Record]:
    """Train the job to its end and return one record per seed, in the order of `job.seeds`.

    With `job.out` each record is written to its result.json, and the checkpoint from which an
    interrupted job goes on is removed at the end. A seed that another process has finished since
    the job was planned is not trained again. Raises Interrupted(share, seconds), how far it is and
    what that took, when asked to stop, Claimed where another process trains one of the seeds, and
    UsageError for a folder that is full or unwritable.
    """
    job.method.check_source()
    observer = observer or Observer()
    with locked(job.seed_folders), _collected():
        finished = [] if _has_checkpoint(job) else [seed for seed in job.seeds if job.is_done(seed)]
        rest = tuple(seed for seed in job.seeds if seed not in finished)
        records = _finished(job, finished)
        if rest:
            records |= {each["seed"]: each for each in _run(replace(job, seeds=rest), observer)}
        else:
            observer.progress(steps_of(job.task, job.seeds[0], job.split))
        return [records[seed] for seed in job.seeds]


def _has_checkpoint(job: StackJob) -> bool:
    """Whether a stack has begun: it goes on as it is, since its bits are those of these mates."""
    return job.checkpoint_file is not None and checkpoint.exists(job.checkpoint_file)


def _finished(job: StackJob, seeds: Sequence[int]) -> dict[int, Record]:
    """Return the records that another process has left."""
    if job.folder is None:
        return {}
    return {seed: read_record(result_file(job.folder, seed)) for seed in seeds}


_failed: list[type[BaseException]] = []


@contextlib.contextmanager
def _collected() -> Iterator[None]:
    """Free what a run leaves, whose parts and hooks hold each other, when it ends.

    What was alive before is put aside meanwhile: to look through torch's modules takes longer than
    many an epoch.
    """
    if gc.get_freeze_count():  # someone has put theirs aside, and would have it come back
        gc.collect()
        yield
        return
    if _failed:  # what it left could not be freed while its exception was told of
        gc.collect()
        _failed.clear()
    gc.freeze()
    try:
        yield
    except BaseException as error:
        _failed.append(type(error))
        raise
    finally:
        gc.collect()
        gc.unfreeze()


def _run(job: StackJob, observer: Observer) -> list[Record]:
    # oneDNN's matrix products slow the tiny networks of agents down.
    is_agents = isinstance(job.task, ReinforcementTask) and job.compute.device == "cpu"
    matmul = "highest" if is_agents else None
    with settings(job.compute, matmul):
        memory = PeakMemory(job.compute)
        run = make_run(job.task, job.method, job.seeds, job.split, job.compute)
        run.twin, run.diagnostics = job.twin, job.diagnostics
        plan = CheckpointPlan(job.checkpoint_file, job.fingerprint(), job.checkpoint_seconds)
        with _writers(job, job.seed_folders, observer) as writers:
            try:
                run.train(plan, observer if writers is None else _observed(observer, writers))
            except Interrupted:
                raise Interrupted(*run.progress()) from None
            records = make_records(job, run, memory.bytes())
            if writers is not None:  # first: once there is a result, nothing writes these anew
                writers.close(records)
            _save(job, records)
    return records


@contextlib.contextmanager
def _writers(
    job: StackJob, folders: list[Path], observer: Observer
) -> Iterator[SeedWriters | None]:
    if not folders or not job.tensorboard:
        yield None
        return
    from ht_bench.views.live import SeedWriters  # protobuf takes a sixth of a second

    writers = SeedWriters(folders)
    try:
        yield writers
    finally:
        writers.close()


def _observed(observer: Observer, writers: SeedWriters) -> Observer:
    def point(entry: dict[str, Any]) -> None:
        observer.point(entry)
        writers.point(entry)

    return Observer(observer.progress, point, observer.stop)


def _save(job: StackJob, records: list[Record]) -> None:
    if job.folder is None or job.checkpoint_file is None:
        return
    for record in records:
        path = result_file(job.folder, record["seed"])
        write_record(path, record)
        remove_leftovers(path)
    checkpoint.remove(job.checkpoint_file)


def make_records(
    job: StackJob, run: SupervisedRun | ReinforcementRun, peak_memory: int
) -> list[Record]:
    """Return one record per real seed of the stack; padding is thrown away."""
    retention = run.retention()
    shared = {
        "schema": SCHEMA,
        "benchmark": EPOCH,
        "task": job.task.name,
        "task_sha256": job.task.sha256,
        "method": job.method.name,
        "hyperparameters": dict(job.method.hyperparameters),
        "source_sha256": job.method.source_sha256,
        "traits": job.method.traits(),
        "split": job.split,
        "precision": job.compute.precision,
        "device": job.compute.device,
        "stack": job.task.stack,
        **run.facts(),
        "steps": run.steps_taken,
        "extra_parameters": sum(map(extra_parameters, run.methods)) // len(run.seeds),
        "software": {"ht_bench": VERSION, **software(job.compute), **libraries(job.task)},
        "hardware": hardware(job.compute),
    }
    cost = {
        "seconds": run.seconds / len(run.seeds),
        "stack_seconds": run.seconds,
        "evaluation_seconds": run.evaluation_seconds / len(run.seeds),
        "peak_memory_bytes": peak_memory,
        "tensor_bytes": max(run.most_held, run.tensor_bytes()) // len(run.seeds),
    }
    return [
        {
            **shared,
            "seed": seed,
            "status": "finished" if bool(run.alive[slot]) else "diverged",
            "curve": run.history.curve(slot),
            "diagnostics": run.history.diagnosis(slot),
            "retention": retention[slot] if retention else None,
            "cost": cost,
        }
        for slot, seed in enumerate(job.seeds)
    ]


def extra_parameters(method: Method) -> int:
    """Return how many numbers the method holds beside the network, over the whole stack."""

    def count(value: Any) -> int:
        if isinstance(value, torch.Tensor):
            return value.numel()
        if isinstance(value, dict):
            return sum(count(item) for item in value.values())
        return sum(count(item) for item in value) if isinstance(value, list | tuple) else 0

    return count(method.state_dict())
