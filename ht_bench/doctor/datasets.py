"""The data: which are here, and whether they are what they are called."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from ht_bench.doctor.finding import Finding, fault, note, ok
from ht_bench.errors import UsageError
from ht_bench.streams import cache, data
from ht_bench.streams.bundled import BUNDLED

LEFT_AFTER = 3600.0
"""Seconds after which what a writer has not finished is no longer being written."""


def datasets(out: Path) -> Iterator[Finding]:
    """Look which named datasets are here."""
    for entry in data.known():
        if data.is_outside(entry.name):
            continue  # a function: plug-ins are looked at, and calling one may take hours
        yield _present(entry.name) if entry.cached else _absent(entry.name)
    yield from _leftovers(cache.cache_folder())


def _present(name: str) -> Finding:
    folder = cache.cache_folder() / name
    return ok(f"{name} is here{'' if name in BUNDLED else f', {folder}'}.")


def _absent(name: str) -> Finding:
    if (place := data.raw_place(name)) is not None:
        return ok(f"{name} will be imported from {place} when it is first needed.")
    return note(f"{name} is not on this machine.", f"ht-bench data fetch {name}")


def contents(out: Path) -> Iterator[Finding]:
    """Read every dataset that is here whole, and compare its hash."""
    for entry in data.known():
        if not entry.cached or data.is_outside(entry.name):
            continue
        try:
            sha256 = data.load(entry.name).sha256
        except UsageError as error:
            yield fault(str(error), _again(entry.name))
        else:
            yield ok(f"{entry.name} is whole, sha256 {sha256[:12]}….")


def _again(name: str) -> str:
    if name in BUNDLED:
        return f"python -m pip install --force-reinstall {BUNDLED[name].origin.lower()}"
    return f"rm -r {cache.cache_folder() / name} && ht-bench data fetch {name}"


def _leftovers(folder: Path) -> Iterator[Finding]:
    """Find what a writer that was killed left in the cache."""
    before = time.time() - LEFT_AFTER
    left = [
        place
        for name in (entry.name for entry in data.known())
        for place in folder.glob(f".{name}.*")
        if place.stat().st_mtime < before
    ]
    if left:
        yield note(
            f"{len(left)} half-made dataset(s) of killed processes lie in {folder}.",
            f"rm -r {' '.join(map(str, left[:3]))}{' …' if left[3:] else ''}",
        )
