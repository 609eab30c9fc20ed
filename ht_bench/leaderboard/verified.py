"""verified.json: which submission files a maintainer has verified, how far, by what rule, where.

Each entry holds the digest of the file that was verified: a file that changed since then counts as
valid only, and the page says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import locked_file, write_atomically
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.verify import LEVELS, Report

Verified = Mapping[str, Mapping[str, Any]]
"""Entry's name → {"sha256": of the file, "level": …, "reruns": task → seeds, "how": [words],
"rules": task → rule, "hardware": task → words}; the last two are absent in older records."""


def read_verified(path: Path) -> Verified:
    """Return the record of verified files; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries.values():
            entry["sha256"], LEVELS.index(entry["level"])
    except OSError as error:
        raise UsageError(f"Could not read {path}: {error.strerror or error}.") from error
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} must be JSON, an object of objects with 'sha256' and 'level' ({error}); "
            "restore the file."
        ) from error
    return dict(entries)


def add_report(path: Path, report: Report) -> None:
    """Record how far a file got; verifications that end at once wait for one another.

    A lower level of the same file does not replace a higher one, unless a fault was found: what
    was called good by luck of the seeds is not good any more.
    """
    with locked_file(path):
        entries = dict(read_verified(path))
        before = entries.get(report.name, {})
        lower = LEVELS.index(report.level) < LEVELS.index(before.get("level", LEVELS[0]))
        if lower and before["sha256"] == report.sha256 and not report.faults:
            return
        entries[report.name] = _entry(report)
        lines = [f" {json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries)]
        write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _entry(report: Report) -> dict[str, Any]:
    agreeing = {task: rerun for task, rerun in report.reruns.items() if rerun["agree"]}
    return {
        "sha256": report.sha256,
        "level": report.level,
        "reruns": {task: rerun["seeds"] for task, rerun in agreeing.items()},
        "how": sorted({str(rerun["how"]) for rerun in agreeing.values()}),
        "rules": {task: rerun["rule"] for task, rerun in agreeing.items()},
        "hardware": {task: rerun["hardware"] for task, rerun in agreeing.items()},
    }


def level_of(submission: Submission, verified: Verified) -> tuple[str, Mapping[str, Any]]:
    """Return (level, the record's entry): "valid" unless this very file was verified further."""
    entry = verified.get(submission.name, {})
    if entry.get("sha256") != submission.sha256 or entry.get("level") not in LEVELS[1:]:
        return LEVELS[1], {}
    return str(entry["level"]), entry


def has_changed(submission: Submission, verified: Verified) -> bool:
    """Say whether a file of this name was verified, and is another one now."""
    return verified.get(submission.name, {}).get("sha256", submission.sha256) != submission.sha256
