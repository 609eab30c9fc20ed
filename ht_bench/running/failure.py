"""Why a stack failed: one sentence, and the chain of what was raised, also out of a worker."""

from __future__ import annotations

import errno
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch

from ht_bench.errors import UsageError
from ht_bench.local_code import PACKAGE, is_installed
from ht_bench.running.job import StackJob
from ht_bench.streams.seeds import format_seeds

FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}


class Failure(str):
    """A sentence about a stack that was not trained; cause: what was raised, if anything was."""

    cause: BaseException | None

    def __new__(cls, sentence: str, cause: BaseException | None = None) -> Self:
        """Return the sentence, which knows its cause."""
        made = super().__new__(cls, sentence)
        made.cause = cause
        return made

    def __reduce__(self) -> tuple[object, tuple[str, list[Any]]]:
        """Pickle the chain of causes link by link: exceptions lose theirs, and their frames."""
        return _from_worker, (str(self), [_packed(error) for error in chain(self.cause)])


class Death(Failure):
    """The sentence about a stack whose worker died."""

    @classmethod
    def of(cls, job: StackJob, worker: str = "worker process") -> Self:
        """Return it; worker: what died."""
        return cls(
            f"The {worker} that trained '{job.method.name}' on {job.task.name}, seeds "
            f"{format_seeds(job.seeds)}, died, often a sign that memory ran out; run the same "
            "command again to go on, with fewer --jobs if it happens again."
        )


def failure(job: StackJob, error: BaseException) -> Failure:
    """Return one sentence: what failed, where in whose file, and what to do."""
    if isinstance(error, UsageError):
        return Failure(str(error), error.__cause__)
    if isinstance(error, OSError) and error.errno in FULL:
        return Failure(
            f"The disk is full ({error.filename or job.out}); free some space and run the same "
            "command again: what was finished is kept.",
            error,
        )
    if is_out_of_memory(error):
        return Failure(
            f"{job.task.name} with method '{job.method.name}' needs more memory than this machine "
            f"gives ({str(error)[:200]}); fewer --jobs leave more to each, and a smaller [net], "
            "batch or stack needs less.",
            error,
        )
    return Failure(
        f"Method '{job.method.name}' failed on {job.task.name} with {in_words(error)}; fix it and "
        "run the same command again: finished runs are kept.",
        error,
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or, of which torch makes a RuntimeError, on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def in_words(error: BaseException) -> str:
    """Write an exception, its place in the user's files, and what caused it."""
    links = [f"{type(link).__name__}: {link} ({_place(link)})" for link in chain(error)]
    return ", caused by ".join(links)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes, as a traceback shows them."""
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _place(error: BaseException) -> str:
    """Return the innermost line that is of no library; or the innermost line of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_users(Path(frame.filename))]
    if not frames:
        return "unknown place"
    frame = (own or list(frames))[-1]
    return f"{frame.filename}, line {frame.lineno}"


def _is_users(file: Path) -> bool:
    return file.is_file() and not file.is_relative_to(PACKAGE) and not is_installed(file)


def _packed(error: BaseException) -> tuple[bytes, str, str]:
    """Return an exception as pickle, as text, and its frames as text."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    try:
        content = pickle.dumps(error)
    except Exception:  # a user's class of exceptions may do anything
        content = b""
    return content, f"{type(error).__name__}: {error}", f"In the worker process:\n{frames}".rstrip()


def _from_worker(sentence: str, packed: list[tuple[bytes, str, str]]) -> Failure:
    links: list[BaseException] = []
    for content, text, note in packed:
        try:
            error = pickle.loads(content)
            error.add_note(note)
        except Exception:  # it could not be pickled, or not be made again from its arguments
            error = RuntimeError(text)
            error.add_note(note)
        if links:
            links[-1].__cause__ = error
        links.append(error)
    return Failure(sentence, links[0] if links else None)
