"""Rewrite the README's tables and pictures from runs: `python docs/tables.py` after `make demo`.

Each marked block of the README is replaced by what the command in it prints.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

from ht_bench.cli import main
from ht_bench.streams.suite import get_suite, suite_files

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FIGURES = Path("docs/figures")


def printed(*arguments: str) -> str:
    """Return what a command prints, up to the legend and the tables after the first."""
    caught = io.StringIO()
    with contextlib.redirect_stdout(caught):
        code = main(list(arguments))
    if code:
        sys.exit(code)
    return caught.getvalue()


def first_table(text: str) -> str:
    """Return the first table's two parts and its caption, without what follows."""
    lines = text.splitlines()
    ends = [i for i, line in enumerate(lines) if line.startswith("n = ")]
    stop = next(i for i in range(ends[0], len(lines)) if not lines[i])
    return "\n".join(lines[:stop])


def shown(run: str, compare: str) -> str:
    """Return a block: the commands and the table that the second one prints."""
    table = first_table(printed(*compare.split()[1:]))
    return f"```\n{run}\n{compare}\n```\n\n```\n{table}\n```"


def replaced(text: str, name: str, content: str) -> str:
    """Put `content` between the marks of block `name`."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)


def suites() -> str:
    """Return the rows of the table of suites."""
    rows = []
    for name in suite_files():
        suite = get_suite(name)
        tasks = ", ".join(f"`{task}`" for task in suite.tasks)
        rows.append(f"| `{name}` | {tasks} | {suite.title} |")
    return "\n".join(rows)


def rewrite() -> None:
    """Rewrite README.md and docs/figures from runs/demo, runs/cifar and runs/control."""
    text = README.read_text(encoding="utf-8")
    run = "ht-bench run --suite suite-core-v1 --method all --out runs/demo"
    compare = "ht-bench compare runs/demo --figures docs/figures"
    text = replaced(text, "demo table", shown(run, compare))
    methods = "none,full-reset,shrink-perturb,l2-init,ema,hare-tortoise"
    run = f"ht-bench run --task warm-start-cifar10-small-v1 --method {methods} --out runs/cifar"
    compare = "ht-bench compare runs/cifar --figures docs/figures"
    text = replaced(text, "cifar table", shown(run, compare))
    methods = "none,full-reset,hare-tortoise,shrink-perturb,head-reset,l2-init"
    run = f"ht-bench run --suite suite-control-v1 --method {methods} --out runs/control"
    compare = "ht-bench compare runs/control --suite suite-control-v1 --figures docs/figures"
    text = replaced(text, "control table", shown(run, compare))
    README.write_text(replaced(text, "suites", suites()), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
