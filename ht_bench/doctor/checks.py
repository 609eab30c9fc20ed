"""The checks in their order, and how they are gone through: one that fails hinders no other."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ht_bench.doctor.finding import Finding, fault, note
from ht_bench.errors import reason

Look = Callable[[Path], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """What is looked at, in a word or two, and the function that looks.

    look: "module:function" of this folder, imported when its turn comes; it is given the runs
    folder and yields its findings. slow: left out by `--quick`. torch: whether it needs torch.
    """

    about: str
    look: str
    slow: bool = False
    torch: bool = False


CHECKS = (
    Check("Python", "software:python"),
    Check("package", "software:package"),
    Check("needed", "software:dependencies"),
    Check("torch", "software:torch_build", torch=True),
    Check("processor", "machine:processors", torch=True),
    Check("memory", "machine:memory"),
    Check("GPU", "machine:gpus", torch=True),
    Check("limits", "machine:limits"),
    Check("variables", "extras:environment"),
    Check("extras", "extras:extras_there"),
    Check("imports", "extras:extras_work", slow=True),
    Check("clusters", "extras:clusters"),
    Check("plug-ins", "extras:plug_ins", torch=True),
    Check("writing", "storage:writing"),
    Check("space", "storage:space"),
    Check("locks", "storage:locks"),
    Check("data", "datasets:datasets"),
    Check("data hashes", "datasets:contents", slow=True),
    Check("runs", "leftovers:runs"),
    Check("precision", "arithmetic:precision", slow=True, torch=True),
    Check("repetition", "arithmetic:repeats", slow=True, torch=True),
    Check("golden curves", "arithmetic:curves", slow=True, torch=True),
)
"""All of them. A new one is a function of this folder and a line here."""


@dataclass(frozen=True)
class Examined:
    """What a check has found."""

    about: str
    findings: tuple[Finding, ...]


def examine(
    out: Path,
    quick: bool = False,
    checks: Sequence[Check] | None = None,
    begin: Callable[[Check], None] = lambda check: None,
) -> Iterator[Examined]:
    """Go through the checks and yield what each has found.

    out: the runs folder to look at. quick: without the slow ones. checks: these instead of CHECKS.
    begin: told of each check before its turn.
    """
    for check in CHECKS if checks is None else checks:
        if not (quick and check.slow):
            begin(check)
            yield Examined(check.about, tuple(_looked(check, out)))


def _looked(check: Check, out: Path) -> Iterator[Finding]:
    try:
        if check.torch and (lacking := _torch_error()):
            yield _without_torch(check, lacking)
            return
        yield from _function(check.look)(out)
    except (Exception, SystemExit) as error:  # whatever a broken machine, or a plug-in, does
        yield fault(
            f"This check failed: {type(error).__name__}: {reason(error)}.",
            "look at what it names; if that is sound, report it with what `ht-bench doctor` says",
        )


def _torch_error() -> str:
    try:
        importlib.import_module("torch")
    except Exception as error:  # a library of it that is missing, a NumPy of another kind
        return f"{type(error).__name__}: {reason(error)}"
    return ""


def _without_torch(check: Check, why: str) -> Finding:
    if check.about == "torch":
        return fault(
            f"torch cannot be imported: {why}.", "python -m pip install --force-reinstall torch"
        )
    return note("Not looked at, since torch cannot be imported.")


def _function(place: str) -> Look:
    module, _, name = place.partition(":")
    look: Look = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    return look
