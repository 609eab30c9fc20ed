"""What lies in a runs folder: who trains there, what is damaged, what was left behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ht_bench.doctor.finding import Finding, fault, note, ok, warning
from ht_bench.errors import UsageError
from ht_bench.records.record import read_record
from ht_bench.records.runs import is_claimed
from ht_bench.streams.seeds import parse_seeds
from ht_bench.version import EPOCH

LEFT_AFTER = 600.0
"""Seconds after which a temporary file is no longer being written."""
SHOWN = 5
CHECKPOINT = re.compile(r"stack-(?P<seeds>[\d,-]+)\.pt(\.old)?")
TEMPORARY = re.compile(r"\.(result\.json|task\.json|stack-[\d,-]+\.pt(\.old)?|probe)\..+")
HASH = 32
"""Bytes at a checkpoint's start, the sha256 of the rest (`training.checkpoint`)."""


def runs(out: Path) -> Iterator[Finding]:
    """Look at every file below the runs folder."""
    if not out.is_dir():
        yield ok(f"There is no folder {out} yet; `ht-bench run --out {out}` makes it.")
        return
    files = [Path(place) / name for place, _, names in os.walk(out) for name in names]
    held = [file.parent for file in files if file.name == ".lock" and is_claimed([file.parent])]
    results = [f for f in files if f.name == "result.json" and f.parent.name.startswith("seed")]
    finished: set[Path] = set()
    yield from _results(out, sorted(results), finished)
    yield from _holders(held)
    checkpoints = [file for file in files if CHECKPOINT.fullmatch(file.name)]
    yield from _checkpoints(checkpoints, set(held), finished)
    yield from _temporary([f for f in files if TEMPORARY.fullmatch(f.name)])


def _results(out: Path, files: Sequence[Path], finished: set[Path]) -> Iterator[Finding]:
    """Read every result; the folders of those that are whole are added to `finished`."""
    epochs: Counter[str] = Counter()
    for file in files:
        try:
            epochs[str(read_record(file)["benchmark"])] += 1
            finished.add(file.parent)
        except UsageError as error:
            yield fault(f"A damaged result: {error}", f"rm {_words([file])}  # and run again")
    others = {epoch: count for epoch, count in epochs.items() if epoch != EPOCH}
    if others:
        listed = ", ".join(f"{count} of {epoch}" for epoch, count in sorted(others.items()))
        yield note(
            f"Results of another benchmark version, which are not compared with those of {EPOCH}: "
            f"{listed}."
        )
    yield ok(f"{out} holds {epochs.total()} whole result(s).")


def _holders(held: Sequence[Path]) -> Iterator[Finding]:
    if not held:
        return
    processes = sorted({pid for folder in held for pid in holder(folder / ".lock")})
    who = f"process {', '.join(map(str, processes))}" if processes else "another process"
    yield note(f"{len(held)} run(s) are being trained by {who}: {_few(held)}.")


def holder(lock: Path, table: Path = Path("/proc/locks")) -> list[int]:
    """Return the processes of this machine that hold a lock file, as far as the system tells."""
    found = []
    with contextlib.suppress(OSError):
        told = lock.stat()
        file = f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"
        for line in table.read_text(encoding="ascii").splitlines():
            words = line.split()
            if file in words and "->" not in words and int(words[4]) > 0:
                found.append(int(words[4]))
    return found


def _checkpoints(files: Sequence[Path], held: set[Path], finished: set[Path]) -> Iterator[Finding]:
    damaged, spent, waiting = [], [], []
    for file in files:
        match = CHECKPOINT.fullmatch(file.name)
        assert match is not None
        try:
            seeds = parse_seeds(match["seeds"])
        except UsageError:
            continue  # a file of someone else's
        folders = {file.parent / f"seed{seed}" for seed in seeds}
        if folders & held:
            continue  # being written
        if folders <= finished:
            spent.append(file)
        elif not is_whole(file):
            damaged.append(file)
        else:
            waiting.append(file)
    if damaged:
        yield warning(
            f"{len(damaged)} damaged checkpoint(s): a stack goes on from the one before, or starts "
            f"anew: {_few(damaged)}.",
            f"rm {_words(damaged)}",
        )
    if spent:
        yield note(
            f"{len(spent)} checkpoint(s) of finished runs: {_few(spent)}.", f"rm {_words(spent)}"
        )
    if waiting:
        yield note(
            f"{len(waiting)} checkpoint(s) of interrupted stacks, which go on where they were: "
            f"{_few(waiting)}.",
            "the same `ht-bench run` command again",
        )


def is_whole(file: Path) -> bool:
    """Whether every byte of a checkpoint is as it was written."""
    sha256 = hashlib.sha256()
    try:
        with open(file, "rb") as handle:
            expected = handle.read(HASH)
            while block := handle.read(2**20):
                sha256.update(block)
    except OSError:
        return False
    return sha256.digest() == expected


def _temporary(files: Sequence[Path]) -> Iterator[Finding]:
    before, left = time.time() - LEFT_AFTER, []
    for file in files:
        with contextlib.suppress(OSError):  # it may have taken its name meanwhile
            if file.stat().st_mtime < before:
                left.append(file)
    if left:
        yield note(
            f"{len(left)} temporary file(s) of killed processes: {_few(left)}.",
            f"rm {_words(left)}",
        )


def _few(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(map(str, sorted(paths)[:SHOWN])) + more


def _words(paths: Sequence[Path]) -> str:
    return shlex.join(map(str, sorted(paths)))
