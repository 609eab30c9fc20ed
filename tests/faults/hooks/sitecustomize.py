"""Loaded first by every Python process of a round: notes who trains what, can set the clock back.

A line of the log: what happened, process, nanoseconds of the monotonic clock, seed's folder, and
whether a whole result lay there. Audit hooks see it without knowing the code that does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any

LOG, CLOCK = "FAULTS_LOG", "FAULTS_CLOCK"
_EVENTS = "events.out.tfevents."
_time, _time_ns, _replace = time.time, time.time_ns, os.replace


def install() -> None:
    """Watch this process, as the environment says where to."""
    if LOG in os.environ:
        sys.addaudithook(_audit)
        os.replace = _noted_replace
    if CLOCK in os.environ:
        time.time, time.time_ns = _set_back, lambda: _time_ns() - _seconds_back() * 10**9
        if "tqdm.std" in sys.modules:
            sys.modules["tqdm.std"].time = _set_back  # type: ignore[attr-defined]


def _set_back() -> float:
    return _time() - _seconds_back()


def _seconds_back() -> int:
    with contextlib.suppress(OSError, ValueError), open(os.environ[CLOCK], "rb") as file:
        return int(file.read())
    return 0


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str | os.PathLike):
        return
    folder, name = os.path.split(os.fspath(arguments[0]))
    if not isinstance(name, str) or not name.startswith(_EVENTS) or "w" not in str(arguments[1]):
        return
    # The second file of a run holds its hyperparameters: training is over then.
    if not any(other.name.startswith(_EVENTS) for other in os.scandir(folder)):
        _note("begin", folder)


def _noted_replace(source: Any, target: Any, **options: Any) -> None:
    _replace(source, target, **options)
    folder, name = os.path.split(os.fspath(target))
    if name == "result.json":
        _note("result", folder)


def _note(what: str, folder: str) -> None:
    words = [what, os.getpid(), time.monotonic_ns(), _has_result(folder), folder]
    with contextlib.suppress(OSError):  # a limit on the size of files holds for the log too
        log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(log, f"{json.dumps(words)}\n".encode())
        os.close(log)


def _has_result(folder: str) -> bool:
    try:
        with open(f"{folder}/result.json", encoding="utf-8") as file:
            return isinstance(json.load(file), dict)
    except (OSError, ValueError):
        return False


install()
