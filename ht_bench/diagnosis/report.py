"""What a diagnosis says: gaps with intervals, a verdict in words, the symptoms beside it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.score import Array, mean_estimate

Verdict = Literal["plasticity loss", "none found", "not sure at this budget"]
LOSS: Verdict = "plasticity loss"
NONE_FOUND: Verdict = "none found"
UNSURE: Verdict = "not sure at this budget"


@dataclass(frozen=True)
class Budget:
    """How long and how often both networks are trained.

    steps: optimizer steps of each training. pairs: given network and fresh twin, each pair with
    its own split, order of batches, random labels and fresh weights. batch: examples of a step.
    points: of a learning curve, beside the one at its start. test_share: of the examples, where
    no test examples are given. seed: of everything that is drawn.
    """

    steps: int = 1_000
    pairs: int = 8
    batch: int = 64
    points: int = 20
    test_share: float = 0.25
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Gap:
    """One measure, of the given network and of its fresh twins.

    steps [points]: where on the curves. given, fresh: curves [pairs, points], higher is better.
    margin: the smallest gap that counts. What is compared is the mean of the last quarter of each
    curve, pair by pair.
    """

    measure: str
    margin: float
    steps: tuple[int, ...]
    given: Array
    fresh: Array

    @functools.cached_property
    def differences(self) -> Array:
        """Fresh − given of each pair, [pairs]; above 0 the given network learns less."""
        return self._ends(self.fresh) - self._ends(self.given)

    @functools.cached_property
    def estimate(self) -> Estimate:
        """The gap: mean over pairs and its 95 % interval (Student's, paired)."""
        return mean_estimate(self.differences)

    @property
    def ends(self) -> tuple[float, float]:
        """What given network and fresh twins reach, mean over pairs."""
        return float(self._ends(self.given).mean()), float(self._ends(self.fresh).mean())

    @property
    def learned(self) -> float:
        """How much the fresh twins' measure rose over the budget, mean over pairs."""
        return float((self._ends(self.fresh) - self.fresh[:, 0]).mean())

    @property
    def tells(self) -> bool:
        """Whether fresh twins learn enough within the budget for a gap to show."""
        return self.learned > 2 * self.margin

    @property
    def is_loss(self) -> bool:
        """Whether fresh twins learn more, surely (the interval is above 0) and enough to count."""
        return self.tells and self.estimate.low > 0 and self.estimate.value >= self.margin

    @property
    def is_small(self) -> bool:
        """Whether any loss is surely too small to count."""
        return self.tells and self.estimate.high < self.margin

    def _ends(self, curves: Array) -> Array:
        last = max(1, (curves.shape[1] - 1) // 4)
        return np.asarray(curves[:, -last:].mean(axis=1))


@dataclass(frozen=True)
class Symptom:
    """A measure of the given network before training, beside fresh twins' range of 95 %.

    low, high: in which one more fresh network would lie (Student's prediction interval).
    is_worse: the given network lies outside, on the side that goes with plasticity loss.
    """

    name: str
    given: float
    fresh: float
    low: float
    high: float
    is_worse: bool


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The answer of `ht_bench.diagnose`; `str()` of it is the report.

    gaps: on test examples (generalisation), then on random labels learned after the data
    (trainability). seconds: what the trainings took.
    """

    gaps: tuple[Gap, ...]
    symptoms: tuple[Symptom, ...]
    budget: Budget
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """In words.

        "plasticity loss": some gap is surely above 0 and at least its margin. "none found": all
        gaps that tell anything are surely below their margins. Else "not sure at this budget". A
        network without a gap is said to have a loss in at most one case of 20: one of 40 for each
        of the two intervals.
        """
        if any(gap.is_loss for gap in self.gaps):
            return LOSS
        telling = [gap for gap in self.gaps if gap.tells]
        return NONE_FOUND if telling and all(gap.is_small for gap in telling) else UNSURE

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        gaps = {
            gap.measure: {
                "given": gap.ends[0],
                "fresh": gap.ends[1],
                "gap": asdict(gap.estimate),
                "margin": gap.margin,
                "tells": gap.tells,
                "curves": {
                    "step": list(gap.steps),
                    "given": gap.given.tolist(),
                    "fresh": gap.fresh.tolist(),
                },
            }
            for gap in self.gaps
        }
        return {
            "verdict": self.verdict,
            "gaps": gaps,
            "symptoms": {s.name: asdict(s) for s in self.symptoms},
            "budget": asdict(self.budget),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        """Return the report: the verdict, a line for each gap, the symptoms."""
        lines = [f"{self.verdict.capitalize()}: {self._why()}", ""]
        lines += _table(
            ("", "given", "fresh twins", "fresh − given [95 %]"),
            [(gap.measure, *(f"{end:.3f}" for end in gap.ends), _shown(gap.estimate))
             for gap in self.gaps],
        )  # fmt: skip
        lines += ["", "Before training:"]
        lines += _table(
            ("", "given", "fresh twins", "where 95 % of fresh ones lie", ""),
            [
                (s.name, f"{s.given:.3g}", f"{s.fresh:.3g}", f"{s.low:.3g} to {s.high:.3g}",
                 "worse" if s.is_worse else "")
                for s in self.symptoms
            ],
        )  # fmt: skip
        budget = self.budget
        lines += ["", f"{budget.pairs} pairs, {budget.steps:,} steps of {budget.batch} examples."]
        return "\n".join(line.rstrip() for line in lines)

    def _why(self) -> str:
        if self.verdict == LOSS:
            where = " and ".join(gap.measure for gap in self.gaps if gap.is_loss)
            worse = ", ".join(s.name for s in self.symptoms if s.is_worse)
            beside = f"with it go: {worse}" if worse else "none of the symptoms below goes with it"
            return f"the given network learns less than fresh twins do ({where}); {beside}."
        if self.verdict == NONE_FOUND:
            small = " and ".join(
                f"{gap.margin:g} in {gap.measure}" for gap in self.gaps if gap.tells
            )
            return f"a gap to fresh twins is below {small}."
        if not any(gap.tells for gap in self.gaps):
            return "fresh twins learn too little themselves; give more steps or another rate."
        return "the intervals leave it open; give more pairs or steps."


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
