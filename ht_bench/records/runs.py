"""A folder of runs: where each lies, its tasks' specs, which are finished, who trains in it.

A lock keeps two processes from training one run; the system drops it when its holder dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import read_json, write_atomically
from ht_bench.records.record import Record, read_record
from ht_bench.streams.catalog import get_task
from ht_bench.streams.families import FAMILIES
from ht_bench.streams.spec import Spec
from ht_bench.streams.task import parse_task
from ht_bench.version import EPOCH

NO_LOCKS = "HT_BENCH_NO_LOCKS"

try:
    import fcntl
except ImportError:  # Windows: no advisory locks; runs there are not protected from each other
    fcntl = None  # type: ignore[assignment]


def group_folder(out: Path, task: str, method: str, digest: str) -> Path:
    """Return runs/<task>/<method>-<8 hex>."""
    return out / task / f"{method}-{digest}"


def result_file(group: Path, seed: int) -> Path:
    """Return <group>/seed<k>/result.json."""
    return group / f"seed{seed}" / "result.json"


def write_spec(out: Path, task: Spec) -> None:
    """Keep the task's spec beside its runs, so that they can be read without the task's file."""
    path = out / task.name / "task.json"
    text = json.dumps(task.canonical(), indent=1, sort_keys=True) + "\n"
    if not _holds(path, text.encode()):
        write_atomically(path, text)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def read_spec(out: Path, name: str) -> Spec:
    """Return the task whose runs lie below `out`; its shipped file serves where no spec is kept."""
    path = out / name / "task.json"
    if not path.is_file():
        return get_task(name)
    table = read_json(path, "delete it and run again")
    if not isinstance(table, dict):
        raise UsageError(f"{path} does not hold a task; delete it and run again.")
    return parse_task(table, str(path), kept=True)


def is_finished(
    path: Path, task_sha256: str, data_sha256: str, source_sha256: str | None = None
) -> bool:
    """Whether `path` holds a result of this very task, data and comparability epoch.

    source_sha256: the method's source must be the same too; None does not ask.
    """
    if not path.is_file():
        return False
    try:
        record = read_record(path)
    except UsageError:
        return False
    if source_sha256 not in (None, record["source_sha256"]):
        return False
    wanted = (task_sha256, data_sha256, EPOCH)
    return (record["task_sha256"], record["data_sha256"], record["benchmark"]) == wanted


def origin_of(path: Path) -> tuple[str, str] | None:
    """Return the ht-bench and the task's hash of the result in `path`; None where it holds none."""
    try:
        record = read_record(path)
    except UsageError:
        return None
    return str(record["benchmark"]), str(record["task_sha256"])


SCORED = frozenset({"phase", "step", *(family.metric for family in FAMILIES.values())})
"""The columns of a curve that scores are read off."""


def read_runs(folder: Path, *, scored: bool = False) -> tuple[list[Record], list[str]]:
    """Return every result.json below `folder`, in path order, and a sentence per unreadable one.

    scored: keep of the curves SCORED alone, and no diagnostics: a third of the memory. What
    records have in common they share, so change none in place. Raises UsageError if there is no
    folder, no result, or none that can be read.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file; name a folder that `ht-bench run --out` filled.")
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; `ht-bench run … --out {folder}` makes it.")
    files = sorted(_results_below(folder), key=_by_number)
    if not files:
        raise UsageError(
            f"{folder} holds no finished run; `ht-bench run … --out {folder}` adds some."
        )
    records, faults, parts = [], [], dict[str, Any]()
    for file in files:
        try:
            records.append(_lean(read_record(file), parts, scored))
        except UsageError as error:
            faults.append(f"A result is left out: {error}")
    if not records:
        raise UsageError(faults[0])
    return records, faults


def find_runs(folder: Path, seed: int) -> Iterator[tuple[Path, Record]]:
    """Yield every readable result.json of a seed below `folder` with its path, in path order."""
    for file in sorted(_results_below(folder), key=_by_number):
        with contextlib.suppress(UsageError):
            record = read_record(file)
            if record["seed"] == seed:
                yield file, record


def _lean(record: Record, parts: dict[str, Any], scored: bool) -> Record:
    """Return the record with what equals a part of an earlier one in `parts` taken from there.

    Equal is what is written alike: 1 is not 1.0, nor 0.0 -0.0.
    """

    def shared(part: Any) -> Any:
        return parts.setdefault(repr(part), part)

    def column(key: str, values: list[Any]) -> list[Any]:
        return shared(values) if key in ("phase", "step") else values

    own = {sys.intern(key): value for key, value in record.items()}
    for key in ("curve", "diagnostics"):
        kept = own[key] if not scored else _scored(own[key]) if key == "curve" else {}
        own[key] = {sys.intern(k): column(k, values) for k, values in kept.items()}
    for key in own.keys() - {"curve", "diagnostics", "cost", "retention", "seed"}:
        own[key] = shared(own[key])
    own["cost"] = {sys.intern(k): v for k, v in own["cost"].items()}
    return own


def _scored(curve: dict[str, Any]) -> dict[str, Any]:
    return {key: values for key, values in curve.items() if key in SCORED}


def _results_below(folder: Path) -> Iterator[Path]:
    """Yield every seed*/result.json, through linked folders too, each real file once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()  # a link that leads back
        elif "result.json" in files and Path(place).name.startswith("seed"):
            yield Path(place) / "result.json"
        seen.add(real)


def _by_number(file: Path) -> tuple[str, int]:
    digits = file.parent.name.removeprefix("seed")
    return str(file.parent.parent), int(digits) if digits.lstrip("-").isdigit() else 0


class Claimed(UsageError):
    """Another process trains in the folder."""


@contextlib.contextmanager
def locked(folders: Iterable[Path]) -> Iterator[None]:
    """Hold the lock file of every folder; raises Claimed if another process holds one.

    Raises UsageError where nothing can be written or the file system keeps no locks.
    """
    descriptors: list[int] = []
    try:
        for folder in folders:
            descriptors.append(_lock(folder))
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def is_claimed(folders: Iterable[Path]) -> bool:
    """Whether another process holds the lock of one of the folders just now."""
    if fcntl is None:
        return False
    for folder in folders:
        try:
            descriptor = os.open(folder / ".lock", os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no locks there
            continue
        finally:
            os.close(descriptor)
    return False


ENDS_WITHIN = 2.0
"""Seconds in which a worker ends whose parent was killed; until then it holds its locks."""


def _take(descriptor: int) -> None:
    """Lock at once, or as soon as a dying process lets go; raises BlockingIOError."""
    deadline = time.monotonic() + ENDS_WITHIN
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be written ({error.strerror or error}); "
            "name another with --out."
        ) from error
    if fcntl is None:
        return descriptor
    try:
        _take(descriptor)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Claimed(
            f"Another process is training {folder}; wait for it to end, or name another --out."
        ) from error
    except OSError as error:
        if os.environ.get(NO_LOCKS):
            return descriptor
        os.close(descriptor)
        raise UsageError(
            f"The file system of {folder} keeps no locks ({error.strerror or error}); name another "
            f"--out, or set {NO_LOCKS}=1 and see to it that no other process trains there."
        ) from error
    return descriptor
