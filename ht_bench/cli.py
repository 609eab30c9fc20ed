"""ht-bench: the command line, whose commands are COMMANDS.

Exit codes: 0 done, 1 the answer is no, 2 wrong use or missing things, 130 interrupted by Ctrl-C,
143 by SIGTERM.
"""

from __future__ import annotations

import codecs
import functools
import inspect
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import tyro

from ht_bench.commands.check import check
from ht_bench.commands.compare import compare
from ht_bench.commands.data import data
from ht_bench.commands.diagnose import diagnose
from ht_bench.commands.doctor import doctor
from ht_bench.commands.explain import explain
from ht_bench.commands.freeze import freeze
from ht_bench.commands.listing import list_things
from ht_bench.commands.measure import measure
from ht_bench.commands.page import page
from ht_bench.commands.questions import questions
from ht_bench.commands.run import run
from ht_bench.commands.submit import submit
from ht_bench.commands.tensorboard import tensorboard
from ht_bench.commands.tune import tune
from ht_bench.commands.verify import verify
from ht_bench.errors import UsageError, warn_in_sentences
from ht_bench.loading import import_sources
from ht_bench.version import VERSION

COMMANDS: dict[str, Callable[..., int]] = {
    "list": list_things,
    "check": check,
    "run": run,
    "compare": compare,
    "explain": explain,
    "tensorboard": tensorboard,
    "submit": submit,
    "verify": verify,
    "page": page,
    "questions": questions,
    "data": data,
    "tune": tune,
    "freeze": freeze,
    "diagnose": diagnose,
    "measure": measure,
    "doctor": doctor,
}
DESCRIPTION = (
    f"ht-bench {VERSION}: does a network that has already been trained still learn as well as a "
    "fresh one? Start with `ht-bench run --task warm-start-digits-v1 --method "
    "none,full-reset,hare-tortoise` and then `ht-bench compare runs`."
)


IMPORT = inspect.Parameter(
    "sources",
    inspect.Parameter.KEYWORD_ONLY,
    default="",
    annotation=Annotated[
        str,
        tyro.conf.arg(
            name="import",
            metavar="FILE[,FILE]",
            help="Python files or modules to import first: what their decorators register is "
            "then known by name, here and in worker processes.",
        ),
    ],
)
"""The option of every command."""


def _with_import(command: Callable[..., int]) -> Callable[..., int]:
    """Return a command that also takes `--import`, and imports before it does anything."""
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(*arguments: object, sources: str = "", **options: object) -> int:
        import_sources(word.strip() for word in sources.split(",") if word.strip())
        return command(*arguments, **options)

    parameters = [*own.parameters.values(), IMPORT]
    del vars(run)["__wrapped__"]  # or tyro would read the command's own annotations
    vars(run)["__signature__"] = own.replace(parameters=parameters)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _import_last(given: Sequence[str]) -> list[str]:
    """Return the words with a leading `--import FILES` after the command, where it is read."""
    if given[:1] == ["--import"]:
        return [*given[2:3], *given[:2], *given[3:]]
    leads = given[:1] and given[0].startswith("--import=")
    return [*given[1:2], given[0], *given[2:]] if leads else list(given)


PLAIN = {"│": "|", "×": "x", "–": "-", "−": "-", "±": "+-", "…": "...", "∞": "inf", "→": "->"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Stand in for what is not ASCII: "-" for lines, else PLAIN or "?"."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    lines = range(0x2500, 0x2580)
    shown = (PLAIN.get(c) or ("-" if ord(c) in lines else "?") for c in text)
    return "".join(shown), error.end


codecs.register_error("ht-bench-plain", _plain)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. A mistake of the user's is one sentence."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(encoding="ascii", errors="ht-bench-plain")
    if arguments is None:  # this process is the command's
        warn_in_sentences()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["--version"], ["version"]):
        print(f"ht-bench {VERSION}")
        return 0
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            {name: _with_import(command) for name, command in COMMANDS.items()},
            prog="ht-bench",
            description=DESCRIPTION,
            args=_import_last(given) or ["--help"],
            config=(tyro.conf.OmitArgPrefixes,),
        )
        return int(code)
    except UsageError as error:
        print(f"ht-bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:  # one that was asked for says how to go on
        sentence = str(error) or "interrupted; the same command goes on."
        print(f"ht-bench: {sentence}", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
