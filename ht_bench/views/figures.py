"""Pictures of learning curves, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ht_bench.errors import UsageError
from ht_bench.ranking.curves import MeanCurve, mean_curve
from ht_bench.ranking.pairs import HARE_TORTOISE
from ht_bench.records.metrics import Record
from ht_bench.views import style
from ht_bench.views.style import INK, MANY_PHASES, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Callable[[MeanCurve], "tuple[NDArray[Any], slice | NDArray[np.intp]]"]
SPACED = {"wspace": 0.2}


def curves_figure(
    runs_by_method: Mapping[str, Sequence[Record] | MeanCurve], task_name: str, key: str, path: Path
) -> tuple[Path, Path]:
    """Draw the mean of curve `key` over seeds with its 95 % interval, one line per label.

    The stream with its phase boundaries stands on the left, its last phase, enlarged, on the
    right; a stream of more than MANY_PHASES is drawn by the ends of its phases. Diverged runs are
    left out and counted in the label. A method's runs are records, or their mean curve. `path`
    names the picture, with or without an ending.
    Returns the paths of the PNG and the SVG; raises UsageError if no finished run has the curve.
    """
    curves = {
        label: runs if isinstance(runs, MeanCurve) else mean_curve(runs, key)
        for label, runs in runs_by_method.items()
    }
    shown = {label: curve for label, curve in curves.items() if curve is not None}
    if not shown:
        raise UsageError(f"No finished run on '{task_name}' has the curve '{key}' to draw.")
    first = next(iter(shown.values()))
    phases = len(first.ends)
    styles = style.line_styles(list(shown))
    ends = [(_end_label(k, v, key), v.mean[-1], styles[k]["color"]) for k, v in shown.items()]
    margins = style.Margins(left=0.65, right=style.room([text for text, *_ in ends]) + 0.45)
    with style.canvas(10.0, max(4.3, 1.5 + 0.19 * len(shown)), margins) as figure:
        if 1 < phases <= MANY_PHASES:
            whole, last = figure.subplots(1, 2, width_ratios=(1.0, 1.15), gridspec_kw=SPACED)
            _draw(whole, shown, _stream)
            _mark_phases(whole, first)
            _draw(last, shown, _last_phase)
            _enlarge(last, shown.values(), key)
            whole.set_title("whole stream", loc="left", color=QUIET)
            last.set_title("last phase, enlarged", loc="left", color=QUIET)
        else:
            whole = last = figure.subplots()
            _draw(last, shown, _stream if phases == 1 else _phase_ends)
        unit = "phase" if phases > MANY_PHASES else _unit(key)
        center = (figure.subplotpars.left + figure.subplotpars.right) / 2
        figure.supxlabel(unit, x=center, y=0.02, size=9.5, color=INK)
        whole.set_ylabel(key.replace("/", " "))
        style.heading(figure, task_name, _subtitle(shown.values(), key))
        style.label_ends(last, ends)
        return style.save(figure, path)


def _stream(curve: MeanCurve) -> tuple[NDArray[Any], slice]:
    return curve.steps, slice(None)


def _phase_ends(curve: MeanCurve) -> tuple[NDArray[Any], NDArray[np.intp]]:
    return np.arange(1.0, len(curve.ends) + 1), curve.ends


def _last_phase(curve: MeanCurve) -> tuple[NDArray[Any], slice]:
    # Where a phase has a point at its own start, the end before it is of another environment.
    start = int(curve.ends[-2])
    points = slice(start + int(curve.steps[start + 1] == curve.steps[start]), None)
    return curve.steps[points], points


def _draw(axes: Axes, curves: Mapping[str, MeanCurve], points: Points) -> None:
    """Draw means and bands; points: what to put on the x-axis, and which points of a curve."""
    from matplotlib.ticker import MaxNLocator

    styles = style.line_styles(list(curves))
    for label, curve in curves.items():
        look = styles[label]
        across, part = points(curve)
        low, high = curve.low[part], curve.high[part]
        axes.fill_between(across, low, high, color=look["color"], alpha=0.13, linewidth=0)
        axes.plot(across, curve.mean[part], zorder=4 if label == HARE_TORTOISE else 3, **look)
    axes.set_xlim(across[0], across[-1])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _mark_phases(axes: Axes, curve: MeanCurve) -> None:
    for end in curve.ends[:-1]:
        axes.axvline(curve.steps[end], color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=2)


def _enlarge(axes: Axes, curves: Iterable[MeanCurve], key: str) -> None:
    """Show the ends of the curves and as much again on the side that they come from, if drawn."""
    shown = list(curves)
    low, high = min(curve.low[-1] for curve in shown), max(curve.high[-1] for curve in shown)
    parts = [_last_phase(curve)[1] for curve in shown]
    lowest = min(curve.low[part].min() for curve, part in zip(shown, parts, strict=True))
    highest = max(curve.high[part].max() for curve, part in zip(shown, parts, strict=True))
    margin = max(high - low, 0.01 * abs(high), 1e-9)
    before, after = 0.9 * margin, 0.08 * margin
    if key.endswith("loss"):
        before, after = after, before
    edge = 0.04 * margin
    axes.set_ylim(max(low - before, lowest - edge), min(high + after, highest + edge))


def _unit(key: str) -> str:
    return "environment steps" if key.endswith("return") else "optimizer steps"


def _end_label(label: str, curve: MeanCurve, key: str) -> str:
    text = f"{label}  {curve.mean[-1]:.{1 if key.endswith('return') else 3}f}"
    return f"{text} ({curve.diverged} div.)" if curve.diverged else text


def _subtitle(curves: Iterable[MeanCurve], key: str) -> str:
    counts = [curve.n for curve in curves]
    bands = " with the mean's 95 % interval" if max(counts) > 1 else ""
    return f"{key.replace('/', ' ')}, mean over seeds ({style.count(counts)}){bands}"
