"""The one exception a user's mistake raises."""

from __future__ import annotations


class UsageError(ValueError):
    """A mistake the user can mend: its text is one sentence that names the thing and the next step.

    The command line prints the sentence without a traceback and exits with 2.
    """


class Unsuitable(UsageError):
    """A method and a task that cannot go together, each fine by itself."""
