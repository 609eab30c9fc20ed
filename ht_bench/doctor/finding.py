"""What a check has found: a state, a sentence, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "warning", "fault"]
STATES: tuple[State, ...] = ("ok", "note", "warning", "fault")


@dataclass(frozen=True)
class Finding:
    """One thing that a check has looked at.

    state: "ok"; "note", worth knowing and nothing wrong; "warning", something will be slower, or
    fail under some use; "fault", runs fail or their numbers are not the published ones. sentence:
    what is so. remedy: a command, or a step in words; "" where there is nothing to do.
    """

    state: State
    sentence: str
    remedy: str = ""


def ok(sentence: str) -> Finding:
    """Return that all is well."""
    return Finding("ok", sentence)


def note(sentence: str, remedy: str = "") -> Finding:
    """Return what is worth knowing."""
    return Finding("note", sentence, remedy)


def warning(sentence: str, remedy: str = "") -> Finding:
    """Return what may do harm."""
    return Finding("warning", sentence, remedy)


def fault(sentence: str, remedy: str = "") -> Finding:
    """Return what does harm."""
    return Finding("fault", sentence, remedy)
