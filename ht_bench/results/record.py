"""result.json: one seed of one task and method; its place, its schema, reading and writing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.version import EPOCH

SCHEMA = 1
Record = dict[str, Any]

_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "benchmark": str,
    "task": str,
    "task_sha256": str,
    "data_sha256": str,
    "method": str,
    "hyperparameters": dict,
    "source_sha256": str,
    "seed": int,
    "split": str,
    "precision": str,
    "device": str,
    "stack": int,
    "classes": int,
    "status": str,
    "curve": dict,
    "diagnostics": dict,
    "steps": int,
    "extra_parameters": int,
    "cost": dict,
    "software": dict,
    "hardware": dict,
}


def group_digest(
    hyperparameters: Mapping[str, Any], split: str, precision: str, device: str
) -> str:
    """Return the eight hexadecimal digits that name a run folder beside its method."""
    identity = [dict(hyperparameters), split, precision, device]
    text = json.dumps(identity, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def group_folder(out: Path, task: str, method: str, digest: str) -> Path:
    """Return runs/<task>/<method>-<8 hex>."""
    return out / task / f"{method}-{digest}"


def result_file(group: Path, seed: int) -> Path:
    """Return <group>/seed<k>/result.json."""
    return group / f"seed{seed}" / "result.json"


def write_record(path: Path, record: Record) -> None:
    """Write one result.json atomically; raises UsageError on a full or unwritable disk."""
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False, sort_keys=True) + "\n")


def read_record(path: Path) -> Record:
    """Read and check one result.json; raises UsageError naming the file and the key."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Could not read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UsageError(
            f"{path} is not valid JSON ({error}); delete it and run again to remake it."
        ) from error
    check_record(record, str(path))
    return dict(record)


def check_record(record: Any, where: str) -> None:
    """Raise UsageError unless `record` has every key of the schema with its type."""
    if not isinstance(record, dict):
        raise UsageError(f"{where} does not hold a result; delete it and run again.")
    for key, kind in _REQUIRED.items():
        if key not in record:
            raise UsageError(f"{where}: the key '{key}' is missing; delete it and run again.")
        if not isinstance(record[key], kind):
            raise UsageError(f"{where}: '{key}' has the wrong type; delete it and run again.")
    if record["schema"] != SCHEMA:
        raise UsageError(
            f"{where} has schema {record['schema']}, this version reads {SCHEMA}; run again."
        )
    for key in ("curve", "diagnostics"):
        _check_columns(record[key], f"{where}: '{key}'")
    measured = "eval/return" if "reference" in record else "test/accuracy"
    for key in ("phase", "step", measured):
        if not record["curve"].get(key):
            raise UsageError(f"{where}: 'curve' has no '{key}'; delete it and run again.")
    _check_reference(record, where)


def _check_reference(record: Record, where: str) -> None:
    """A run of environments says what guessing and a human reach there."""
    if "reference" not in record:
        return
    reference = record["reference"]
    random = reference.get("random") if isinstance(reference, dict) else None
    if not isinstance(random, int | float) or isinstance(random, bool):
        raise UsageError(f"{where}: 'reference' has no number 'random'; delete it and run again.")


def _check_columns(table: Mapping[str, Any], where: str) -> None:
    for key, values in table.items():
        if not isinstance(values, list) or not all(
            value is None or isinstance(value, int | float) for value in values
        ):
            raise UsageError(f"{where}: '{key}' is no list of numbers; delete it and run again.")
    if len({len(values) for values in table.values()}) > 1:
        raise UsageError(f"{where} has lists of different lengths; delete it and run again.")


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


def read_runs(folder: Path) -> list[Record]:
    """Read every result.json below `folder`, in path order; raises UsageError if there is none."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; `ht-bench run … --out {folder}` makes it.")
    files = sorted(folder.rglob("seed*/result.json"), key=lambda file: _by_number(file))
    if not files:
        raise UsageError(
            f"{folder} holds no finished run; `ht-bench run … --out {folder}` adds some."
        )
    return [read_record(file) for file in files]


def _by_number(file: Path) -> tuple[str, int]:
    digits = file.parent.name.removeprefix("seed")
    return str(file.parent.parent), int(digits) if digits.lstrip("-").isdigit() else 0


def without_cost(record: Mapping[str, Any]) -> Record:
    """Return the record without its `cost` block: what must be equal bit for bit."""
    return {key: value for key, value in record.items() if key != "cost"}


def seeds_of(records: Iterable[Record]) -> list[int]:
    """Return the seeds of the records, in their order."""
    return [int(record["seed"]) for record in records]
