"""An entry of the leaderboard and new tasks of the same method → one entry with both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.leaderboard.valid import read_submission

ALIKE = (
    ("benchmark", "epoch"),
    ("split", "split"),
    ("precision", "precision"),
    ("device", "device"),
)
"""What both halves of an entry share, and its name in a sentence."""


def read_entry(path: Path) -> Mapping[str, Any]:
    """Return the content of a valid entry that is to hold more tasks.

    Raises UsageError where there is no file, or one that `ht-bench verify` does not call valid.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no entry to extend; leave out --extend to make one.")
    entry, faults = read_submission(path)
    if entry is None:
        raise UsageError(f"{path} cannot be extended: {faults[0]}")
    return entry.content


def with_entry(
    entry: Mapping[str, Any], content: Mapping[str, Any], path: Path
) -> dict[str, dict[str, Any]]:
    """Return the tasks of an entry and of new content; of a task in both, the new runs.

    Raises UsageError where they are not of one method, one version of its source, one epoch,
    split, precision and device.
    """
    old, new = entry["method"], content["method"]
    if old["name"] != new["name"]:
        raise UsageError(
            f"{path} is an entry of '{old['name']}', not of '{new['name']}': write another file."
        )
    kept = {name: table for name, table in entry["tasks"].items() if name not in content["tasks"]}
    if old["source_sha256"] != new["source_sha256"] and kept:
        raise UsageError(
            f"{path} was made from another version of the source of '{new['name']}': run "
            f"{', '.join(kept)} again with this one and submit all tasks with --replace."
        )
    for key, word in ALIKE:
        if entry[key] != content[key] and kept:
            raise UsageError(
                f"{path} is of {word} {entry[key]} and these runs of {content[key]}: an entry "
                "holds one; write another file."
            )
    return dict(sorted({**kept, **content["tasks"]}.items()))
