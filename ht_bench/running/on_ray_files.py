"""Stacks that are trained apart from the driver's folder: their files go there and come back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.records.record import write_record
from ht_bench.records.runs import result_file
from ht_bench.running.executor import Outcome
from ht_bench.running.failure import Failure
from ht_bench.running.job import StackJob
from ht_bench.running.on_ray_board import Files
from ht_bench.streams.seeds import parse_seeds


def write_files(folder: Path, files: Files) -> None:
    """Write files below a folder, each whole or not at all; raises UsageError on a full disk."""
    for name, content in files.items():
        write_atomically(folder / name, content)


def read_files(folder: Path) -> Files:
    """Return the files below a folder, without locks and what was left half-written."""
    return _read(folder, folder.rglob("*"))


def stack_files(job: StackJob) -> Files:
    """Return a stack's files in the driver's folder: results and events of its seeds, checkpoints.

    Those of a part of its seeds too: mates may have been finished by another runner.
    """
    if job.folder is None:
        return {}
    files = [file for folder in job.seed_folders for file in folder.rglob("*")]
    for file in job.folder.glob("stack-*"):
        named = re.match(r"stack-([-\d,]+)\.pt", file.name)
        if named and set(parse_seeds(named[1])) <= set(job.seeds):
            files.append(file)
    return _read(job.folder, files)


def _read(folder: Path, files: Iterable[Path]) -> Files:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(files)
        if file.is_file() and not file.name.startswith(".")
    }


def keep(job: StackJob, outcome: Outcome, files: Files) -> Outcome:
    """Put what a worker returned in place of the stack's files: results last, then tidy up.

    Returns the outcome, which is a failure where the disk is full. The stack is to be claimed.
    """
    if job.folder is None:
        return outcome
    before = set(stack_files(job))
    try:
        write_files(job.folder, {n: c for n, c in files.items() if not n.endswith("result.json")})
        for record in outcome.records:
            write_record(result_file(job.folder, record["seed"]), record)
    except UsageError as error:
        return Outcome(failures=[*outcome.failures, Failure(str(error), error.__cause__)])
    if not outcome.failures:
        for name in before - set(files):
            (job.folder / name).unlink(missing_ok=True)
    return outcome
