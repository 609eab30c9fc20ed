"""Who trains planned stacks: processes of this machine, a Ray cluster or Slurm, by one protocol."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal, Protocol, get_args

from ht_bench.errors import UsageError
from ht_bench.records.record import Record, outline
from ht_bench.records.runs import Claimed
from ht_bench.running.expected import Left
from ht_bench.running.failure import Death, Failure, failure
from ht_bench.running.job import StackJob, run_stack
from ht_bench.running.time_limit import TimeLimit
from ht_bench.training.history import Interrupted, Observer

Progress = Callable[[int], None]
Announce = Callable[[str], None]
Name = Literal["local", "ray", "slurm"]


@dataclass
class Outcome:
    """What came of stacks: records in order of completion, why stacks failed, and what is left.

    busy: stacks that another runner trains. interrupted: whether a signal ended it; otherwise what
    is left was left for want of time.
    """

    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    busy: list[StackJob] = field(default_factory=list)
    interrupted: bool = False

    def add(self, other: Outcome, brief: bool = False) -> None:
        """Take over what came of other stacks. brief: of their records the outlines alone."""
        self.records += map(outline, other.records) if brief else other.records
        self.failures += other.failures
        self.left += other.left
        self.busy += other.busy
        self.interrupted |= other.interrupted

    @property
    def is_cut_short(self) -> bool:
        """Whether a worker's death, or a signal to it, ended what it did."""
        return bool(self.left) or any(isinstance(each, Death) for each in self.failures)


def train(job: StackJob, observer: Observer) -> Outcome:
    """Train one stack in this process, whatever comes of it: every executor's workers do."""
    try:
        return Outcome(records=run_stack(job, observer))
    except Interrupted as stopped:
        return Outcome(left=[Left(job, *stopped.args)])
    except Claimed:
        return Outcome(busy=[job])
    except (Exception, SystemExit) as error:  # a user's method may raise anything
        return Outcome(failures=[failure(job, error)])


class Executor(Protocol):
    """Trains stacks somewhere."""

    def execute(
        self,
        jobs: Sequence[StackJob],
        progress: Progress,
        limit: TimeLimit,
        stop: Callable[[], bool],
    ) -> Outcome:
        """Train all stacks and return what came of each; one that fails leaves the others running.

        progress(steps): so many more steps are done. limit: when to stop, unfinished stacks being
        saved and `left`. stop(): asked several times a second; once true, what trains is saved and
        all that is not finished is `left`. A stack whose worker dies is trained again from its
        checkpoint, as often as the request says. Raises UsageError for what no stack can be
        trained with: a method that cannot be pickled, a cluster that does not answer.
        """
        ...


@dataclass(frozen=True)
class ExecutorRequest:
    """Where to train, and with what each stack is given.

    workers: stacks at once; 0 has it chosen. address: of a Ray cluster ("auto": the one that
    runs). cpus, gpus: of each stack, on a cluster; a fraction of a GPU lets stacks share one; None
    is one GPU for what trains on CUDA and none otherwise. retries: how often a stack is trained on
    whose worker died. options: the executor's own (Slurm's partition, time, …).
    """

    name: Name = "local"
    workers: int = 0
    address: str = ""
    cpus: int = 1
    gpus: float | None = None
    retries: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for what no executor takes."""
        if self.name not in get_args(Name):
            raise UsageError(f"--executor {self.name}: choose {', '.join(get_args(Name))}.")
        if self.workers < 0:
            raise UsageError(f"--jobs {self.workers}: give 1 or more, or 0 to have it chosen.")
        if self.retries < 0:
            raise UsageError(f"--retries {self.retries}: give 0 or more.")
        if self.address and self.name != "ray":
            raise UsageError(f"--address {self.address}: only --executor ray has one.")
        if self.options and self.name != "slurm":
            raise UsageError("--slurm: only --executor slurm takes its settings.")
        if self.gpus is not None and (self.name == "local" or self.gpus < 0):
            raise UsageError(
                f"--gpus-per-run {self.gpus}: give 0 or more, with --executor ray or slurm; here, "
                "--jobs says how many share a GPU."
            )

    @property
    def is_elsewhere(self) -> bool:
        """Whether other machines train, whose devices are not those of this one."""
        return self.name != "local"

    @property
    def has_gpu(self) -> bool | None:
        """Whether stacks get a CUDA device for sure; None: not said."""
        return None if self.gpus is None else self.gpus > 0


def make_executor(request: ExecutorRequest, announce: Announce = lambda sentence: None) -> Executor:
    """Return the executor; raises UsageError where its extra is not installed.

    announce: takes sentences about what is chosen and what is tried again.
    """
    if request.name == "ray":
        from ht_bench.running.on_ray import RayExecutor

        return RayExecutor(request, announce)
    if request.name == "slurm":
        from ht_bench.running.on_slurm import SlurmExecutor

        return SlurmExecutor(request, announce)
    from ht_bench.running.local import LocalExecutor  # it needs what stands here

    return LocalExecutor(request, announce)


class Stop:
    """Whether a signal has asked for a clean stop, and which."""

    def __init__(self) -> None:
        self.signal: int = 0

    def __call__(self) -> bool:
        """Whether to stop."""
        return bool(self.signal)


@contextlib.contextmanager
def signals_stop() -> Iterator[Stop]:
    """Yield a Stop that Ctrl-C and SIGTERM set; a second one interrupts at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
