"""result.json: one seed of one task and method; its place, its schema, reading and writing."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError, reason, shown
from ht_bench.files import read_json, write_atomically

SCHEMA = 1
COUNTS = ("stack", "classes", "steps", "extra_parameters")
"""Whole numbers of a record that are computed with; seeds, which may be of any size, are not."""
Record = dict[str, Any]


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
    record = read_json(path, "delete it and run again to remake it")
    check_record(record, str(path))
    return dict(record)


def check_record(record: Any, where: str) -> None:
    """Raise UsageError unless `record` obeys record.schema.json and its columns have one length."""
    if not isinstance(record, dict):
        raise UsageError(f"{where} does not hold a result; delete it and run again.")
    if fault := next(_faults(record), ""):
        raise UsageError(f"{where}: {fault}; delete it and run again.")
    if record["schema"] != SCHEMA:
        raise UsageError(
            f"{where} has schema {record['schema']}, this version reads {SCHEMA}; run again."
        )


def _faults(record: Record) -> Iterator[str]:
    try:
        errors = list(itertools.islice(_validator().iter_errors(record), 1))
    except UnicodeEncodeError:
        yield "a string holds half a surrogate pair"
        return
    except ValueError as deep:  # the library's "Recursion limit reached"
        yield f"it is nested too deeply ({reason(deep)})"
        return
    for error in errors:
        place = "".join(f"{shown(str(part))}: " for part in error.instance_path)
        missing = getattr(error.kind, "property", None)
        yield place + (f"the key '{missing}' is missing" if missing else error.message)
    measured = "eval/return" if "reference" in record else "test/accuracy"
    if measured not in record["curve"]:
        yield f"'curve' has no '{measured}'"
    for key in ("curve", "diagnostics"):
        if len({len(values) for values in record[key].values()}) > 1:
            yield f"'{key}' has lists of different lengths"
    yield from _beyond(record)


def _beyond(record: Record) -> Iterator[str]:
    """Find integers that no double holds: JSON has them of any size.

    Bounds in the schema would take twenty times as long as all the rest of it.
    """
    lists = {
        f"'{k}': '{name}'": v for k in ("curve", "diagnostics") for name, v in record[k].items()
    }
    lists["'retention'"] = record.get("retention") or []
    lists["'cost'"] = list(record["cost"].values())
    lists["'reference'"] = list(record.get("reference", {}).values())
    lists["its counts"] = [record[key] for key in COUNTS]
    for place, values in lists.items():
        try:
            array("d", [value or 0 for value in values])
        except OverflowError:
            yield f"{place} has a number beyond double precision"


@functools.cache
def _validator() -> Any:
    import jsonschema_rs  # takes long to import, and few commands read results

    rules = json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))
    return jsonschema_rs.Draft4Validator(rules, mask="the value")


def outline(record: Mapping[str, Any]) -> Record:
    """Return what a long sweep keeps of a run whose result is on disk: whose, how it went, cost."""
    return {key: record[key] for key in ("task", "method", "seed", "status", "stack", "cost")}


def without_cost(record: Mapping[str, Any]) -> Record:
    """Return the record without its `cost` block: what must be equal bit for bit."""
    return {key: value for key, value in record.items() if key != "cost"}


def seeds_of(records: Iterable[Record]) -> list[int]:
    """Return the seeds of the records, in their order."""
    return [int(record["seed"]) for record in records]
