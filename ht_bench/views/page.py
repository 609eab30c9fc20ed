"""The board as a static site: HTML, one style sheet, a little JavaScript, no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ht_bench.files import make_folder, write_atomically
from ht_bench.leaderboard.board import Board
from ht_bench.ranking.comparison import Table
from ht_bench.ranking.pairs import REFERENCES
from ht_bench.version import EPOCH
from ht_bench.views import page_content, text
from ht_bench.views.answers import IN_WORDS, Told, claim, effect, effects_by_task
from ht_bench.views.effort import effort, total

TEMPLATES = Path(__file__).with_name("templates")
ASSETS = ("style.css", "board.js")
PAGES = ("methods", "tasks")
MARK = "– ht-bench leaderboard</title>"
"""What base.html writes into every page: nothing else that stands in the folder is removed."""


def write_site(
    board: Board, out: Path, earlier: Sequence[Board] = (), told: Sequence[Told] = ()
) -> list[Path]:
    """Write index.html, methods/*.html, tasks/*.html and what they load; returns the pages.

    earlier: boards of earlier epochs, kept as sites of their own in folders of their epochs' names.
    told: the open questions, which stand on the newest board's first page.
    Pages of an earlier build are removed. Untrusted text is escaped wherever it stands, and
    a policy in each page lets nothing be loaded but the site's own style and script.
    """
    archive = [other.benchmark for other in earlier]
    written = _write(board, out, {"newest": "", "archive": archive, "told": told})
    for other in earlier:
        links = {"newest": board.benchmark, "archive": archive, "told": ()}
        written += _write(other, out / other.benchmark, links)
    return written


def _write(board: Board, out: Path, links: dict[str, Any]) -> list[Path]:
    """Write one board's site.

    links: what each page is told beside it: `newest`, the epoch of the board above ("": this is
    it), `archive`, those below, and `told`, the open questions.
    """
    make_folder(out)
    for name in PAGES:
        for file in (out / name).glob("*.html"):
            if MARK in file.read_text(encoding="utf-8", errors="replace")[:2000]:
                file.unlink()
    for name in ASSETS:
        write_atomically(out / name, (TEMPLATES / name).read_bytes())
    environment = _environment()
    environment.globals |= {"epoch": board.benchmark, **links}
    written = []
    for path, template, values in _pages(board):
        page = environment.get_template(template).render(values)
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(page, encoding="utf-8")
        written.append(out / path)
    return written


def _pages(board: Board) -> Iterator[tuple[str, str, dict[str, Any]]]:
    yield "index.html", "index.html", {"root": "", **page_content.index_view(board)}
    for entry in board.entries.values():
        view = page_content.method_view(board, entry)
        yield f"methods/{entry.name}.html", "method.html", {"root": "../", **view}
    for table in board.tasks:
        view = page_content.task_view(board, table)
        yield f"tasks/{table.name}.html", "task.html", {"root": "../", **view}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "value": lambda estimate, digits=2: text.number(estimate and estimate.value, digits),
        "interval": text.format_interval,
        "estimate": text.format_gap,
        "gap": text.gap_value,
        "metric": lambda number, table: text.number(number, table.rows[0].decimals),
        "times": text.times,
        "letters": text.letters,
        "share": text.percent,
        "effect": effect,
        "claim": claim,
        "in_words": IN_WORDS.get,
        "by_task": effects_by_task,
        "setting": setting,
        "kind": kind,
        "families": families,
        "effort": lambda table, board: effort(board, table),
        "total": total,
    }
    environment.globals |= {"present": EPOCH, "references": REFERENCES}
    return environment


def setting(value: Any) -> str:
    """Write a hyperparameter as JSON, a text as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def kind(table: Table, board: Board) -> str:
    """Return "agents" for tasks of environments, else "supervised"."""
    agents = all(board.known[task].is_control for task in table.tasks)
    return "agents" if agents else "supervised"


def families(table: Table, board: Board) -> str:
    """Return the families of a table's tasks, each a word."""
    return " ".join(sorted({board.known[task].task.family for task in table.tasks}))
