"""`ht-bench` as a process with a session of its own, what it says, and who works for it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path

import psutil

from ht_bench.cli import main
from tests.faults.hooks import sitecustomize

HOOKS = Path(sitecustomize.__file__).parent


def _run(words: Sequence[str], said: int, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    os.environ["PYTHONPATH"] = f"{HOOKS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    sys.stdout = sys.stderr = os.fdopen(said, "w", encoding="utf-8", buffering=1)
    for descriptor in (1, 2):  # its workers' too
        os.dup2(said, descriptor)
    sitecustomize.install()
    warnings.simplefilter("default")  # pytest's errors are not a user's
    sys.exit(main(list(words)))


class Driver:
    """One `ht-bench` command that runs: forked, since a fresh Python takes seconds to load torch.

    said: what it and its workers have said until `read` was last called.
    """

    def __init__(self, words: Sequence[str], environment: dict[str, str]) -> None:
        self._reading, writing = os.pipe()  # a file would obey the limit on files' sizes
        os.set_blocking(self._reading, False)
        self.said = ""
        self.process = ForkProcess(target=_run, args=(words, writing, environment))
        self.process.start()
        os.close(writing)
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def exit_code(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self.process.exitcode

    def read(self) -> None:
        """Take what it has said."""
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self._reading, 65536):
                self.said += content.decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the driver alone."""
        if self.exit_code is None:
            os.kill(self.pid, number)

    def session(self) -> list[psutil.Process]:
        """Return the living processes of its session, itself among them; zombies do not live."""
        members = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(pid) == self.pid:
                    process = psutil.Process(pid)
                    if process.status() != psutil.STATUS_ZOMBIE:
                        members.append(process)
        return members

    def workers(self) -> list[psutil.Process]:
        """Return the processes that train for it, not multiprocessing's resource tracker."""
        found = []
        for process in self.session():
            with contextlib.suppress(psutil.Error):
                if any("spawn_main" in word for word in process.cmdline()):
                    found.append(process)
        return found

    def close(self, patience: float) -> list[str]:
        """Wait for all to end, then end what has not; returns the command lines of those."""
        deadline = time.monotonic() + patience
        while (left := self.session()) and time.monotonic() < deadline:
            time.sleep(0.02)
        lines = []
        for process in left:
            with contextlib.suppress(psutil.Error):
                lines.append(" ".join(process.cmdline())[:200])
                process.send_signal(signal.SIGKILL)
        self.process.join()
        self.read()
        os.close(self._reading)
        return lines
