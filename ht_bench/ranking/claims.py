"""What a question's hypothesis says of a number, and whether its runs bear it out.

A claim that a number is above or below zero has one p-value, two-sided. A claim of equality has
two: that the number lies within its margin (two one-sided tests, Schuirmann 1987), which answers
"yes", and that it lies outside, which answers "no". Holm's step-down is over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.influence import Statistic, rejected


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of cells.

    unit: "gap" weighs gap closed over all of a cell's runs (`none` and `full-reset` are run on its
    tasks too), "metric" the mean over its tasks of the metric's interquartile mean. wanted: what
    the hypothesis says of the sum; "zero" is a claim of equality, for which `margin` says how far
    from zero the sum may lie.
    """

    name: str
    weights: dict[str, float]
    unit: Literal["gap", "metric"] = "metric"
    wanted: Literal["above", "below", "zero"] = "above"
    margin: float | None = None


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation over all cells of gap closed on the tasks x and on the tasks y.

    wanted: what the hypothesis says of it; no claim of zero is tested (margin: of no use).
    """

    name: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    wanted: Literal["above", "below", "zero"] = "above"
    margin: float | None = None

    @property
    def unit(self) -> str:
        """What its number is."""
        return "rank correlation"


@dataclass(frozen=True)
class Answer:
    """An estimate. n: seeds a task.

    p_value: that of "yes" and, for a claim that a number is above or below zero, of "no" too
    (two-sided); against: that of "no" for a claim of equality. verdict: "yes", "no" (surely the
    other way, or surely outside the margin), or "open".
    """

    contrast: Contrast | Correlation
    estimate: Estimate
    n: int
    p_value: float
    against: float | None = None
    verdict: str = "open"

    @property
    def shown(self) -> float:
        """The p-value that its verdict rests on."""
        return self.against if self.verdict == "no" and self.against is not None else self.p_value


def judge(contrast: Contrast, found: Statistic, n: int) -> Answer:
    """Return the answer to a claim on a statistic, without a verdict (`decide`)."""
    if contrast.wanted != "zero":
        return Answer(contrast, found.estimate(), n, found.p_value())
    margin = contrast.margin or 0.0
    within = max(_above(found, -margin), _above(_negative(found), -margin))
    beyond = abs(found.value) - margin
    outside = replace(found, value=beyond).p_value() if beyond > 0 else 1.0
    return Answer(contrast, found.estimate(), n, within, outside)


def _above(found: Statistic, bound: float) -> float:
    """Return the one-sided p-value of a statistic's lying above a bound."""
    distance = found.value - bound
    both = replace(found, value=distance).p_value()
    return both / 2 if distance > 0 else 1 - both / 2


def _negative(found: Statistic) -> Statistic:
    influences, plain = (tuple(-x for x in each) for each in (found.influences, found.plain))
    return Statistic(-found.value, influences, plain)


def decide(answers: Sequence[Answer]) -> list[Answer]:
    """Return answers with their verdicts, Holm's step-down over all their p-values."""
    places = [(k, "p_value") for k in range(len(answers))]
    places += [(k, "against") for k, each in enumerate(answers) if each.against is not None]
    p_values = np.array([getattr(answers[k], which) for k, which in places])
    sure = {places[index] for index in rejected(p_values)}
    return [
        replace(each, verdict=_verdict(each, (k, "p_value") in sure, (k, "against") in sure))
        for k, each in enumerate(answers)
    ]


def _verdict(found: Answer, sure: bool, against: bool) -> str:
    if found.against is not None:
        return "yes" if sure else "no" if against else "open"
    if not sure:
        return "open"
    return "yes" if (found.estimate.value > 0) == (found.contrast.wanted == "above") else "no"
