"""How all pictures look and are saved: colours, labels that never overlap, equal bytes each time.

matplotlib is imported when the first picture is drawn, and its global state is left alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ht_bench.files import write_atomically
from ht_bench.ranking.pairs import FULL_RESET, HARE_TORTOISE, NONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY_PHASES = 12
"""Streams of more phases are drawn by the ends of their phases."""
VIEW = (-1.5, 3.0)
"""The most of the gap-closed axis that is shown; an interval that goes on ends in an arrow."""
INK, QUIET, HIGHLIGHT, PLAIN = "#222222", "#767676", "#D55E00", "#0072B2"
# Okabe & Ito's palette (told apart with any colour vision), without its yellow, too pale on white,
# and without the vermilion that marks hare-tortoise.
PALETTE = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    NONE: {"color": QUIET, "linestyle": (0, (5, 2)), "linewidth": 1.9},
    FULL_RESET: {"color": INK, "linestyle": "solid", "linewidth": 1.9},
    HARE_TORTOISE: {"color": HIGHLIGHT, "linestyle": "solid", "linewidth": 2.5},
}
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same glyphs
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.hashsalt": "ht-bench",
    "svg.fonttype": "path",
    "path.simplify": True,
}


@dataclass(frozen=True)
class Margins:
    """Inches around the axes: above them the heading, beside them the labels."""

    left: float
    right: float
    above: float = 0.9
    below: float = 0.55


def room(labels: Iterable[str]) -> float:
    """Return the inches that the longest label needs at the common size, 9.5 points."""
    return 0.075 * max(map(len, labels), default=0)


@contextmanager
def canvas(width: float, height: float, margins: Margins) -> Iterator[Figure]:
    """Yield an empty figure of `width` × `height` inches in the common style."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc changes no byte
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(
            left=margins.left / width,
            right=1 - margins.right / width,
            bottom=margins.below / height,
            top=1 - margins.above / height,
        )
        yield figure


def save(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write <path>.png and <path>.svg, without dates or versions in them; return both paths.

    A `path` that ends in .png or .svg already stands for both.
    """
    path = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    files = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.svg")
    options: tuple[dict[str, Any], ...] = (
        {"format": "png", "dpi": 160, "metadata": {"Software": None}},
        {"format": "svg", "metadata": {"Date": None, "Creator": None}},
    )
    for file, option in zip(files, options, strict=True):
        buffer = io.BytesIO()
        figure.savefig(buffer, facecolor="white", **option)
        write_atomically(file, buffer.getvalue())
    return files


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """Write a title and a quieter line below it, from the figure's left edge."""
    inches = figure.get_figheight()
    figure.text(0.012, 1 - 0.10 / inches, title, va="top", size=12.5, weight="bold", color=INK)
    figure.text(0.012, 1 - 0.36 / inches, subtitle, va="top", size=9, color=QUIET)


def count(counts: Sequence[int]) -> str:
    """Say how many seeds there are: "n = 20", or "n = 5 to 20"."""
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def gap_view(gaps: Iterable[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the part of the gap-closed axis to show of (low, value, high) each.

    VIEW at the most, though every value is in it; 0 and 1 at the least.
    """
    gaps = list(gaps)
    ends = [x for gap in gaps for x in gap if math.isfinite(x)]
    values = [value for _, value, _ in gaps]
    low = max(min([*ends, -0.05]), min(VIEW[0], *values, 0.0))
    high = min(max([*ends, 1.05]), max(VIEW[1], *values, 1.0))
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def line_styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give each label a colour and dash; the same set of labels always gets the same ones."""
    styles = {}
    plain = sorted(label for label in labels if label not in SPECIAL)
    for place, label in enumerate(plain):
        color = PALETTE[place % len(PALETTE)]
        dashes = DASHES[place // len(PALETTE) % len(DASHES)]
        styles[label] = {"color": color, "linestyle": dashes, "linewidth": 1.5}
    return {label: dict(SPECIAL.get(label) or styles[label]) for label in labels}


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]], size: float = 9) -> None:
    """Write each (text, value, colour) right of the axes at its height, apart from the others."""
    box = axes.get_position()
    figure = axes.figure
    gap = 1.25 * size / 72 / (figure.get_figheight() * box.height)  # type: ignore[union-attr]
    inch = 1 / (figure.get_figwidth() * box.width)  # type: ignore[union-attr]
    across = [1 + inch * distance for distance in (0.03, 0.08, 0.17, 0.21)]
    low, high = axes.get_ylim()
    heights = [min(max((value - low) / (high - low), 0.0), 1.0) for _, value, _ in ends]
    for (text, _, color), height, place in zip(ends, heights, spread(heights, gap), strict=True):
        axes.plot(
            across, (height, height, place, place), color=color,
            linewidth=0.8, transform=axes.transAxes, clip_on=False, solid_capstyle="round",
        )  # fmt: skip
        axes.text(
            1 + 0.24 * inch,
            place,
            text,
            color=color,
            size=size,
            va="center",
            transform=axes.transAxes,
        )


def spread(heights: Sequence[float], gap: float, top: float = 1.0) -> list[float]:
    """Move heights as little as possible so that neighbours are at least `gap` apart.

    Neighbours that crowd are merged into a block around their mean (pool adjacent violators), which
    ends neither below 0 nor, where that leaves room, a gap above `top`.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _start(blocks[-1], heights, gap) < (
            _start(blocks[-2], heights, gap) + gap * len(blocks[-2])
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    places = dict.fromkeys(order, 0.0)
    for block in blocks:
        for offset, index in enumerate(block):
            places[index] = _start(block, heights, gap) + gap * offset
    lowest, highest = 0.0, top + gap
    for index in order:
        places[index] = max(places[index], lowest)
        lowest = places[index] + gap
    for index in reversed(order):
        places[index] = min(places[index], highest)
        highest = places[index] - gap
    return [places[index] for index in range(len(heights))]


def _start(block: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return sum(heights[index] for index in block) / len(block) - gap * (len(block) - 1) / 2
