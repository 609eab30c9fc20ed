"""How many processors this process may use: the machine's, or the share that it was given."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

SCHEDULERS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "PBS_NCPUS", "NSLOTS")
"""What schedulers say that a job has: Slurm, PBS, Grid Engine."""


def available_cores(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """Return the least of what system, affinity, control groups and scheduler allow; at least 1.

    environment: where a scheduler tells. root: the file system that holds /proc and /sys.
    """
    return max(1, int(min([os.cpu_count() or 1, *_limits(environment, root)])))


def _limits(environment: Mapping[str, str], root: Path) -> Iterator[float]:
    for ask in ("process_cpu_count", "sched_getaffinity"):  # Python 3.13; not on macOS, Windows
        if hasattr(os, ask):
            answer = getattr(os, ask)(*((0,) if ask == "sched_getaffinity" else ()))
            yield len(answer) if isinstance(answer, set) else answer or 1
    for name in SCHEDULERS:
        if environment.get(name, "").isdigit():
            yield int(environment[name])
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _quotas(root / "sys/fs/cgroup", path, _version_2)
            elif "cpu" in controllers.split(","):
                yield from _quotas(root / "sys/fs/cgroup/cpu", path, _version_1)


def _quotas(mount: Path, path: str, read: Callable[[Path], float]) -> Iterator[float]:
    """Yield the processors that a group and those above it may use.

    A container sees the path that the host gave it, though its own group is the mount.
    """
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(mount):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                yield read(folder)


def _version_2(folder: Path) -> float:
    quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    return int(quota) / int(period)  # "max" is no number: no limit


def _version_1(folder: Path) -> float:
    quota, period = (
        int((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii"))
        for name in ("quota", "period")
    )
    if quota < 0:
        raise ValueError("no limit")
    return quota / period
