"""Where the data folders are: in the wheel's `_data/`, or beside the package in a checkout.

Decided once, here. Everything else asks `folder("tasks")` or `folder("baselines")`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ht_bench.errors import UsageError, reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LARGEST_GLANCE = 2**22
"""Characters that `glance` reads at most."""
LARGEST_JSON = 2**28
"""Bytes of a JSON file of one's own at most: many times as many stand in memory."""
_PACKAGE = Path(__file__).resolve().parent


@functools.cache
def folder(name: str) -> Path:
    """Return the folder of shipped data called `name` ("tasks" or "baselines").

    Raises UsageError if the installation has lost it.
    """
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise UsageError(
        f"The data folder '{name}' is missing beside {_PACKAGE}; install ht-bench again."
    )


def is_shipped(path: Path) -> bool:
    """Whether a path lies in an installed package, where no command writes."""
    place = path.expanduser().resolve()
    in_wheel = place.is_relative_to(_PACKAGE)
    return in_wheel or not {"site-packages", "dist-packages"}.isdisjoint(place.parts)


def glance(path: Path, key: str) -> str:
    """Return the text that a TOML file gives `key` in a line of its own; "" where there is none.

    A look that costs no parse and never fails: reading the file tells what is wrong with it.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            return ""
        with path.open(encoding="utf-8", errors="replace") as handle:
            text = handle.read(LARGEST_GLANCE)
    except OSError:
        return ""
    match = re.search(rf"""^{key}\s*=\s*["']([^"']*)["']""", text, re.MULTILINE)
    return match[1] if match else ""


def read_json(path: Path, cure: str) -> Any:
    """Return a file's JSON; raises UsageError, which ends with `cure`, where it has none."""
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > LARGEST_JSON):
            raise UsageError(f"{path} is no file of at most {LARGEST_JSON:,} bytes; {cure}.")
        text = path.read_text(encoding="utf-8-sig")  # editors may add a mark
        return json.loads(text, parse_constant=_no_number)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"Could not read {path}: {error.strerror or error}; {cure}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON ({reason(error)}); {cure}.") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader sees the old file or the whole new one.

    Raises UsageError, leaving `path` as it was, when the disk is full or the folder cannot be
    written.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_file(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file to write, which takes the name `path` once it is whole.

    It is a temporary file in the same folder, reaches the disk (fsync), and takes the name by one
    rename. keep: the name that the old file takes right before, so that for an instant `path` is
    missing. Raises UsageError for an OSError, leaving `path` as it was.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o644)
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UsageError(
            f"Could not write {path}: {error.strerror or error}; free some space or name a folder "
            "you can write to, then start again: what was finished is kept."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the lock of a file that several processes change, waiting for whoever holds it.

    The lock is a file of its own beside it, `.NAME.lock`, and stays. Where the file system or the
    platform keeps no locks there is none.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"Could not write {path}: {error.strerror or error}.") from error
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Delete what a process killed inside `write_atomically(path)` left; none may be at it."""
    for file in path.parent.glob(f".{path.name}.*"):
        file.unlink(missing_ok=True)


def make_folder(path: Path) -> Path:
    """Create `path` with its parents and return it; raises UsageError if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path, prefix=".probe."):  # nameless: a kill leaves nothing
            pass
    except OSError as error:
        raise UsageError(
            f"The folder {path} cannot be written ({error.strerror or error}); name another."
        ) from error
    return path
