"""The board as a static site: HTML, one style sheet, a little JavaScript, no network."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from ht_bench.files import make_folder, write_atomically
from ht_bench.leaderboard.board import Board
from ht_bench.leaderboard.ranker import Table
from ht_bench.ranking.rows import REFERENCES
from ht_bench.ranking.score import DRAWS, Estimate
from ht_bench.version import EPOCH
from ht_bench.views import page_content

TEMPLATES = Path(__file__).with_name("templates")
ASSETS = ("style.css", "board.js")
PAGES = ("methods", "tasks")


def write_site(board: Board, out: Path) -> list[Path]:
    """Write index.html, methods/*.html, tasks/*.html and what they load; returns the pages.

    Pages of an earlier build are removed. A stranger's text is escaped wherever it stands, and
    a policy in each page lets nothing be loaded but the site's own style and script.
    """
    make_folder(out)
    for name in PAGES:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ASSETS:
        write_atomically(out / name, (TEMPLATES / name).read_bytes())
    environment = _environment()
    written = []
    for path, template, values in _pages(board):
        text = environment.get_template(template).render(values)
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text, encoding="utf-8")
        written.append(out / path)
    return written


def _pages(board: Board) -> Iterator[tuple[str, str, dict[str, Any]]]:
    yield "index.html", "index.html", {"root": "", **page_content.index_view(board)}
    for entry in board.entries:
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
        "value": value,
        "interval": interval,
        "metric": metric,
        "times": times,
        "setting": setting,
        "kind": lambda table: page_content.kind_of(table.tasks),
        "families": lambda table: " ".join(sorted({k.task.family for k in table.tasks})),
    }
    environment.globals |= {"epoch": EPOCH, "draws": DRAWS, "references": REFERENCES}
    return environment


def value(estimate: Estimate | None) -> str:
    """Write an estimate's number."""
    return "–" if estimate is None else _number(estimate.value, 2)


def interval(estimate: Estimate | None) -> str:
    """Write an estimate's interval; nothing where the data bound neither end."""
    if estimate is None or (math.isinf(estimate.low) and math.isinf(estimate.high)):
        return ""
    return f"[{_number(estimate.low, 2)}, {_number(estimate.high, 2)}]"


def metric(number: float | None, table: Table) -> str:
    """Write an accuracy with three decimals, a return with one."""
    return "–" if number is None else _number(number, page_content.decimals(table.tasks))


def times(ratio: float | None) -> str:
    """Write a ratio of costs."""
    return "–" if ratio is None else f"{ratio:.2f}×"


def setting(value: Any) -> str:
    """Write a hyperparameter as JSON, a text as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(number: float, digits: int) -> str:
    if math.isnan(number):
        return "–"
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    return f"{number + 0.0:.{digits}f}".replace("-0.00", "0.00") if number else f"{0:.{digits}f}"
