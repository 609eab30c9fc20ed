"""Write the tables of docs/scaling.md: `python docs/scaling.py [--gpu-price 3] [--csv FILE]`.

What every task takes with every method on 20 seeds, from `benchmarks/estimate.py`; `--csv` writes
every cell, `--print` writes no page.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.estimate import (  # noqa: E402
    RULES,
    SEEDS,
    SPEEDS,
    Prices,
    Run,
    cells,
    relative_costs,
    runs,
    submissions,
)
from benchmarks.growth import STEPS, Cost, exponents  # noqa: E402

PAGE = ROOT / "docs" / "scaling.md"


def estimates(made: Sequence[Run], prices: Prices) -> str:
    """Return the table of tasks; the Atari games, alike in all of it, are one line."""
    lines = [
        f"| task | one run of `none` | by | `none`, {SEEDS} seeds | methods | all of them, {SEEDS} "
        "seeds | money | disk |",
        "|---|---|---|---|---|---|---|---|",
    ]
    every = list(cells(made, prices))
    for name, group in _rows(made):
        own = [cell for cell in every if cell["task"] in {run.task.name for run in group}]
        hours, run = sum(cell["hours"] for cell in own), group[0]
        none = SEEDS * sum(run.hours for run in group)
        row = (
            f"{name}{' (draft)' if run.task.status == 'draft' else ''}",
            _time(run.hours),
            run.rule,
            f"{_number(none)} {run.device}-h",
            str(len(own) // len(group)),
            f"{_number(hours)} {run.device}-h",
            f"{_number(sum(cell['money'] for cell in own))} {SPEEDS['price']['currency']}",
            _size(sum(cell["bytes"] for cell in own)),
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", totals(every)])


def totals(every: Sequence[Mapping[str, Any]]) -> str:
    """Return what all cells take together, in a sentence."""
    hours = {d: sum(c["hours"] for c in every if c["device"] == d) for d in ("GPU", "core")}
    money = sum(cell["money"] for cell in every)
    size = _size(sum(cell["bytes"] for cell in every))
    return (
        f"All {len(every):,} cells, {SEEDS * len(every):,} runs: {_number(hours['GPU'])} GPU-hours "
        f"and {_number(hours['core'])} core-hours, {_number(money)} "
        f"{SPEEDS['price']['currency']}, {size}."
    )


def _rows(made: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    games = [run for run in made if run.task.name.startswith("atari-100k-")]
    for run in made:
        if run not in games:
            yield f"`{run.task.name}`", [run]
        elif run is games[0]:
            yield f"`atari-100k-…`, {len(games)} games together, a run of one", games


def rules(prices: Prices) -> str:
    """Return what the letters stand for, the speeds and the prices."""
    lines = [f"- **{letter}**: {words}." for letter, words in RULES.items()]
    machines = sorted(
        {str(t["hardware"]["processor"]) for t in submissions()["none"]["tasks"].values()}
    )
    lines.append(f"- measured on {', '.join(machines)}, one thread, torch's CPU build.")
    for kind, unit in (("step", "ms"), ("agent", "rate")):
        for name, speed in SPEEDS[kind].items():
            value = f"{speed[unit]} {'ms a step' if unit == 'ms' else 'steps/s'}"
            lines.append(f"- {name}: {value} ({speed['where']}).")
    lines.append(
        f"- prices are assumptions: {prices.gpu:g} {SPEEDS['price']['currency']} for a GPU-hour, "
        f"{prices.core:g} for a core-hour (`--gpu-price`, `--core-price`)."
    )
    return "\n".join(lines)


def methods_table() -> str:
    """Return every method's relative cost and where it comes from."""
    words = {
        "step": "measured: a step, `python -m benchmarks.methods`",
        "runs": "measured: whole runs of the digits tasks, leaderboard/submissions",
        "": "**not measured**: counted as 1",
    }
    lines = ["| method | relative to `none` | by |", "|---|---|---|"]
    for name, (ratio, basis) in relative_costs().items():
        lines.append(f"| `{name}` | {ratio:.2f} | {words[basis]} |")
    return "\n".join(lines)


def growth(folder: Path = ROOT / "benchmarks" / "results") -> str:
    """Return what `benchmarks.growth` and `growth_runs` measured last; says where they did not."""
    parts = []
    for name, table in (("growth", _sizes), ("growth_runs", _soaks)):
        path = folder / f"{name}-cpu.json"
        if not path.is_file():
            parts.append(f"Not measured yet: `python -m benchmarks.{name}`.")
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        machine = result["machine"]
        parts.append(table(result))
        parts.append(
            f"{result['date']}, {machine['processor']}, {machine['cores']} cores, load "
            f"{machine['load']}; torch {machine['torch']}, Python {machine['python']}."
        )
    return "\n\n".join(parts)


def _sizes(result: Mapping[str, Any]) -> str:
    costs = [Cost(**cost) for cost in result["growth"]]
    sizes = sorted({cost.runs for cost in costs})
    lines = [f"| | {' | '.join(f'{size:,} results' for size in sizes)} | exponents |"]
    lines.append("|---" * (len(sizes) + 2) + "|")
    for step in STEPS:
        own = sorted((cost for cost in costs if cost.step == step.name), key=lambda c: c.runs)
        seen = [f"{cost.seconds:.2f} s, {cost.peak:.0f} MiB" for cost in own]
        powers = ", ".join(f"{power:.2f}" for power in exponents(costs, step.name))
        lines.append(f"| `{step.name}` | {' | '.join(seen)} | {powers} |")
    words = "Seconds of the processor and the most memory, the libraries' 250 MiB included."
    return "\n".join([*lines, "", words])


def _soaks(result: Mapping[str, Any]) -> str:
    rows = {row["claim"]: row for row in result["rows"]}
    lines = [
        "| | a run in all | memory of the runner | its open files | workers |",
        "|---" * 5 + "|",
    ]
    for each in result["soaks"]:
        jobs = each["jobs"]
        memory, files = rows[f"runner-memory-{jobs}"], rows[f"runner-files-{jobs}"]
        workers = "–"
        if jobs > 1:
            both = rows[f"workers-memory-{jobs}"], rows[f"workers-files-{jobs}"]
            workers = f"{both[0]['own']:+.1f} MiB, {both[1]['own']:+.0f} files"
        lines.append(
            f"| {each['runs']:,} runs, `--jobs {jobs}` | "
            f"{rows[f'run-processor-{jobs}']['own']:.0f} ms of the processor | "
            f"{memory['own']:+.1f} MiB ({memory['note']}) | {files['own']:+.0f} | {workers} |"
        )
    return "\n".join(lines)


def _time(hours: float) -> str:
    return f"{_number(3600 * hours)} s" if hours < 1 / 6 else f"{_number(hours)} h"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _size(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def page(text: str, made: Sequence[Run], prices: Prices) -> str:
    """Return the page with its tables made anew."""
    parts = {
        "estimates": estimates(made, prices),
        "rules": rules(prices),
        "methods": methods_table(),
        "growth": growth(),
    }
    for name, content in parts.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, rest = text.split(begin, 1)
        text = before + begin + content + end + rest.split(end, 1)[1]
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or print the tables at other prices."""
    price = SPEEDS["price"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpu-price", type=float, default=price["gpu_hour"])
    parser.add_argument("--core-price", type=float, default=price["core_hour"])
    parser.add_argument("--csv", type=Path, help="also write every task × method")
    parser.add_argument("--print", action="store_true", help="write no page, print the table")
    given = parser.parse_args(arguments)
    prices, made = Prices(given.gpu_price, given.core_price), runs()
    if given.csv:
        with given.csv.open("w", encoding="utf-8", newline="") as file:
            rows = list(cells(made, prices))
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    if given.print:
        print(estimates(made, prices))
        return 0
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), made, prices), encoding="utf-8")
    print(f"Wrote {PAGE}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
