"""The stage of a round: a folder, the command that runs in it, and what befalls it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults.disk import FileSystem, SizeLimit
from tests.faults.hooks import sitecustomize
from tests.faults.processes import Driver
from tests.faults.work import PATIENCE, Reference, Workload, begun

ENDS_WITHIN = 30.0
"""Seconds in which workers end whose driver is gone."""
EARLY = 0.7
"""Share of an undisturbed run's time in which faults strike: later, the command may have ended."""


@dataclass
class Scene:
    """A round while it goes on.

    Faults are generators: they wait by yielding, and act between. struck: how many of them hit.
    damaged: files that a fault has damaged. complaints: what was wrong beside the results.
    """

    folder: Path
    files: Path
    workload: Workload
    reference: Reference
    draw: random.Random
    jobs: int
    can_mount: bool = False
    struck: int = 0
    damaged: set[Path] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    said: str = ""
    drivers: list[Driver] = field(default_factory=list)
    killed: list[Driver] = field(default_factory=list)
    disk: FileSystem | SizeLimit | None = None

    @property
    def out(self) -> Path:
        """The folder of runs."""
        return self.folder / "runs"

    @property
    def log(self) -> Path:
        """What the processes did, line by line."""
        return self.folder / "log"

    @property
    def driver(self) -> Driver:
        """The command that the attempt began with."""
        return self.drivers[0]

    @property
    def is_running(self) -> bool:
        """Whether any command of the attempt runs."""
        return any(driver.exit_code is None for driver in self.drivers)

    # ---- for faults ----

    def start(self, jobs: int | None = None, words: Sequence[str] = ()) -> Driver:
        """Start the command, once more where it runs already."""
        environment = {
            sitecustomize.LOG: str(self.log),
            sitecustomize.CLOCK: str(self.folder / "clock"),
        }
        words = words or self.workload.words(self.files, self.out, jobs or self.jobs)
        self.drivers.append(Driver(words, environment))
        return self.drivers[-1]

    def wait(self, happened: Callable[[], bool]) -> Iterator[None]:
        """Wait for it, or for the end of all commands."""
        while not happened() and self.is_running:
            yield

    def instant(self) -> Iterator[None]:
        """Wait for a random instant of training, or one at which a file is just being written."""
        yield from self.wait(lambda: begun(self.out))
        after = time.monotonic() + self.draw.uniform(0, EARLY * self.reference.seconds[self.jobs])
        yield from self.wait(lambda: time.monotonic() >= after)
        pattern = self.draw.choice(("", "", ".result.json.*", ".stack-*"))
        if pattern:
            until = time.monotonic() + 0.4
            yield from self.wait(lambda: time.monotonic() > until or any(self.out.rglob(pattern)))

    def strike(self) -> bool:
        """Count a fault that hits; False where all commands have ended before it."""
        self.struck += self.is_running
        return self.is_running

    def kill(self, driver: Driver) -> None:
        """SIGKILL to one command's driver alone; its workers must end by themselves."""
        self.killed.append(driver)
        driver.signal(signal.SIGKILL)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of all commands."""
        return [process for driver in self.drivers for process in driver.session()]

    # ---- for rounds ----

    def attempt(self, acting: Sequence[Iterator[None]] = (), words: Sequence[str] = ()) -> int:
        """Run the command to its end while `acting` go on; returns its exit code."""
        self.drivers = []
        driver = self.start(words=words)
        waiting, deadline = list(acting), time.monotonic() + PATIENCE
        try:
            while self.is_running or waiting:
                for each in self.drivers:
                    each.read()
                waiting = [fault for fault in waiting if next(fault, self) is not self]
                time.sleep(0.004)
                if time.monotonic() > deadline:
                    self.complaints.append(f"a command still runs after {PATIENCE:.0f} s")
                    break
        finally:
            self._close()
        return driver.exit_code or 0

    def _close(self) -> None:
        hung = self.is_running
        for driver in self.drivers:
            if hung:
                driver.signal(signal.SIGKILL)
            left = driver.close(ENDS_WITHIN)
            self.complaints += [f"a process outlives its driver: {line}" for line in left]
            self.said += f"--- exit code {driver.exit_code}\n{driver.said}"
            if "Traceback (most recent call last)" in driver.said:
                self.complaints.append("a traceback is printed")

    def mount(self, limit: bool) -> None:
        """Put the folder of runs on a disk that can be filled."""
        self.disk = SizeLimit(self.out) if limit or not self.can_mount else FileSystem(self.out)

    def cut(self, file: Path) -> None:
        """Damage a file: cut it short, or change some of its bytes."""
        try:
            size = file.stat().st_size
            if self.draw.random() < 0.7 or file.suffix == ".json":
                os.truncate(file, self.draw.randrange(max(size - 1, 1)))
            else:
                with file.open("r+b") as opened:
                    opened.seek(self.draw.randrange(max(size, 1)))
                    opened.write(self.draw.randbytes(8))
        except OSError:  # it has gone meanwhile
            return
        self.damaged.add(file)
