"""What a user's mistake raises, and the words "Did you mean …?" for every unknown name."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """A mistake the user can fix: its text is one sentence that names the thing and the next step.

    The command line prints the sentence without a traceback and exits with 2.
    """


class Unsuitable(UsageError):
    """A method and a task that cannot go together, each fine by itself."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name nearest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def reason(error: BaseException) -> str:
    """Return an error's own words on one short line; those of its cause where it has one.

    What does not print, quoted from a file, is escaped.
    """
    words = " ".join(str(error.__cause__ or error)[:1_000].split()) or type(error).__name__
    words = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    return (words if len(words) <= 200 else words[:200] + " …").rstrip(".")


def shown(value: object) -> str:
    """Return a value as Python writes it, cut where it is long, for a sentence."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, lists within lists
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= 120 else f"{text[:100]} … ({len(text):,} characters)"


def warn_in_sentences() -> None:
    """Let this process print a warning meant for a user as a sentence, without file and line."""
    stock = warnings.formatwarning

    def written(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if issubclass(category, UserWarning):
            return f"Warning: {message}\n"
        return stock(message, category, filename, lineno, line)

    warnings.formatwarning = written


@contextmanager
def telling(what: str, then: str = "") -> Iterator[None]:
    """Turn whatever another's code raises inside into a UsageError: `what`: the error`then`."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # whatever another's code does
        raise UsageError(f"{what}: {type(error).__name__}: {reason(error)}{then}.") from error
