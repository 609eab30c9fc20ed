"""A comparison as text for a terminal, Markdown, JSON or CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ht_bench.ranking.comparison import Comparison, Table
from ht_bench.ranking.pairs import FULL_RESET, HARE_TORTOISE, NONE, REFERENCES
from ht_bench.ranking.rows import PROFILE_THRESHOLDS, Row
from ht_bench.ranking.score import Estimate
from ht_bench.streams.seeds import format_seeds

WIDTH = 100
NOTHING = "–"
SHORT = {NONE: NONE, FULL_RESET: "reset", HARE_TORTOISE: "H&T"}
LEGEND = (
    f"gap closed: 0 = as {NONE}, 1 = as {FULL_RESET}, no gap where that is not surely above; "
    "interquartile mean over the seeds of all tasks [95 % interval]. metric: mean over seeds [95 % "
    f"interval]. time: relative to {NONE} (*: which ran on another machine). rank: 1 + the entries "
    "surely better, by differences paired by seed, at 5 % for any error among all pairs (Holm). "
    "band: neighbours that share a letter cannot be told apart. div.: diverged runs, which count "
    "as guessing.",
)
DETAILS_LEGEND = (
    f"P: share of seeds on which the entry is better than {NONE}, {FULL_RESET} (reset), "
    f"{HARE_TORTOISE} (H&T), ties counting half. mean of tasks: of their gaps closed. errors "
    f"gone: the share of {NONE}'s, mean over tasks. area: mean accuracy (or return) over the last "
    f"phase. kept: on earlier phases at the end. memory: of the tensors held, "
    f"relative to {NONE}.",
)

Column = tuple[str, Callable[[Row], str]]


def to_text(comparison: Comparison, width: int = WIDTH, *, details: bool = False) -> str:
    """Return aligned tables for a terminal of `width` columns, every line fitting, but a long path.

    details: with the columns of a second table below the first.
    """
    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=width, color_system=None, markup=False, highlight=False,
        emoji=False, legacy_windows=False,
    )  # fmt: skip
    with console.capture() as capture:
        for table in comparison.tables:
            console.print(_title(table))
            for columns in (_columns(), _detail_columns())[: 1 + details]:
                console.print()
                console.print(_grid(table.rows, columns))
            console.print()
            for line in (_caption(table), *_remarks(table)):
                console.print(line)
            console.print()
        for line in (*comparison.notes, *_legend(details)):
            console.print(folded(line, width), soft_wrap=True)
    lines = capture.get().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def folded(line: str, width: int) -> str:
    """Return a note in lines of `width` columns; a path stays whole, to be copied."""
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def to_markdown(comparison: Comparison, *, details: bool = False) -> str:
    """Return one Markdown table per task and suite, with the legend at the end."""
    blocks = []
    for table in comparison.tables:
        columns = _filled((*_columns(), *(_detail_columns()[1:] if details else ())), table.rows)
        lines = [[name.replace("\n", " ") for name, _ in columns], ["---"] * len(columns)]
        lines += [[show(row) for _, show in columns] for row in table.rows]
        grid = "\n".join(f"| {' | '.join(map(_escape, cells))} |" for cells in lines)
        remarks = "\n".join(f"- {_escape(remark)}" for remark in _remarks(table))
        blocks.append("\n\n".join(filter(None, (
            f"### {_escape(_title(table))}", grid, _escape(_caption(table)), remarks
        ))))  # fmt: skip
    legend = "\n".join(f"- {_escape(line)}" for line in (*comparison.notes, *_legend(details)))
    return "\n\n".join((*blocks, legend)) + "\n"


def to_json(comparison: Comparison) -> str:
    """Return the whole comparison as JSON; null where a number is missing or not finite."""
    content = dataclasses.asdict(comparison) | {"profile_thresholds": PROFILE_THRESHOLDS}
    return json.dumps(finite(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def flat_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a dict per table and entry, its keys the columns of `to_csv`."""
    return [_flat(table, row) for table in comparison.tables for row in table.rows]


def to_csv(comparison: Comparison) -> str:
    """Return one line per table and entry; an interval's ends stand in columns _low and _high."""
    lines = flat_rows(comparison)
    target = io.StringIO()
    if lines:
        writer = csv.DictWriter(target, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return target.getvalue()


def number(value: float | None, digits: int = 2) -> str:
    """Write a number; a dash for one that is missing or undefined."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: never "-0.00"


def format_interval(estimate: Estimate | None, digits: int = 2) -> str:
    """Write "[0.52, 0.84]"; nothing where the data bound neither end."""
    if (
        estimate is None
        or math.isnan(estimate.value)
        or (math.isinf(estimate.low) and math.isinf(estimate.high))
    ):
        return ""
    return f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def format_estimate(estimate: Estimate | None, digits: int = 2) -> str:
    """Write "0.68 [0.52, 0.84]"."""
    value = number(estimate.value if estimate else None, digits)
    return f"{value} {format_interval(estimate, digits)}".rstrip()


def gap_value(estimate: Estimate | None) -> str:
    """Write a gap closed without its interval; "no gap" where there is none for sure to close."""
    return "no gap" if _is_no_gap(estimate) else _value(estimate, 2)


def format_gap(estimate: Estimate | None, decimals: int = 2) -> str:
    """Write "0.68 [0.52, 0.84]", or "no gap"."""
    return "no gap" if _is_no_gap(estimate) else format_estimate(estimate, decimals)


def _is_no_gap(estimate: Estimate | None) -> bool:
    return estimate is not None and math.isnan(estimate.value)


def percent(estimate: Estimate | None) -> str:
    """Write a share as "12 %"; a dash for none."""
    value = number(None if estimate is None else 100 * estimate.value, 0)
    return value if value == NOTHING else f"{value} %"


def letters(bands: Sequence[int]) -> str:
    """Write the bands 1, 2 as "ab", those beyond the alphabet by their numbers; a dash for none."""
    beyond = [f"({band})" for band in bands if band > 26]
    return "".join([*(chr(96 + band) for band in bands if band <= 26), *beyond]) or NOTHING


def times(ratio: float | None) -> str:
    """Write a ratio of costs."""
    return NOTHING if ratio is None else f"{ratio:.2f}×"


def _legend(details: bool) -> tuple[str, ...]:
    return (*LEGEND, *DETAILS_LEGEND) if details else LEGEND


def _columns() -> tuple[Column, ...]:
    return (
        ("rank", lambda row: NOTHING if row.rank is None else str(row.rank)),
        ("band", lambda row: letters(row.bands)),
        ("method", lambda row: row.label),
        ("n", lambda row: str(row.n)),
        ("gap closed", lambda row: format_gap(row.gap_closed)),
        ("metric", lambda row: format_estimate(row.metric, row.decimals)),
        ("time", lambda row: f"{times(row.wall_time)}{'*' if row.other_machine else ''}"),
        ("div.", lambda row: f"{row.diverged}" if row.diverged else NOTHING),
    )


def _detail_columns() -> tuple[Column, ...]:
    return (
        ("method", lambda row: row.label),
        *((f"P over\n{SHORT[name]}", _improvement(name)) for name in REFERENCES),
        ("mean of\ntasks", lambda row: gap_value(row.mean_of_tasks)),
        ("errors\ngone", lambda row: percent(row.error_reduction)),
        ("last\nphase", lambda row: number(row.last_phase_accuracy, row.decimals)),
        ("area", lambda row: number(row.area, row.decimals)),
        ("kept", lambda row: number(row.retention, row.decimals)),
        ("memory", lambda row: times(row.peak_memory)),
        ("extra\nparams", lambda row: f"{row.extra_parameters:,}"),
    )


def _improvement(name: str) -> Callable[[Row], str]:
    return lambda row: _value(row.improvement[name], 2)


def _value(estimate: Estimate | None, digits: int) -> str:
    return number(estimate.value if estimate else None, digits)


def _filled(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Leave out the columns that no row has anything in."""
    return [column for column in columns if any(column[1](row) != NOTHING for row in rows)]


def _grid(rows: Sequence[Row], columns: Sequence[Column]) -> Any:
    from rich import box
    from rich.table import Table as Grid

    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    shown = _filled(columns, rows)
    for name, _ in shown:
        if name == "method":  # the only column that may fold where the width runs out
            grid.add_column(name, overflow="fold")
        else:
            grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(*(show(row) for _, show in shown))
    return grid


def _title(table: Table) -> str:
    return f"{table.name} ({table.setting}, benchmark {table.benchmark})"


def _caption(table: Table) -> str:
    groups: dict[str, list[str]] = {}
    for task, seeds in table.seeds.items():
        groups.setdefault(f"n = {len(seeds)}, seeds {format_seeds(seeds)}", []).append(task)
    shown = [
        f"{text} ({', '.join(tasks)})" if table.is_suite else text for text, tasks in groups.items()
    ]
    parts = [f"{'; '.join(shown)}.", f"metric: {table.metric}."]
    if table.shares:
        brought = ", ".join(f"{task} {share:.0%}" for task, share in table.shares.items())
        parts.append(f"variance between entries: {brought}.")
    gap = table.admission
    if gap is not None:
        digits = max((row.decimals for row in table.rows), default=3)
        estimate = format_estimate(gap.gap, digits)
        parts.append(f"{FULL_RESET} over {NONE}: {estimate}, {gap.verdict}.")
    return " ".join(parts)


def _remarks(table: Table) -> Iterator[str]:
    for row in table.rows:
        if row.missing:
            yield f"{row.label} is incomplete and not ranked; missing: {', '.join(row.missing)}."
    yield from table.notes


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def finite(value: Any) -> Any:
    """Return nested dicts and lists with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(table: Table, row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {"table": table.name, **dataclasses.asdict(table.setting)}
    line |= {"benchmark": table.benchmark, "complete": row.complete}
    for key, value in vars(row).items():
        if key == "improvement":
            for name in REFERENCES:
                line |= _ends(f"improvement over {name}", value[name])
        elif key in ("gap_closed", "mean_of_tasks", "error_reduction", "metric"):
            line |= _ends(key, value)
        elif key == "bands":
            line["band"] = letters(value) if value else ""
        elif key not in ("profile", "by_task"):
            line[key] = "; ".join(value) if isinstance(value, tuple) else value
    return line


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    values = dataclasses.astuple(estimate) if estimate else (None, None, None)
    values = tuple(None if value is None or math.isnan(value) else value for value in values)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
