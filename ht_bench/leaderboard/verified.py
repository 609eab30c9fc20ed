"""verified.json: which submission files a maintainer has verified, how far, by what rule, where.

Each entry holds the digest of the file that was verified: a file that changed since then counts as
valid only, and the page says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError, reason
from ht_bench.files import locked_file, read_json, write_atomically
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.verify import LEVELS, Report
from ht_bench.version import epoch_order

Verified = Mapping[str, Mapping[str, Any]]
"""Entry's name → {"sha256": of the file, "level": …, "reruns": task → seeds, "how": [words],
"rules": task → rule, "hardware": task → words, "benchmark": its epoch}; the last three are absent
in older records, whose epoch is FIRST. Where a name is taken in two epochs, the record of the
earlier one stands at "EPOCH/name"."""
FIRST = "0.1"


def read_verified(path: Path) -> Verified:
    """Return the record of verified files; an absent file is an empty one."""
    if not path.is_file():
        return {}
    entries = read_json(path, "restore the file")
    try:
        for entry in entries.values():
            entry["sha256"], LEVELS.index(entry["level"]), epoch_order(_epoch(entry))
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} must be JSON, an object of objects with 'sha256' and 'level' "
            f"({reason(error)}); restore the file."
        ) from error
    return dict(entries)


def verified_beside(file: Path) -> Verified:
    """Return the record of the leaderboard folder in whose submissions/ a file lies, if any."""
    for folder in file.absolute().parents[:2]:
        if folder.name == "submissions":
            return read_verified(folder.with_name("verified.json"))
    return {}


def digests(verified: Verified) -> frozenset[str]:
    """Return the digests of all files on record: what is committed, and valid in its own epoch."""
    return frozenset(str(entry["sha256"]) for entry in verified.values())


def add_report(path: Path, report: Report) -> None:
    """Record how far a file got; verifications that end at once wait for one another.

    A lower level of the same file does not replace a higher one, unless a fault was found: what
    was called good by luck of the seeds is not good any more.
    """
    with locked_file(path):
        entries = dict(read_verified(path))
        key = _make_room(entries, report)
        before = entries.get(key, {})
        lower = LEVELS.index(report.level) < LEVELS.index(before.get("level", LEVELS[0]))
        if lower and before["sha256"] == report.sha256 and not report.faults:
            return
        entries[key] = _entry(report)
        lines = [f" {json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries)]
        write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _make_room(entries: dict[str, Mapping[str, Any]], report: Report) -> str:
    """Return the key to record a file under; an entry of another epoch under its name stays."""
    other = entries.get(report.name)
    if other is None or _epoch(other) == report.benchmark:
        return report.name
    if epoch_order(report.benchmark) < epoch_order(_epoch(other)):
        return f"{report.benchmark}/{report.name}"
    entries[f"{_epoch(other)}/{report.name}"] = entries.pop(report.name)
    return report.name


def _entry(report: Report) -> dict[str, Any]:
    agreeing = {task: rerun for task, rerun in report.reruns.items() if rerun["agree"]}
    return {
        "sha256": report.sha256,
        "benchmark": report.benchmark,
        "level": report.level,
        "reruns": {task: rerun["seeds"] for task, rerun in agreeing.items()},
        "how": sorted({str(rerun["how"]) for rerun in agreeing.values()}),
        "rules": {task: rerun["rule"] for task, rerun in agreeing.items()},
        "hardware": {task: rerun["hardware"] for task, rerun in agreeing.items()},
    }


def level_of(submission: Submission, verified: Verified) -> tuple[str, Mapping[str, Any]]:
    """Return (level, the record's entry): "valid" unless this very file was verified further."""
    entry = _record(submission, verified)
    if entry.get("sha256") != submission.sha256 or entry.get("level") not in LEVELS[1:]:
        return LEVELS[1], {}
    return str(entry["level"]), entry


def has_changed(submission: Submission, verified: Verified) -> bool:
    """Say whether a file of this name was verified, and is another one now."""
    return _record(submission, verified).get("sha256", submission.sha256) != submission.sha256


def _record(submission: Submission, verified: Verified) -> Mapping[str, Any]:
    """Return what is on record of a file of this name and epoch."""
    for key in (submission.name, f"{submission.benchmark}/{submission.name}"):
        if key in verified and _epoch(verified[key]) == submission.benchmark:
            return verified[key]
    return {}


def _epoch(entry: Mapping[str, Any]) -> str:
    return str(entry.get("benchmark", FIRST))
