"""Rewrite the tables and figures of README.md and docs/ from runs: `python docs/tables.py`.

Each marked block whose runs are there is replaced by what the commands in it print; the picture of
all suites is drawn from the board's entries, as `ht-bench compare leaderboard --figures` draws it.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ht_bench.cli import main
from ht_bench.leaderboard.compared import compare_entries, submissions_in
from ht_bench.streams.suite import get_suite, suite_files
from ht_bench.views.rankings import suites_figure

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs/figures"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def printed(*arguments: str) -> str:
    """Return what a command prints."""
    caught = io.StringIO()
    with contextlib.redirect_stdout(caught):
        code = main(list(arguments))
    if code:
        sys.exit(code)
    return caught.getvalue()


def first_table(text: str) -> str:
    """Return the first table with its caption, and the legend, without the tables between."""
    parts = text.strip("\n").split("\n\n")
    caption = next(index for index, part in enumerate(parts) if part.startswith("n = "))
    first = "\n\n".join(parts[: caption + 1])
    if LEGEND in first:
        return first
    return f"{first}\n\n{LEGEND}{parts[-1].partition(LEGEND)[2]}"


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


def _mean(row: dict[str, Any]) -> str:
    return "{value:.0f} [{low:.0f}, {high:.0f}]".format(**row["metric"])


def drifts(run: str, compare: str) -> str:
    """Return a block: the commands and, per drift task, every method's mean return."""
    tables = json.loads(printed(*compare.split()[1:], "--format", "json"))["tables"]
    tasks = {t["name"]: {row["method"]: row for row in t["rows"]} for t in tables}
    methods = list(dict.fromkeys(method for rows in tasks.values() for method in rows))
    lines = ["| task | n | " + " | ".join(f"`{method}`" for method in methods) + " |"]
    lines.append("|---" * (len(methods) + 2) + "|")
    for task, rows in tasks.items():
        returns = [_mean(rows[method]) if method in rows else "–" for method in methods]
        count = min(row["n"] for row in rows.values())
        lines.append(f"| `{task}` | {count} | {' | '.join(returns)} |")
    return f"```\n{run}\n{compare}\n```\n\n" + "\n".join(lines)


def rewrite() -> None:
    """Rewrite the marked blocks of every page, and docs/figures, from the runs that are there."""
    blocks = {"suites": suites()}
    for name, (run, compare, show) in BLOCKS.items():
        if Path(compare.split()[2]).is_dir():
            blocks[name] = show(run, compare)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name, content in blocks.items():
            text = replaced(text, name, content)
        page.write_text(text, encoding="utf-8")
    submissions = submissions_in(ROOT / "leaderboard")
    tables = compare_entries(submissions, "")[0].tables
    suites_figure([table for table in tables if table.is_suite], FIGURES / "ranking-suites")


AGENTS = "none,full-reset,hare-tortoise,ema,head-reset,shrink-perturb,l2,l2-init"
TWELVE = f"{AGENTS},self-distillation,early-stop,layer-norm,crelu"
"""The methods of the first board, and those of them that agents can have."""
LEGEND = "gap closed: "
"""How the legend of `ht-bench compare` begins."""
BLOCKS: dict[str, tuple[str, str, Callable[[str, str], str]]] = {
    "first table": (
        "ht-bench run --task warm-start-digits-v1 --method none,full-reset,hare-tortoise "
        "--out runs/first",
        "ht-bench compare runs/first",
        shown,
    ),
    "demo table": (
        f"ht-bench run --suite suite-core-v1 --method {TWELVE} --out runs/demo",
        "ht-bench compare runs/demo --figures docs/figures",
        shown,
    ),
    "noisy table": (
        "ht-bench run --suite suite-noisy-start-v1 --method all --out runs/reference",
        "ht-bench compare leaderboard --suite suite-noisy-start-v1",
        shown,
    ),
    "clean table": (
        "ht-bench run --suite suite-clean-start-v1 --method all --out runs/reference",
        "ht-bench compare leaderboard --suite suite-clean-start-v1",
        shown,
    ),
    "shift table": (
        "ht-bench run --suite suite-shift-v1 --method all --out runs/reference --for 12m",
        "ht-bench compare leaderboard --suite suite-shift-v1",
        shown,
    ),
    "images table": (
        "ht-bench run --suite suite-images-small-v1 --method all --out runs/reference --for 12m",
        "ht-bench compare leaderboard --suite suite-images-small-v1",
        shown,
    ),
    "trainability table": (
        "ht-bench run --suite suite-trainability-v2 --method all --out runs/reference --for 12m",
        "ht-bench compare leaderboard --suite suite-trainability-v2",
        shown,
    ),
    "agents table": (
        "ht-bench run --suite suite-control-v2 --method all --out runs/reference --for 12m",
        "ht-bench compare leaderboard --suite suite-control-v2",
        shown,
    ),
    "cifar table": (
        "ht-bench run --task warm-start-cifar10-small-v1 "
        "--method none,full-reset,shrink-perturb,l2-init,ema,hare-tortoise --out runs/cifar",
        "ht-bench compare runs/cifar --figures docs/figures",
        shown,
    ),
    "control table": (
        f"ht-bench run --suite suite-control-v1 --method {AGENTS} --out runs/control",
        "ht-bench compare leaderboard/submissions/0.1 --suite suite-control-v1",
        shown,
    ),
    "drift table": (
        "ht-bench run --task drift-cartpole-ppo-v1,drift-acrobot-qrdqn-v1,drift-pendulum-sac-v1 "
        "--method none,full-reset,hare-tortoise --out runs/drift",
        "ht-bench compare runs/drift",
        drifts,
    ),
}
"""Marked blocks: the commands beside a table, and what shows it."""


if __name__ == "__main__":
    rewrite()
