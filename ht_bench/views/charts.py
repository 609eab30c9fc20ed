"""SVG charts of the page: gap closed with intervals, scatters, learning curves.

Plain SVG elements whose colours come from the page's style, so that both themes fit. Every chart
has a title and a description for screen readers; the numbers stand in a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ht_bench.ranking.curves import MeanCurve
from ht_bench.ranking.pairs import REFERENCES
from ht_bench.ranking.score import Array, Estimate
from ht_bench.views.labels import place
from ht_bench.views.style import MANY_PHASES, VIEW, gap_view
from ht_bench.views.text import format_estimate

MOST_POINTS = 120


@dataclass(frozen=True)
class Bar:
    """A label with a number and its interval; boundaries: a filter's mark ("yes", "no").

    bands: numbers of the groups of neighbours that cannot be told apart.
    """

    label: str
    value: float
    low: float
    high: float
    boundaries: str
    bands: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dot:
    """A labelled point with the interval of its y, or none."""

    label: str
    x: float
    y: float
    low: float | None
    high: float | None
    boundaries: str


@dataclass(frozen=True)
class Line:
    """A labelled curve; band: whether its interval is drawn. style: a class of the style sheet."""

    label: str
    curve: MeanCurve
    style: str
    band: bool = False


class _Svg:
    """Pieces of one SVG; every text is escaped as it goes in."""

    def __init__(self, width: float, height: float, title: str, description: str, name: str):
        self.width, self.height = width, height
        self._head = Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d" '
            'xmlns="http://www.w3.org/2000/svg"><title id="{}-t">{}</title>'
            '<desc id="{}-d">{}</desc>'
        ).format(_n(width), _n(height), name, name, name, title, name, description)
        self._parts: list[Markup] = []

    def add(self, template: str, **values: object) -> None:
        """Append one element; numbers are shortened, strings escaped."""
        shown = {k: _n(v) if isinstance(v, float) else v for k, v in values.items()}
        self._parts.append(Markup(template).format(**shown))

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Append a straight line."""
        self.add(
            '<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{style}"/>',
            x1=x1, y1=y1, x2=x2, y2=y2, style=style,
        )  # fmt: skip

    def text(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        """Append a text."""
        self.add(
            '<text x="{x}" y="{y}" class="{style}" text-anchor="{anchor}">{text}</text>',
            x=x, y=y, style=style, anchor=anchor, text=text,
        )  # fmt: skip

    def done(self) -> Markup:
        """Return the whole element."""
        return self._head + Markup("").join(self._parts) + Markup("</svg>")


def gap_chart(bars: Sequence[Bar], title: str, name: str, *, narrow: bool = False) -> Markup:
    """Draw gap closed per entry, best first: a dot and its 95 % interval, lines at 0 and 1.

    At the right edge a line holds together what cannot be told apart. narrow: as wide as a phone.
    """
    low, high = gap_view([(bar.low, bar.value, bar.high) for bar in bars])
    left, row, width = (150.0, 22.0, 370.0) if narrow else (168.0, 22.0, 640.0)
    lanes = _lanes([bar.bands for bar in bars])
    right = 16 + 8.0 * (1 + max((lane for lane, _, _ in lanes), default=-1))
    height = row * len(bars) + 44
    svg = _Svg(width, height, title, _bars_in_words(bars), name)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (width - left - right)

    bottom = height - 34
    for tick in _ticks(low, high, 0.5):
        svg.line(x(tick), 4, x(tick), bottom, "axis strong" if tick in (0, 1) else "axis")
        svg.text(x(tick), bottom + 14, f"{tick:g}", "tick", "middle")
    svg.text(x(low), height - 4, "gap closed: 0 = none, 1 = full-reset", "tick")
    for index, bar in enumerate(bars):
        y = 4 + row * (index + 0.5)
        svg.add('<g data-entry="{e}" data-boundaries="{b}">', e=bar.label, b=bar.boundaries)
        svg.add("<title>{t}</title>", t=f"{bar.label}: {_estimate(bar)}")
        svg.text(left - 8, y + 4, _cut(bar.label, 24), "label", "end")
        svg.line(x(bar.low), y, x(bar.high), y, "interval")
        for end, sign, beyond in ((high, 1, bar.high > high), (low, -1, bar.low < low)):
            if beyond:
                _arrow(svg, x(end), y, sign)
        svg.add('<circle cx="{x}" cy="{y}" r="4.5" class="dot"/></g>', x=x(bar.value), y=y)
    for lane, first, last in lanes:
        at = width - 6 - 8.0 * lane
        svg.line(at, 7 + row * first, at, 1 + row * (last + 1), "together")
    return svg.done()


def _lanes(bands: Sequence[tuple[int, ...]]) -> list[tuple[int, int, int]]:
    """Return (lane, first row, last row) of every band of several rows, none over another."""
    rows: dict[int, list[int]] = {}
    for index, numbers in enumerate(bands):
        for number in numbers:
            rows.setdefault(number, []).append(index)
    lanes: list[tuple[int, int, int]] = []
    ends: list[int] = []
    for _, members in sorted(rows.items()):
        if len(members) > 1:
            free = next((k for k, end in enumerate(ends) if end < members[0]), len(ends))
            ends[free : free + 1] = [members[-1]]
            lanes.append((free, members[0], members[-1]))
    return lanes


def scatter(
    dots: Sequence[Dot], title: str, axes: tuple[str, str], name: str, marks: tuple[float, ...] = ()
) -> Markup:
    """Draw points, labelled where there is room; marks: where both axes have a stronger line."""
    width, height, left, bottom = 640.0, 420.0, 56.0, 376.0
    words = "; ".join(f"{d.label} {d.x:.2f}, {d.y:.2f}" for d in dots)
    svg = _Svg(width, height, title, f"{axes[0]} against {axes[1]}: {words}.", name)
    xs = _range([d.x for d in dots] + list(marks))
    ends = [min(max(v, VIEW[0]), VIEW[1]) for d in dots for v in (d.low, d.high) if v is not None]
    ys = _range([d.y for d in dots] + list(marks) + ends, 0.03)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - xs[0]) / (xs[1] - xs[0]) * (width - left - 110),
            bottom - (min(max(y, ys[0]), ys[1]) - ys[0]) / (ys[1] - ys[0]) * (bottom - 14),
        )

    for tick in _ticks(*xs):
        svg.line(at(tick, 0)[0], 14, at(tick, 0)[0], bottom, _axis(tick, marks))
        svg.text(at(tick, 0)[0], bottom + 15, f"{tick:g}", "tick", "middle")
    for tick in _ticks(*ys):
        svg.line(left, at(0, tick)[1], width - 110, at(0, tick)[1], _axis(tick, marks))
        svg.text(left - 6, at(0, tick)[1] + 4, f"{tick:g}", "tick", "end")
    svg.text(left, height - 8, f"{axes[0]} →", "tick")
    svg.text(4, 10, f"↑ {axes[1]}", "tick")
    texts = [_cut(dot.label, 24) for dot in dots]
    first = [index for index, dot in enumerate(dots) if dot.label in REFERENCES]
    labels = place([at(d.x, d.y) for d in dots], texts, first, width)
    for dot, text, label in zip(dots, texts, labels, strict=True):
        x, y = at(dot.x, dot.y)
        svg.add('<g data-entry="{e}" data-boundaries="{b}">', e=dot.label, b=dot.boundaries)
        svg.add("<title>{t}</title>", t=f"{dot.label}: {dot.x:.2f}, {dot.y:.2f}")
        if dot.low is not None and dot.high is not None:
            svg.line(x, at(0, dot.low)[1], x, at(0, dot.high)[1], "interval thin")
        svg.add('<circle cx="{x}" cy="{y}" r="4.5" class="dot"/>', x=x, y=y)
        if label is not None:
            svg.text(label.x, label.y, text, "label", label.anchor)
        svg.add("</g>")
    return svg.done()


def curves(lines: Sequence[Line], title: str, axis: str, name: str) -> Markup:
    """Draw mean learning curves, with bands where asked, phase boundaries as dotted lines.

    A stream of more than MANY_PHASES is drawn by the ends of its phases.
    """
    width, height, left, bottom = 640.0, 300.0, 56.0, 256.0
    first = lines[0].curve
    points = _points(first)
    top = [lines[0].curve.high] if lines[0].band else []
    spread = [line.curve.mean[points] for line in lines] + [values[points] for values in top]
    xs = (0.0, float(first.steps[-1]))
    ys = _range(np.concatenate(spread).tolist(), 0.04)
    words = "; ".join(f"{line.label} ends at {line.curve.mean[-1]:.3g}" for line in lines)
    svg = _Svg(width, height, title, f"Mean over seeds against steps: {words}.", name)

    def at(steps: Array, values: Array) -> str:
        x = left + (steps - xs[0]) / (xs[1] - xs[0]) * (width - left - 12)
        y = bottom - (np.clip(values, *ys) - ys[0]) / (ys[1] - ys[0]) * (bottom - 18)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))

    for tick in _ticks(*ys):
        y = bottom - (tick - ys[0]) / (ys[1] - ys[0]) * (bottom - 18)
        svg.line(left, y, width - 12, y, "axis")
        svg.text(left - 6, y + 4, f"{tick:g}", "tick", "end")
    for tick in _ticks(*xs):
        x = left + tick / xs[1] * (width - left - 12)
        svg.text(x, bottom + 16, f"{tick:,.0f}", "tick", "middle")
    if len(first.ends) <= MANY_PHASES:
        for end in first.steps[first.ends][:-1].tolist():
            x = left + end / xs[1] * (width - left - 12)
            svg.line(x, 18, x, bottom, "phase")
    svg.text(left, height - 8, "steps →", "tick")
    svg.text(4, 10, f"↑ {axis}", "tick")
    steps = first.steps[points].astype(np.float64)
    for line in lines:
        low, high = line.curve.low[points], line.curve.high[points]
        svg.add('<g data-entry="{e}" class="{s}">', e=line.label, s=line.style)
        if line.band:
            around = at(np.concatenate([steps, steps[::-1]]), np.concatenate([high, low[::-1]]))
            svg.add('<polygon points="{p}" class="band"/>', p=around)
        svg.add('<polyline points="{p}" class="curve"/>', p=at(steps, line.curve.mean[points]))
        svg.add("<title>{t}</title></g>", t=line.label)
    return svg.done()


def _points(curve: MeanCurve) -> np.ndarray:
    if len(curve.ends) > MANY_PHASES:
        return np.asarray(curve.ends)
    every = -(-len(curve.steps) // MOST_POINTS)
    return np.unique(np.concatenate([np.arange(0, len(curve.steps), every), curve.ends]))


def _range(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    pad = (high - low) * margin or 0.5
    return low - pad, high + pad


def _ticks(low: float, high: float, step: float | None = None) -> list[float]:
    if step is None:
        rough = (high - low) / 5
        power = 10 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first
    return [round((first + k) * step, 10) + 0.0 for k in range(count + 1)]


def _axis(tick: float, marks: tuple[float, ...]) -> str:
    return "axis strong" if tick in marks else "axis"


def _arrow(svg: _Svg, x: float, y: float, sign: int) -> None:
    points = f"{_n(x)},{_n(y)} {_n(x - sign * 7)},{_n(y - 4)} {_n(x - sign * 7)},{_n(y + 4)}"
    svg.add('<polygon points="{p}" class="arrow"/>', p=points)


def _bars_in_words(bars: Sequence[Bar]) -> str:
    return "; ".join(f"{bar.label} {_estimate(bar)}" for bar in bars) + "."


def _estimate(bar: Bar) -> str:
    return format_estimate(Estimate(bar.value, bar.low, bar.high))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
