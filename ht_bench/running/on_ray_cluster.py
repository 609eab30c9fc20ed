"""A Ray cluster as a driver meets it: connecting, what its nodes have, folders marked for them."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError, reason
from ht_bench.files import write_atomically
from ht_bench.running.cores import available_cores

QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}
TRIES = 3
"""Of starting Ray on a busy machine."""
PATIENCE = 30.0
"""Seconds in which a cluster has to answer."""
STORE = 256 * 2**20
"""Bytes of shared memory of a Ray instance of this machine: results are small."""
OLD = 7 * 86400.0
"""Seconds after which a killed driver's mark is deleted; without one, a folder is not shared."""


def import_ray() -> Any:
    """Return the module; raises UsageError where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(
            f"--executor ray needs Ray ({error}); pip install 'ht-bench[ray]'."
        ) from error


@contextlib.contextmanager
def connected(address: str, cpus: int) -> Iterator[Any]:
    """Yield ray, connected; what this starts is ended after, and what ran before goes on.

    address: "" takes what RAY_ADDRESS names, else starts an instance of this machine, with `cpus`
    CPUs or as many as there are cores. A program that is connected already stays so. Raises
    UsageError for a cluster that does not answer.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS", "") or "local"
    with _as_before():
        if address == "local":
            _start(ray, cpus)
        else:
            _check_answers(address)
            try:
                ray.init(address, **QUIET)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UsageError(_unusable(address, error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, cpus: int) -> None:
    """Start an instance of this machine; Ray gives its own processes no more than 30 seconds."""
    own = {
        "num_cpus": max(available_cores(), cpus),
        "include_dashboard": False,
        "object_store_memory": STORE,
    }
    for tries_left in reversed(range(TRIES)):
        try:
            ray.init("local", **QUIET, **own)
            return
        except Exception as error:  # what it raises on a busy machine is no class of its own
            ray.shutdown()
            if not tries_left:
                raise UsageError(
                    f"Ray did not start on this machine ({reason(error)}); try again when it is "
                    "less busy, or leave --executor out."
                ) from error


def _unusable(address: str, error: Exception) -> str:
    if address == "auto":
        return (
            f"No Ray cluster was found from here ({reason(error)}); name its --address host:port, "
            "or leave the option out for one of this machine."
        )
    return f"The Ray cluster '{address}' cannot be used: {reason(error)}; see --address."


def _check_answers(address: str) -> None:
    """Raise UsageError where nothing listens: Ray itself would try for minutes."""
    place = address.removeprefix("ray://")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except OSError as error:
        raise UsageError(
            f"No Ray cluster answers at {address} ({error.strerror or error}); `ray status` on its "
            "head node tells whether it runs, and --address takes its host:port."
        ) from error


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Keep SIGTERM's handler, which Ray changes when it starts, and have it report to nobody."""
    mine = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if mine else None
    asked = "RAY_USAGE_STATS_ENABLED" in os.environ
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        yield
    finally:
        if not asked:
            del os.environ["RAY_USAGE_STATS_ENABLED"]
        if mine and handler is not None:
            signal.signal(signal.SIGTERM, handler)


# ---- what its nodes have ----


@dataclass(frozen=True)
class Need:
    """What a stack is given."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU(s)" if self.gpus else ""
        return f"{self.cpus:g} CPU(s){gpus}"


def room(ray: Any, need: Need, without: Collection[str] = ()) -> int:
    """Return how many such stacks the living nodes hold at once, some left out by their ids."""
    return sum(
        _fits(node["Resources"], need)
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in without
    )


def _fits(has: Mapping[str, float], need: Need) -> int:
    kinds = (("CPU", need.cpus), ("GPU", need.gpus))
    return min(int(has.get(kind, 0) / amount + 1e-6) for kind, amount in kinds if amount > 0)


def largest(ray: Any) -> str:
    """Say what the nodes have."""
    nodes = {
        str(Need(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"]
    }
    return ", ".join(sorted(nodes)) or "none is alive"


# ---- folders that nodes may share with the driver ----


@contextlib.contextmanager
def marked(folders: Iterable[Path]) -> Iterator[dict[str, str]]:
    """Write a file with random text into each folder; yields text by file, gone at the end."""
    tokens = {str(folder / f".shared-{secrets.token_hex(4)}"): _text() for folder in set(folders)}
    for file, text in tokens.items():
        _sweep_up(Path(file).parent)
        write_atomically(Path(file), text)
    try:
        yield tokens
    finally:
        for file in tokens:
            Path(file).unlink(missing_ok=True)


def _text() -> str:
    return secrets.token_hex(16)


def _sweep_up(folder: Path) -> None:
    for file in folder.glob(".shared-*"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > OLD:
                file.unlink()
