"""What a plan will take before it is begun: hours by device, disk, and for what nothing tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from ht_bench.records.record import outline, read_record
from ht_bench.running.expected import Times
from ht_bench.running.plan import Plan


@dataclass(frozen=True)
class Forecast:
    """What the stacks of a plan take.

    hours: of one process by device, "cpu" or "cuda", of the stacks about which something tells:
    finished runs of the same method or task, or the task's file. unknown: the tasks of the others.
    bytes: on disk, as finished runs take; None where there is none to go by.
    """

    runs: int
    stacks: int
    measured: int
    hours: Mapping[str, float]
    unknown: tuple[str, ...]
    bytes: float | None

    def __str__(self) -> str:
        if not self.stacks:
            return "Nothing is left to train."
        names = {"cpu": "core-hours", "cuda": "GPU-hours"}
        hours = [f"{hours:.2g} {names.get(d, d)}" for d, hours in self.hours.items()]
        said = [f"{self.runs} runs in {self.stacks} stack(s) of seeds are left to train"]
        if hours:
            said.append(
                f"about {' and '.join(hours)} of one process (by {self.measured} finished runs and "
                "the tasks' files)"
            )
        if self.unknown:
            said.append(f"the time on {', '.join(self.unknown)} is not known before a run of it")
        if self.bytes is not None:
            said.append(f"{self.bytes / 2**20:.0f} MiB of disk")
        return f"{'; '.join(said)}. Nothing was trained."


def forecast(plan: Plan) -> Forecast:
    """Return what is left of a plan and what that takes."""
    times = Times(outline(read_record(path)) for path in plan.finished)
    hours: dict[str, float] = {}
    unknown: dict[str, None] = {}
    for job in plan.jobs:
        seconds = times.of(job)
        if seconds is None:
            unknown[job.task.name] = None
        else:
            device = job.compute.device
            hours[device] = hours.get(device, 0.0) + seconds / 3600
    runs = sum(len(job.seeds) for job in plan.jobs)
    sizes = [_bytes(path.parent) for path in plan.finished]
    disk = runs * mean(sizes) if sizes else None
    return Forecast(runs, len(plan.jobs), len(sizes), hours, tuple(unknown), disk)


def _bytes(folder: Path) -> int:
    """Return what a run's folder takes in blocks, where the system tells, else its files' sizes."""
    stats = [path.stat() for path in (folder, *folder.iterdir())]
    return sum(512 * getattr(each, "st_blocks", each.st_size // 512) for each in stats)
