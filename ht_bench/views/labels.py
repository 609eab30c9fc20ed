"""Where the labels of a scatter go: beside their points, and nowhere where they would overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CHARACTER, HEIGHT = 6.6, 12.0
"""About what a label takes, in a chart's units: a character's width, a line's height."""
RADIUS = 5.0
"""What a point keeps free of others' labels."""
Box = tuple[float, float, float, float]


class Label(NamedTuple):
    """Where a label's text begins, is centred or ends (SVG's text-anchor), and its baseline."""

    x: float
    y: float
    anchor: str


def place(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    first: Sequence[int] = (),
    right: float = float("inf"),
) -> list[Label | None]:
    """Return a label per point, None where it would lie on a point or on another label.

    points: in a chart's units, y downward. first: the points whose labels are placed before the
    others', which follow in their order. right: the chart's right edge.
    """
    dots = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points]
    placed: list[Label | None] = [None] * len(points)
    taken: list[Box] = []
    for index in [*first, *(k for k in range(len(points)) if k not in first)]:
        (x, y), width = points[index], CHARACTER * len(texts[index])
        for label, box in _candidates(x, y, width):
            others = taken + dots[:index] + dots[index + 1 :]
            if box[0] >= 0 and box[2] <= right and not any(_meet(box, each) for each in others):
                placed[index] = label
                taken.append(box)
                break
    return placed


def _candidates(x: float, y: float, width: float) -> list[tuple[Label, Box]]:
    """Right of the point, left of it, above, below."""
    half = HEIGHT / 2
    return [
        (Label(x + 8, y + 4, "start"), (x + 8, y - half, x + 8 + width, y + half)),
        (Label(x - 8, y + 4, "end"), (x - 8 - width, y - half, x - 8, y + half)),
        (Label(x, y - 8, "middle"), (x - width / 2, y - 8 - HEIGHT, x + width / 2, y - 6)),
        (Label(x, y + 17, "middle"), (x - width / 2, y + 6, x + width / 2, y + 8 + HEIGHT)),
    ]


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
