"""ht-bench explain: which diagnostics go with the accuracy reached after a boundary."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ht_bench.files import make_folder


def explain(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    task: str = "",
    target: Literal["end", "mean"] = "end",
    format: Literal["table", "json", "csv"] = "table",
    figures: Path | None = None,
) -> int:
    """Correlate what was measured at each phase's end with the accuracy reached in the next phase.

    Example: ht-bench explain runs --figures figures.

    Over all methods, seeds and boundaries of each task, with intervals; beside it between runs of
    one boundary, and of one boundary and method. Curvature and the trainability probe are there
    for runs made with `ht-bench run --diagnostics all`.

    Args:
        runs: the folder that `ht-bench run --out` filled.
        task: this task alone.
        target: the accuracy (or return) at the next phase's end, or its mean over that phase.
        format: table (terminal), json or csv; the last two hold all numbers.
        figures: also draw a picture per task, PNG and SVG, in this folder.

    """
    from ht_bench.ranking.explaining import explain_folder
    from ht_bench.views import explanation as view

    explanations, notes = explain_folder(runs, target, task)
    if format == "json":
        shown = view.to_json(explanations, notes)
    elif format == "csv":
        shown = view.to_csv(explanations)
    else:
        shown = view.to_text(explanations, notes)
    print(shown, end="")
    if figures is not None:
        folder, written = make_folder(figures), []
        several = len({each.setting for each in explanations}) > 1
        for each in explanations:
            name = f"explain-{each.task}"
            if several:
                name += f"-{each.setting.split}-{each.setting.precision}-{each.setting.device}"
            written.append(view.explanation_figure(each, folder / name)[0])
        print(f"Figures: {', '.join(map(str, written))}", file=sys.stderr)
    return 0
