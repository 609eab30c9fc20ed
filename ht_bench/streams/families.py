"""The families of tasks: what scores, loops and checkers ask of each. A new family is one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ht_bench.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Reading:
    """How a run's final number is read off its curve.

    words: the same in words, "{}" standing for the curve. first: of how many phases → the first
    of those whose ends are averaged; None: the mean over the last phase's curve. human: the
    number is rescaled so that 0 is a uniform policy's and 1 a human's.
    """

    words: str
    first: Callable[[int], int] | None = None
    human: bool = False


END = Reading("{} at the end of the last phase", lambda phases: phases - 1)
LATER_ENDS = Reading("{}, mean over the ends of phases after the first", lambda phases: 1)
HALF_OF_ENDS = Reading(
    "{}, mean over the ends of the second half of the phases", lambda phases: phases // 2
)
LAST_CURVE = Reading("{}, mean over the last phase's curve")
HUMAN_END = Reading("human-normalised {} at the end", lambda phases: phases - 1, human=True)


@dataclass(frozen=True)
class Family:
    """One family of tasks.

    kind: what it measures; `control` is of environments and an agent, the others of data. metric:
    the curve that is scored. by_class: its phases bring new classes (`classes`) instead of a share
    of the examples (`new`), and are tested on the classes seen. retains: its phases have test
    examples, or environments, of their own, so that a run tells what its final network keeps of
    each; phases that permute have them anyway.
    """

    name: str
    reading: Reading = END
    kind: Literal["generalization", "trainability", "control"] = "generalization"
    metric: str = "test/accuracy"
    by_class: bool = False
    retains: bool = False

    @property
    def is_control(self) -> bool:
        """Whether its tasks are streams of environments for an agent."""
        return self.kind == "control"

    @property
    def words(self) -> str:
        """What a run's final number is, in words."""
        curve = self.metric.replace("eval/", "evaluation ").replace("/", " ")
        return self.reading.words.format(curve)


_control = partial(Family, kind="control", metric="eval/return")

FAMILIES = {
    family.name: family
    for family in (
        Family("warm-start"),
        Family("warm-start-clean"),
        Family("continual", LATER_ENDS),
        Family("class-incremental", LATER_ENDS, by_class=True, retains=True),
        Family("permuted", HALF_OF_ENDS),
        Family("shuffled", HALF_OF_ENDS, "trainability", "train/accuracy"),
        Family("probe", LAST_CURVE, "trainability", "train/accuracy"),
        _control("swap", LAST_CURVE, retains=True),
        _control("drift", LAST_CURVE, retains=True),
        _control("game-modes", LAST_CURVE),
        _control("game-sequence", LAST_CURVE),
        _control("atari-100k", HUMAN_END),
    )
}


def get_family(name: str) -> Family:
    """Return a family by name; raises UsageError for an unknown one."""
    if name not in FAMILIES:
        raise UsageError(
            f"Unknown family '{name}'.{did_you_mean(name, FAMILIES)} Known: {', '.join(FAMILIES)}."
        )
    return FAMILIES[name]
