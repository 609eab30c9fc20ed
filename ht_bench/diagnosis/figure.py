"""The picture of a diagnosis: learning curves of the given network and of its fresh twins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ht_bench.diagnosis.report import Diagnosis, Gap
from ht_bench.ranking.score import mean_interval
from ht_bench.views import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = {"given": (style.HIGHLIGHT, "solid"), "fresh": (style.INK, (0, (5, 2)))}


def draw(diagnosis: Diagnosis, path: Path) -> tuple[Path, Path]:
    """Draw both measures over the steps, means over pairs with their 95 % intervals.

    `path` names the picture, with or without an ending. Returns the paths of the PNG and the SVG.
    """
    with style.canvas(10.6, 4.3, style.Margins(left=0.65, right=1.3)) as figure:
        panels = figure.subplots(1, len(diagnosis.gaps), gridspec_kw={"wspace": 0.62})
        for axes, gap in zip(panels, diagnosis.gaps, strict=True):
            _panel(axes, gap)
        style.heading(
            figure,
            diagnosis.verdict.capitalize(),
            f"given network and fresh twins, mean over pairs (n = {diagnosis.budget.pairs}) with "
            "its 95 % interval",
        )
        return style.save(figure, path)


def _panel(axes: Axes, gap: Gap) -> None:
    ends = []
    for name, curves in (("given", gap.given), ("fresh", gap.fresh)):
        color, dashes = LOOKS[name]
        mean, low, high = mean_interval(curves)
        axes.fill_between(gap.steps, low, high, color=color, alpha=0.13, linewidth=0)
        axes.plot(gap.steps, mean, color=color, linestyle=dashes, linewidth=1.9)
        ends.append((f"{name}  {mean[-1]:.3f}", float(mean[-1]), color))
    axes.set_xlim(gap.steps[0], gap.steps[-1])
    axes.set_xlabel("optimizer steps")
    axes.set_title(gap.measure, loc="left", color=style.QUIET)
    style.label_ends(axes, ends)
