"""verified.json: which files a maintainer has judged, how far, and by which reruns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.verify import LEVELS, Report

Verified = Mapping[str, Mapping[str, Any]]
"""Entry's name → {"sha256": of the file, "level": …, "reruns": task → seeds}."""


def read_verified(path: Path) -> Verified:
    """Return the record of judged files; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Could not read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error}); restore the file.") from error
    if not isinstance(found, dict) or not all(map(_is_entry, found.values())):
        raise UsageError(
            f"{path} must hold an object of objects with 'sha256' and 'level'; restore the file."
        )
    return found


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("sha256"), str)
        and value.get("level") in LEVELS
    )


def add_report(path: Path, report: Report) -> None:
    """Record how far a file got.

    A lower level of the same file does not replace a higher one, unless a fault was found: what
    was judged good by luck of the seeds is not good any more.
    """
    found = dict(read_verified(path))
    before = found.get(report.name, {})
    same = before.get("sha256") == report.sha256
    if (
        same
        and not report.faults
        and LEVELS.index(str(before["level"])) > LEVELS.index(report.level)
    ):
        return
    agreeing = {task: one for task, one in report.reruns.items() if one["agree"]}
    found[report.name] = {
        "sha256": report.sha256,
        "level": report.level,
        "reruns": {task: one["seeds"] for task, one in agreeing.items()},
        "how": sorted({str(one["how"]) for one in agreeing.values()}),
    }
    lines = [f" {json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found)]
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def level_of(submission: Submission, verified: Verified) -> tuple[str, Mapping[str, Any]]:
    """Return (level, the record's entry): "valid" unless this very file was judged further."""
    entry = verified.get(submission.name, {})
    if entry.get("sha256") != submission.sha256 or entry.get("level") not in LEVELS[1:]:
        return LEVELS[1], {}
    return str(entry["level"]), entry
