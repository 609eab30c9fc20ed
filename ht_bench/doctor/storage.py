"""The folders that are written to: permission, space, whole files, locks between processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ht_bench.doctor.finding import Finding, fault, note, ok, warning
from ht_bench.errors import UsageError
from ht_bench.files import write_atomically
from ht_bench.records.runs import NO_LOCKS
from ht_bench.streams.cache import cache_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

GIB = 2**30
SCARCE, LITTLE = GIB // 4, 2 * GIB
"""Bytes below which a disk is as good as full, and those below which that is near."""
FILES = 10_000
"""Free files (inodes) below which a large sweep may find no more."""
PATIENCE = 30.0
"""Seconds for another process to take a lock."""
HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
NETWORK = ("nfs", "nfs4", "lustre", "cifs", "smb3", "9p", "beegfs", "gpfs", "ceph", "fuse.sshfs")
ONE_MACHINE = ("nolock", "local_lock=all", "local_lock=flock", "localflock", "nobrl")
"""Options of a mount under which a lock is seen on one machine alone."""


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    path = path.expanduser().absolute()
    return next((each for each in (path, *path.parents) if each.exists()), path)


def folders(out: Path) -> dict[str, tuple[Path, str]]:
    """Return what each folder is called → where it is, and how another is named."""
    return {
        "runs folder": (out, "--out FOLDER"),
        "data cache": (cache_folder(), "export HT_BENCH_CACHE=FOLDER"),
        "temporary folder": (Path(tempfile.gettempdir()), "export TMPDIR=FOLDER"),
    }


def writing(out: Path) -> Iterator[Finding]:
    """Write a file into each folder, and another over it, each whole."""
    for name, (place, other) in folders(out).items():
        found = existing(place)
        said = f"The {name} {place}{'' if place.expanduser().exists() else ' (not there yet)'}"
        try:
            with probe_folder(found) as probe:
                replaced = _replaces(probe / "file")
        except (OSError, UsageError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            yield fault(f"{said} cannot be written: {why or error}.", other)
            continue
        if replaced:
            yield ok(f"{said} takes files, whole or not at all.")
        else:
            yield fault(f"{said} does not replace a file by renaming another to its name.", other)


@contextlib.contextmanager
def probe_folder(place: Path) -> Iterator[Path]:
    """Yield a new folder in `place`, removed afterwards; raises OSError where none can be made."""
    probe = Path(tempfile.mkdtemp(dir=place, prefix=".ht-bench-doctor."))
    try:
        yield probe
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _replaces(file: Path) -> bool:
    for content in ("first, and longer", "second"):
        write_atomically(file, content)
    return file.read_text(encoding="utf-8") == "second" and [*file.parent.iterdir()] == [file]


def space(out: Path) -> Iterator[Finding]:
    """Look how much room each folder's disk has, in bytes and in files."""
    for name, (place, other) in folders(out).items():
        usage = shutil.disk_usage(existing(place))
        said = (
            f"{usage.free / GIB:.1f} of {usage.total / GIB:.0f} GiB are free for the {name} {place}"
        )
        if usage.free < SCARCE:
            yield fault(f"{said}.", f"free some space, or {other}")
        elif usage.free < LITTLE:
            yield warning(f"{said}.", f"free some space, or {other}")
        else:
            yield ok(f"{said}.")
        free = _free_files(existing(place))
        if free is not None and free < FILES:
            yield warning(f"{free:,} files are free for the {name} {place}.", "delete small files")


def _free_files(place: Path) -> int | None:
    """Return how many files may still be made; None where the file system sets no number."""
    if not hasattr(os, "statvfs"):  # Windows
        return None
    told = os.statvfs(place)
    return told.f_favail if told.f_files else None


def locks(out: Path) -> Iterator[Finding]:
    """Have another process hold a lock in the runs folder, see it refused here, and kill it."""
    place = existing(out)
    if fcntl is None:
        yield warning("This system has no locks: let one `ht-bench run` at a time use a folder.")
        return
    kind, options = mount_of(place)
    try:
        with probe_folder(place) as probe:
            file = probe / "lock"
            file.touch()
            said, remedy = _tried(file)
    except OSError as error:
        yield note(f"Locks were not tried: {place} cannot be written ({error.strerror}).")
        return
    if said:
        told = f"The file system of {place} ({kind or 'unknown'}) {said}"
        yield (warning if os.environ.get(NO_LOCKS) else fault)(told, remedy)
        return
    yield ok(f"Locks in {place} hold between processes, and end with them.")
    if alone := [option for option in ONE_MACHINE if option in options]:
        yield warning(
            f"{place} is mounted with {alone[0]} ({kind}): another machine does not see its locks.",
            "let one machine at a time use the folder, or mount it without that option",
        )
    elif kind in NETWORK:
        yield note(
            f"{place} is on {kind}: locks were tried on this machine alone. While `ht-bench run` "
            "trains there, another machine must see its folders as held.",
            f"ht-bench doctor --out {place}  # there, at that time",
        )


def _tried(file: Path) -> tuple[str, str]:
    """Return what is wrong with the locks of a file, and the remedy; "" and "" for nothing."""
    other = "--out FOLDER on another file system"
    alone = f"{other}, or {NO_LOCKS}=1 where no other process trains"
    command = [sys.executable, "-I", "-S", "-c", HOLDER, str(file)]
    pipe = subprocess.PIPE
    holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        with open(file, "r+b") as mine:
            assert holder.stdout is not None
            if holder.stdout.readline().strip() != b"held":
                return "keeps no locks.", alone
            try:
                fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            except OSError as error:
                return f"keeps no locks ({error.strerror}).", alone
            else:
                return "gives one lock to two processes.", other
            holder.kill()
            holder.wait(PATIENCE)
            try:
                fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return "keeps the lock of a process that is dead.", other
            return "", ""
    finally:
        holder.kill()
        holder.communicate(timeout=PATIENCE)


def mount_of(place: Path, table: Path = Path("/proc/mounts")) -> tuple[str, tuple[str, ...]]:
    """Return the kind of file system that holds a folder, and its mount's options; "" and ()."""
    best: tuple[int, str, tuple[str, ...]] = (-1, "", ())
    with contextlib.suppress(OSError):
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if len(words) < 4:
                continue
            point = Path(words[1].replace("\\040", " "))
            if place.resolve().is_relative_to(point) and len(point.parts) >= best[0]:
                best = (len(point.parts), words[2], tuple(words[3].split(",")))
    return best[1], best[2]
