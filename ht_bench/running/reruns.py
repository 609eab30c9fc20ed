"""Training for a verifier: a submission's untrained networks, and some of its seeds again."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ht_bench import loading, networks, registry
from ht_bench.errors import UsageError, did_you_mean
from ht_bench.leaderboard.known import KnownTask
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.verify import CouldNotRun
from ht_bench.methods.base import Method
from ht_bench.methods.composed import parts_in
from ht_bench.methods.recipe import recipe_names, split_regime
from ht_bench.methods.resolve import MethodSpec, find_class, resolve
from ht_bench.networks.stacking import is_stacked
from ht_bench.records.record import Record
from ht_bench.running.compute import ComputeRequest, choose
from ht_bench.running.job import StackJob, run_stack
from ht_bench.running.kinds import libraries, make_run, steps_of
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.stream import Split
from ht_bench.streams.task import Task
from ht_bench.training.device import Compute, hardware, settings, software
from ht_bench.training.history import Observer, Point

LARGEST_NUMBER = 8192
LARGEST_GROWTH = 16
"""How many times the task's own parameters an untrusted network may have."""
MOST_PARAMETERS = 64_000_000
"""And how many at all, unless the task's own network has them."""
LARGEST_WIDENING = 4
"""How many times the task's own units, which memory follows when a thousand images pass."""
LARGEST_THREADS = 64

Announce = Callable[[str], None]


def machine(known: KnownTask, threads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (software, hardware) of a run of the task on this machine's CPU."""
    compute = Compute(threads=threads)
    return {**software(compute), **libraries(known.task)}, hardware(compute)


def first_points(known: KnownTask, submission: Submission) -> dict[int, dict[str, float]]:
    """Return, per seed, what the untrained network gives at the curve's first point.

    Raises UsageError for a `network` that the task refuses or that is too large to build.
    """
    hyperparameters = submission.tasks[known.task.name]["hyperparameters"]
    network = networks.filled(submission.method["network"], hyperparameters)
    # On this CPU, which has no TF32: fp32 is the nearest to it.
    precision = str(submission.content["precision"]).replace("tf32", "fp32")
    compute = Compute(precision=precision, threads=_threads(submission, known))
    seeds = tuple(submission.seeds(known.task.name))
    return _untrained(known, json.dumps(network, sort_keys=True), seeds, compute)


@functools.lru_cache(maxsize=1024)
def _untrained(
    known: KnownTask, network: str, seeds: tuple[int, ...], compute: Compute
) -> dict[int, dict[str, float]]:
    """Compute `first_points` once for all entries whose untrained networks are the same ones."""
    spec = _shaped(known, json.loads(network))
    width = known.task.stack
    firsts: dict[int, dict[str, float]] = {}
    for start in range(0, len(seeds), width):
        mates = seeds[start : start + width]
        entry = _first_point(known, spec, mates, compute)
        for slot, seed in enumerate(mates):
            values = {k: v[slot] for k, v in entry.items() if k not in ("phase", "step")}
            firsts[seed] = {k: v for k, v in values.items() if v is not None}
    return firsts


def _threads(submission: Submission, known: KnownTask) -> int:
    """Return the submission's CPU threads, of which bits may depend, or 1 for unbearable ones."""
    threads = submission.software(known.task.name).get("threads", 1)
    return threads if isinstance(threads, int) and 1 <= threads <= LARGEST_THREADS else 1


class _Seen(Exception):
    """The first point is there; nothing more is needed."""


def _first_point(
    known: KnownTask, spec: MethodSpec, seeds: tuple[int, ...], compute: Compute
) -> Point:
    seen: list[Point] = []

    def stop(entry: Point) -> None:
        seen.append(entry)
        raise _Seen

    with settings(compute, "highest" if known.is_control else None):
        run = make_run(known.task, spec, seeds, _test(), compute)
        with contextlib.suppress(_Seen):
            run.train(observer=Observer(point=stop))
    return seen[0]


def _test() -> Split:
    return "test"


def _shaped(known: KnownTask, network: Mapping[str, Any]) -> MethodSpec:
    """Return `none` on the task's network with untrusted changes, once they are bearable."""
    if known.is_control:
        if network:
            raise UsageError("is not empty, but a task of environments has no [net] to change.")
        return resolve("none", known.task.name, agent=True)
    _check_network(known, network)
    cls = type("Untrained", (Method,), {"network": dict(network), "__module__": __name__})
    return MethodSpec("untrained", cls, {}, "")


def _check_network(known: KnownTask, network: Mapping[str, Any]) -> None:
    if not network:
        return
    networks.refuse_references(network)
    for key, value in network.items():
        values = value.values() if isinstance(value, Mapping) else value
        numbers = values if isinstance(value, list | Mapping) else [value]
        if any(isinstance(n, int | float) and abs(n) > LARGEST_NUMBER for n in numbers):
            raise UsageError(f"'{key}' holds a number beyond {LARGEST_NUMBER}.")
    task = known.task
    assert isinstance(task, Task) and known.data is not None
    own, theirs = (_measured(known, table) for table in (task.net, {**task.net, **network}))
    most = max(own.parameters, min(LARGEST_GROWTH * own.parameters, MOST_PARAMETERS))
    if theirs.parameters > most:
        raise UsageError(
            f"makes a network of {theirs.parameters:,} parameters; {most:,} are the most here, "
            f"the task's own has {own.parameters:,}."
        )
    if theirs.units > LARGEST_WIDENING * own.units:
        raise UsageError(
            f"makes a network of {theirs.units:,} units, more than {LARGEST_WIDENING} times the "
            f"task's {own.units:,}."
        )
    if theirs.stacked != own.stacked:
        raise UsageError("names a network that does not stack seeds as the task's own does.")


@dataclass(frozen=True)
class _Measured:
    """A network's size, units being the numbers that its modules put out for one example."""

    parameters: int
    units: int
    stacked: bool


def _measured(known: KnownTask, table: Mapping[str, Any]) -> _Measured:
    """Build a network without memory and push an example without content through it."""
    assert known.data is not None
    channels, height, width = map(int, known.data.train_images.shape[1:])
    units = 0

    def count(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal units
        units += output.numel()

    with torch.device("meta"):
        module = networks.build(table, (channels, height, width), known.classes)
        for child in module.modules():
            child.register_forward_hook(count)
        module.eval()(torch.empty(1, 1, channels, height, width).flatten(0, 1 - is_stacked(module)))
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return _Measured(parameters, units, is_stacked(module))


@dataclass(frozen=True)
class Trainer:
    """Trains seeds of a submission again.

    code: "file.py:Class" or "file.py", for methods that the package does not have; only code
    named here is ever run. device: "auto" takes the submission's own.
    """

    code: str = ""
    device: str = "auto"
    announce: Announce = lambda sentence: None

    def __call__(
        self, known: KnownTask, submission: Submission, seeds: Sequence[int], twin: int = 0
    ) -> dict[int, Record]:
        """Return seed → record; raises CouldNotRun or UsageError.

        twin: 0, or the number of a rounding twin (`training.run.Run.twin`).
        """
        spec = self._method(known, submission)
        compute = self._compute(submission, known)
        records: dict[int, Record] = {}
        width = known.task.stack
        self._say(known, seeds, compute, twin)
        for start in range(0, len(seeds), width):
            mates = tuple(seeds[start : start + width])
            job = StackJob(known.task, spec, mates, _test(), compute, twin=twin)
            records |= {record["seed"]: record for record in self._train(job)}
        return records

    def _train(self, job: StackJob) -> list[Record]:
        with self._bar(job) as bar, _failures(job.method.name):
            return run_stack(job, Observer(progress=lambda n: bar.update(n) and None))

    def _say(self, known: KnownTask, seeds: Sequence[int], compute: Compute, twin: int) -> None:
        minutes = known.task.minutes_per_stack
        stacks = -(-len(seeds) // known.task.stack)
        time = "" if minutes is None else f", about {max(0.1, minutes * stacks):.1f} min"
        how = " from weights disturbed in their last bit, to measure rounding," if twin else ""
        self.announce(
            f"{known.task.name}: training seeds {format_seeds(seeds)} again{how} on "
            f"{compute.device}{time}."
        )

    def _bar(self, job: StackJob) -> Any:
        return tqdm(
            total=steps_of(job.task, job.seeds[0], "test"),
            desc=job.task.name,
            unit="step",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
            leave=False,
        )

    def _method(self, known: KnownTask, submission: Submission) -> MethodSpec:
        name = submission.method["name"]
        hyperparameters = submission.tasks[known.task.name]["hyperparameters"]
        names = {*registry.methods.names(), *recipe_names()}
        # Names alone: a submission's text is never taken for a file or a module.
        plain = split_regime(name)[0]
        if not self.code and plain not in names and not names.issuperset(parts_in(plain)):
            raise CouldNotRun(
                f"The package has no method '{name}'.{did_you_mean(name, names)}"
                " Name the file that has it: --code my_method.py:ClassName."
            )
        named = reference(self.code, name) if self.code else name
        with _failures(name):
            return resolve(named, known.task.name, hyperparameters, agent=known.is_control)

    def _compute(self, submission: Submission, known: KnownTask) -> Compute:
        content = submission.content
        device = self.device if self.device != "auto" else str(content["device"])
        threads = submission.software(known.task.name).get("threads", 1)
        if not isinstance(threads, int) or not 1 <= threads <= LARGEST_THREADS:
            raise UsageError(f"names {threads!r} threads; 1 to {LARGEST_THREADS} can be re-run.")
        try:
            asked = ComputeRequest(device, str(content["precision"]), threads)
            return choose(known.task, asked)
        except UsageError as error:
            raise CouldNotRun(str(error)) from error


@contextlib.contextmanager
def _failures(method: str) -> Iterator[None]:
    """Turn what a method raises into a sentence; what it refuses (UsageError) stays."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # a method is a user's code, and its numbers are untrusted
        raise CouldNotRun(f"Method '{method}' failed: {type(error).__name__}: {error}.") from error


def reference(code: str, method: str) -> str:
    """Return "file.py:Class" for --code; without a class, the file's own class of that name.

    Raises CouldNotRun where the file or the class is not there, or the file fails.
    """
    try:
        if not code.endswith(".py"):
            find_class(code)
            return code
        module = loading.load_file(Path(code))
    except UsageError as error:
        raise CouldNotRun(f"--code {code}: {error}") from error
    classes = {
        (vars(thing).get("name") or thing.__name__): thing.__name__
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, Method)
        and thing.__module__ == module.__name__
    }
    method, _ = split_regime(method)  # its hyperparameters stand in the entry
    if method not in classes:
        known = ", ".join(classes) or "none"
        raise CouldNotRun(
            f"{code} has no method '{method}' (it has: {known}); write {code}:ClassName."
        )
    return f"{code}:{classes[method]}"
