"""Whether intervals cover and ranks err as they claim: `python -m benchmarks.coverage`.

Draws boards whose truth is known: tasks of equal and of unequal gaps, n seeds each, seeds shared by
all methods (half of the variance), noise of several shapes, gaps of 4 and 8 standard errors, and a
method whose own noise is three times the anchors'. Prints (a) how often the 95 % interval of the
suite's score holds the truth, beside what a stratified percentile bootstrap would (1,000 draws, a
quarter of the boards), and (b) how often, among 12 and 40 methods of one true score, any is ranked
surely above any other, by what tables rank by: of one task the metric, of several gap closed.
--markdown prints the tables of docs/scoring.md. No file is read: the numbers depend on NumPy's and
this package's versions alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ht_bench.ranking.influence import (
    Statistic,
    interquartile_mean,
    of_gap_closed,
    of_interquartile_mean,
    surely_above,
)

Array = NDArray[np.float64]
SHAPES = ("normal", "skewed", "heavy tails", "two peaks", "rounded")
SEEDS = (5, 10, 20)
RANKED = (3, 5, 10, 20)
GAPS = (4.0, 8.0)
SHARED = 0.5
"""Share of the variance that a seed has in common over methods."""
DRAWS = 1_000


@dataclass(frozen=True)
class Layout:
    """Tasks of a made-up suite. gaps: relative to each other; scores: the method's gap closed.

    own: the noise of a method's own, in that of an anchor's.
    """

    name: str
    gaps: tuple[float, ...]
    scores: tuple[float, ...]
    own: float = 1.0


LAYOUTS = (
    Layout("one task", (1.0,), (0.7,)),
    Layout("five tasks", (1.0, 1.0, 2.0, 3.0, 1.0), (0.7, 1.2, 0.5, 0.9, 0.0)),
)
NOISY = tuple(replace(each, name=f"{each.name}, noisy method", own=3.0) for each in LAYOUTS)


@dataclass(frozen=True)
class Case:
    """What is simulated. gap: standard errors of the smallest gap at n seeds."""

    layout: Layout
    seeds: int
    shape: str
    gap: float

    def scale(self) -> Array:
        """Return the tasks' gaps, [tasks], in standard deviations of a run."""
        error = np.sqrt(2 * (1 - SHARED) / self.seeds)
        return np.asarray(self.gap * error * np.array(self.layout.gaps))


def noise(shape: str, size: tuple[int, ...], draw: np.random.Generator) -> Array:
    """Return numbers of mean 0 and standard deviation near 1."""
    if shape == "skewed":
        return draw.exponential(1.0, size) - 1
    if shape == "heavy tails":
        return np.asarray(draw.standard_t(3, size) / np.sqrt(3))
    if shape == "two peaks":
        peaks = np.where(draw.random(size) < 0.3, -1.5, 0.65)
        return np.asarray(peaks + 0.2 * draw.standard_normal(size))
    return draw.standard_normal(size)


def runs(case: Case, methods: int, seeds: int, draw: np.random.Generator) -> Array:
    """Return runs [none, full-reset and methods, tasks, seeds], all methods of the same truth."""
    tasks = len(case.layout.gaps)
    shape = "normal" if case.shape == "rounded" else case.shape
    shared = np.sqrt(SHARED) * noise(shape, (1, tasks, seeds), draw)
    own = np.sqrt(1 - SHARED) * noise(shape, (2 + methods, tasks, seeds), draw)
    own[2:] *= case.layout.own
    scores = np.array([[0.0] * tasks, [1.0] * tasks, *[case.layout.scores] * methods])
    values = shared + own + (scores * case.scale())[:, :, None]
    # As accuracies on 500 examples whose spread over seeds is five of them.
    return np.round(values * 5) / 5 if case.shape == "rounded" else values


def truth(case: Case) -> float:
    """Return the score of a board of 400,000 seeds."""
    warm, fresh, method = runs(case, 1, 400_000, np.random.default_rng(7))
    return of_gap_closed([*method], [*warm], [*fresh]).value


def bootstrap_interval(board: Array, draw: np.random.Generator) -> tuple[float, float]:
    """Return the stratified percentile interval of the score of runs [3, tasks, seeds]."""
    _, tasks, n = board.shape
    index = draw.integers(n, size=(DRAWS, tasks, n))
    resampled = np.take_along_axis(board[:, None], index[None], axis=-1)
    warm, fresh = (interquartile_mean(x)[..., None] for x in resampled[:2])
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = interquartile_mean(((resampled[2] - warm) / (fresh - warm)).reshape(DRAWS, -1))
    low, high = np.nanquantile(scores, (0.025, 0.975))
    return float(low), float(high)


def coverage(case: Case, boards: int) -> tuple[float, float]:
    """Return the shares of boards whose interval, and whose bootstrap interval, holds the truth."""
    draw, wanted = np.random.default_rng(0), truth(case)
    own = theirs = 0
    few = max(boards // 4, 1)
    for k in range(boards):
        board = runs(case, 1, case.seeds, draw)
        interval = of_gap_closed([*board[2]], [*board[0]], [*board[1]]).estimate()
        own += interval.low <= wanted <= interval.high
        if k < few:  # it takes a hundred times as long
            low, high = bootstrap_interval(board, draw)
            theirs += low <= wanted <= high
    return own / boards, theirs / few


def false_ranks(case: Case, methods: int, boards: int) -> float:
    """Return the share of boards on which one of equal methods is ranked above another."""
    draw, wrong = np.random.default_rng(1), 0
    for _ in range(boards):
        warm, fresh, *others = runs(case, methods, case.seeds, draw)
        entries = {str(k): ranked_by([*own], [*warm], [*fresh]) for k, own in enumerate(others)}
        wrong += any(surely_above(entries).values())
    return wrong / boards


def ranked_by(own: list[Array], warm: list[Array], fresh: list[Array]) -> Statistic:
    """Return what a table ranks a method by: of one task the metric, of several gap closed."""
    return of_interquartile_mean(own[0]) if len(own) == 1 else of_gap_closed(own, warm, fresh)


Line = tuple[str, ...]


def coverage_lines(boards: int) -> Iterator[Line]:
    """Yield a line per layout, number of seeds and gap: coverage for each shape of noise."""
    for layout in (*LAYOUTS, *NOISY):
        for seeds in SEEDS:
            for gap in GAPS:
                shares = [coverage(Case(layout, seeds, shape, gap), boards) for shape in SHAPES]
                cells = (f"{own:.3f} ({theirs:.3f})" for own, theirs in shares)
                yield layout.name, str(seeds), f"{gap:.0f}", *cells


def rank_lines(boards: int) -> Iterator[Line]:
    """Yield a line per layout, number of seeds and of methods: false ranks for each shape."""
    for layout in LAYOUTS:
        for seeds in RANKED:
            for methods in (12, 40):
                cases = [Case(layout, seeds, shape, 8.0) for shape in SHAPES]
                cells = (f"{false_ranks(case, methods, boards):.3f}" for case in cases)
                yield layout.name, str(seeds), str(methods), *cells


def show(title: str, head: Line, lines: Sequence[Line], markdown: bool) -> None:
    """Print a table."""
    if markdown:
        print(f"{title}\n")
        for line in (head, ("---",) * len(head), *lines):
            print(f"| {' | '.join(line)} |")
        print()
        return
    table = Table(*head, title=title)
    for line in lines:
        table.add_row(*line)
    Console(width=110).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, and print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--boards", type=int, default=2_000, help="for each number (2000)")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args(arguments)
    one, two = 4 * len(SEEDS) * len(GAPS), 2 * len(RANKED) * 2
    first = [*tqdm(coverage_lines(asked.boards), "coverage", one)]
    second = [*tqdm(rank_lines(max(asked.boards // 4, 1)), "ranks", two)]
    head = ("tasks", "n")
    title = f"Intervals that hold the truth (percentile bootstrap), {asked.boards} boards"
    show(title, (*head, "gap / s.e.", *SHAPES), first, asked.markdown)
    title = f"Boards of equal methods with a false rank, {max(asked.boards // 4, 1)} boards"
    show(title, (*head, "methods", *SHAPES), second, asked.markdown)


if __name__ == "__main__":
    main()
