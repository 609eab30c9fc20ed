"""The faults, each a generator that waits for its instant and strikes; see `Scene`."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.faults.scene import EARLY, Scene

Fault = Callable[[Scene], Iterator[None]]
DAY = 86400


def driver_killed(scene: Scene) -> Iterator[None]:
    """SIGKILL to the driver alone, now and then before it trains."""
    if scene.draw.random() < 0.1:
        until = time.monotonic() + scene.draw.uniform(0, 1)
        yield from scene.wait(lambda: time.monotonic() >= until)
    else:
        yield from scene.instant()
    if scene.strike():
        scene.kill(scene.driver)


def worker_killed(scene: Scene) -> Iterator[None]:
    """SIGKILL to a worker, up to three times."""
    for _ in range(scene.draw.randint(1, 3)):
        yield from scene.instant()
        _signal_worker(scene, signal.SIGKILL)


def terminated(scene: Scene) -> Iterator[None]:
    """SIGTERM to the driver or to a worker, or Ctrl-C in its terminal."""
    yield from scene.instant()
    target = scene.draw.choice(("driver", "worker", "terminal"))
    if target == "worker" and scene.jobs > 1:
        _signal_worker(scene, signal.SIGTERM)
    elif scene.strike():
        if target == "terminal":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(scene.driver.pid, signal.SIGINT)
        else:
            scene.driver.signal(signal.SIGTERM)


def _signal_worker(scene: Scene, number: int) -> None:
    workers = scene.driver.workers()
    if workers and scene.strike():
        with contextlib.suppress(psutil.Error):
            scene.draw.choice(workers).send_signal(number)


def disk_full(scene: Scene) -> Iterator[None]:
    """No space for a while, or to the end of the command; then it is given back."""
    assert scene.disk is not None
    yield from scene.instant()
    if scene.strike():
        scene.disk.fill(scene.processes())
        until = time.monotonic() + scene.draw.uniform(0.05, 1.0)
        to_the_end = scene.draw.random() < 0.5
        yield from scene.wait(lambda: not to_the_end and time.monotonic() > until)
        scene.disk.free(scene.processes())


def checkpoint_damaged(scene: Scene) -> Iterator[None]:
    """The driver is killed after a checkpoint, of which only a part is on the disk."""
    yield from scene.instant()
    yield from scene.wait(lambda: any(scene.out.rglob("stack-*.pt")))
    if scene.strike():
        scene.kill(scene.driver)
    yield from _all_gone(scene)
    every = scene.draw.random() < 0.2  # also those before the last
    for file in sorted(scene.out.rglob("stack-*.pt*" if every else "stack-*.pt")):
        scene.cut(file)


def events_damaged(scene: Scene) -> Iterator[None]:
    """An event file is cut short: of a run that goes on, or after a kill."""
    yield from scene.instant()
    if scene.draw.random() < 0.5 and scene.strike():
        scene.kill(scene.driver)
        yield from _all_gone(scene)
    _damage_one(scene, "events.out.tfevents.*")


def result_damaged(scene: Scene) -> Iterator[None]:
    """A result is cut short: while others are trained, after a kill, or when all is finished."""
    yield from scene.instant()
    yield from scene.wait(lambda: any(scene.out.rglob("result.json")))
    how = scene.draw.choice(("running", "killed", "finished"))
    if how == "killed" and scene.strike():
        scene.kill(scene.driver)
        yield from _all_gone(scene)
    if how == "finished":
        yield from scene.wait(lambda: False)
    _damage_one(scene, "result.json")


def _damage_one(scene: Scene, pattern: str) -> None:
    found = sorted(scene.out.rglob(pattern))
    if found:
        scene.struck += 1
        scene.cut(scene.draw.choice(found))


def _all_gone(scene: Scene) -> Iterator[None]:
    deadline = time.monotonic() + 30
    while scene.processes() and time.monotonic() < deadline:
        yield


def two_runners(scene: Scene) -> Iterator[None]:
    """The same command once more while it runs; now and then one of the two is killed."""
    until = time.monotonic() + scene.draw.uniform(0, EARLY * scene.reference.seconds[scene.jobs])
    yield from scene.wait(lambda: time.monotonic() > until)
    if scene.strike():
        scene.start(jobs=scene.draw.choice((1, 2)))
    if scene.draw.random() < 0.5:
        yield from scene.instant()
        scene.kill(scene.draw.choice(scene.drivers))


def clock_back(scene: Scene) -> Iterator[None]:
    """The clock of every process jumps back, and what was written lies in the future."""
    yield from scene.instant()
    if not scene.strike():
        return
    seconds = scene.draw.choice((1, 3600, 30 * DAY))
    clock = scene.folder / "clock"
    clock.write_text(str(seconds + _seconds(clock)), encoding="ascii")
    for path in scene.out.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            os.utime(path, (status.st_atime + seconds, status.st_mtime + seconds))
    if scene.draw.random() < 0.5:
        yield from scene.instant()
        scene.kill(scene.driver)


def _seconds(clock: Path) -> int:
    return int(clock.read_text(encoding="ascii")) if clock.is_file() else 0


FAULTS: dict[str, Fault] = {
    "driver-killed": driver_killed,
    "worker-killed": worker_killed,
    "terminated": terminated,
    "disk-full": disk_full,
    "checkpoint-damaged": checkpoint_damaged,
    "events-damaged": events_damaged,
    "result-damaged": result_damaged,
    "two-runners": two_runners,
    "clock-back": clock_back,
}
UNHARMED = ("two-runners", "clock-back", "events-damaged", "result-damaged")
"""Kinds in which a command that is not killed ends well, whatever happens around it."""
SEVERAL = "several"
KINDS = (*FAULTS, SEVERAL)
