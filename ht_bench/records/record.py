"""result.json: one seed of one task and method; its place, its schema, reading and writing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically

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


def without_cost(record: Mapping[str, Any]) -> Record:
    """Return the record without its `cost` block: what must be equal bit for bit."""
    return {key: value for key, value in record.items() if key != "cost"}


def seeds_of(records: Iterable[Record]) -> list[int]:
    """Return the seeds of the records, in their order."""
    return [int(record["seed"]) for record in records]
