"""How long stacks take, from what was measured, and the order that tells most soonest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ht_bench.records.record import Record
from ht_bench.running.job import StackJob
from ht_bench.running.kinds import steps_of


@dataclass(frozen=True)
class Left:
    """A stack that is not finished: the share of its steps that is done, and what that took."""

    job: StackJob
    share: float = 0.0
    seconds: float = 0.0


@dataclass
class _Sum:
    seconds: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        self.count += 1


class Times:
    """Seconds that a whole stack takes, by task and method: measured, else the task's own guess."""

    def __init__(self, records: Iterable[Record] = (), partly: Iterable[Left] = ()) -> None:
        """Read them off finished runs, and where there are none off stacks that were stopped."""
        self._measured: dict[str, dict[str, _Sum]] = {}
        for record in records:
            self.add(record)
        for left in partly:
            task, method = left.job.task.name, left.job.method.name
            if left.share > 0 and method not in self._measured.get(task, {}):
                self._count(task, method, left.seconds / left.share)

    def add(self, record: Record) -> None:
        """Count the stack of a finished run."""
        self._count(record["task"], record["method"], stack_seconds(record))

    def _count(self, task: str, method: str, seconds: float) -> None:
        self._measured.setdefault(task, {}).setdefault(method, _Sum()).add(seconds)

    def of(self, job: StackJob) -> float | None:
        """Return the seconds of a stack; None where nothing tells."""
        cells = self._measured.get(job.task.name, {})
        if own := cells.get(job.method.name):
            return own.seconds / own.count
        if cells:
            return sum(c.seconds for c in cells.values()) / sum(c.count for c in cells.values())
        minutes = job.task.minutes_per_stack
        return None if minutes is None else 60 * minutes

    def remaining(self, left: Sequence[Left]) -> float | None:
        """Return the seconds of one process that `left` takes; None where nothing tells."""
        each = [
            stack.seconds * (1 / stack.share - 1) if stack.share > 0 else self.of(stack.job)
            for stack in left
        ]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) if len(known) == len(each) else None


def stack_seconds(record: Record) -> float:
    """Return what the record's whole stack took, training and evaluation."""
    cost = record["cost"]
    training = cost.get("stack_seconds", cost["seconds"] * record["stack"])
    return float(training + cost.get("evaluation_seconds", 0.0) * record["stack"])


def by_information(
    jobs: Sequence[StackJob], finished: Iterable[Path], times: Times
) -> list[StackJob]:
    """Return the jobs with one stack of every task and method first, then the second of each.

    A cell's finished seeds count as stacks that went before. Within a round the shorter is first,
    and those whose time nobody knows come last, by their steps.
    """
    done = Counter(path.parent.parent for path in finished)
    begun: Counter[tuple[Path | None, str, str]] = Counter()
    keyed = []
    for job in jobs:
        cell = (job.folder, job.task.name, job.method.name)
        before = 0 if job.folder is None else done[job.folder] / job.task.stack
        seconds = times.of(job)
        length = float("inf") if seconds is None else seconds
        steps = steps_of(job.task, job.seeds[0], job.split)
        keyed.append(((before + begun[cell], length, steps), job))
        begun[cell] += 1
    return [job for _, job in sorted(keyed, key=lambda pair: pair[0])]
