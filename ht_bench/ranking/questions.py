"""Open questions, written down before their runs: cells, contrasts, and answers with intervals.

A question's file (docs/questions/*.toml) names cells, each a method on tasks, and contrasts,
weighted sums of cells that its hypothesis says are above zero. Runs of one task are paired by seed
over all cells. Holm's step-down holds the family-wise error over the claims of all questions
(`claims.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ht_bench.errors import UsageError, did_you_mean
from ht_bench.files import read_json
from ht_bench.ranking.claims import Answer, Contrast, Correlation, judge
from ht_bench.ranking.correlation import correlate
from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.influence import (
    Array,
    Statistic,
    mean_of,
    of_gap_closed,
    of_interquartile_mean,
)
from ht_bench.ranking.pairs import FULL_RESET, NONE
from ht_bench.streams.tables import read_table, read_toml

ANSWERS = "answers.json"


@dataclass(frozen=True)
class Cell:
    """A method on tasks. set: hyperparameters that override its recipe's."""

    method: str
    tasks: tuple[str, ...]
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A question as it was written down.

    seeds: of each task, its evaluation seeds if empty. afterwards: what the runs taught about the
    question; the only field that may be written after them.
    """

    name: str
    title: str
    hypothesis: str
    written: str
    stopping: str
    cells: Mapping[str, Cell]
    contrasts: tuple[Contrast, ...] = ()
    correlations: tuple[Correlation, ...] = ()
    seeds: str = ""
    needs: Literal["cpu", "cuda"] = "cpu"
    note: str = ""
    afterwards: str = ""

    @property
    def sha256(self) -> str:
        """Return the digest of what was written down before the runs."""
        before = {key: value for key, value in asdict(self).items() if key != "afterwards"}
        text = json.dumps(before, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def anchored(self) -> list[str]:
        """Return the tasks on which both anchors are needed."""
        names = {n for c in self.contrasts if c.unit == "gap" for n in c.weights}
        names |= set(self.cells) if self.correlations else set()
        return list(dict.fromkeys(task for n in sorted(names) for task in self.cells[n].tasks))


Finals = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Cell (or "none", "full-reset" for an anchor) → task → seed → final metric."""


def read_question(path: Path) -> Question:
    """Return a question's file; raises UsageError, with the key, for what it cannot be."""
    question = read_table(Question, read_toml(path), str(path))
    for contrast in question.contrasts:
        for name in contrast.weights:
            if name not in question.cells:
                hint = did_you_mean(name, question.cells)
                raise UsageError(
                    f"{path}: the contrast '{contrast.name}' weighs '{name}', which is no cell."
                    f"{hint} Write [cells.{name}], or correct it."
                )
        if not contrast.weights:
            raise UsageError(f"{path}: the contrast '{contrast.name}' weighs nothing; add cells.")
    for asked in question.contrasts:
        if asked.wanted == "zero" and asked.margin is None:
            raise UsageError(f"{path}: '{asked.name}' claims zero without a margin; add one.")
    for correlation in question.correlations:
        if correlation.wanted == "zero":
            raise UsageError(
                f"{path}: '{correlation.name}' claims that a correlation is zero, which is not "
                "tested; say above or below."
            )
        for name, cell in question.cells.items():
            if lacking := {*correlation.x, *correlation.y} - set(cell.tasks):
                raise UsageError(
                    f"{path}: the cell '{name}' lacks {', '.join(sorted(lacking))}, which "
                    f"'{correlation.name}' correlates; add it to its tasks."
                )
    if not question.contrasts and not question.correlations:
        raise UsageError(f"{path} has no [[contrasts]] or [[correlations]]; add one.")
    return question


def read_questions(folder: Path) -> dict[str, Question]:
    """Return the questions of a folder by name, in the order of their files."""
    questions = [read_question(path) for path in sorted(folder.glob("*.toml"))]
    return {question.name: question for question in questions}


@dataclass(frozen=True)
class Runs:
    """What was run for a question: final metrics, and on what."""

    finals: Finals
    sha256: str
    benchmark: str
    software: Mapping[str, Any]
    hardware: Mapping[str, Any]


def read_answers(folder: Path) -> dict[str, Runs]:
    """Return the committed runs of a folder's questions, none where there is no file."""
    path = folder / ANSWERS
    if not path.exists():
        return {}
    content = read_json(path, "`ht-bench questions --write` makes it")
    try:
        return {name: _runs(values) for name, values in content.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} holds no answers; `ht-bench questions --write` makes it anew."
        ) from error


def _runs(values: Mapping[str, Any]) -> Runs:
    finals = {
        cell: {
            task: {int(seed): float(value) for seed, value in by_seed.items()}
            for task, by_seed in tasks.items()
        }
        for cell, tasks in values["finals"].items()
    }
    return Runs(
        finals,
        str(values["sha256"]),
        str(values["benchmark"]),
        dict(values["software"]),
        dict(values["hardware"]),
    )


def answer(question: Question, finals: Finals) -> list[Answer]:
    """Return the contrasts' estimates; their verdicts come from `decide`, over all questions.

    Raises UsageError naming a cell and a task that lacks runs.
    """
    contrasts = [_answer(question, contrast, finals) for contrast in question.contrasts]
    return [*contrasts, *(_correlation(question, each, finals) for each in question.correlations)]


def _correlation(question: Question, asked: Correlation, finals: Finals) -> Answer:
    names = [*question.cells, NONE, FULL_RESET]
    seeds = {task: _common(question, names, task, finals) for task in (*asked.x, *asked.y)}
    x, y = (
        [
            _statistic(name, replace(cell, tasks=tasks), "gap", seeds, finals)
            for name, cell in question.cells.items()
        ]
        for tasks in (asked.x, asked.y)
    )
    estimate, p_value = correlate(x, y, f"{question.name} {asked.name}")
    return Answer(asked, estimate, min(map(len, seeds.values())), p_value)


def _answer(question: Question, contrast: Contrast, finals: Finals) -> Answer:
    tasks = list(
        dict.fromkeys(task for name in contrast.weights for task in question.cells[name].tasks)
    )
    seeds = {task: _seeds(question, contrast, task, finals) for task in tasks}
    parts = {
        name: _statistic(name, question.cells[name], contrast.unit, seeds, finals)
        for name in contrast.weights
    }

    def summed(of: Callable[[Statistic], Sequence[Array]]) -> tuple[Array, ...]:
        total = {task: np.zeros(len(seeds[task])) for task in tasks}
        for name, weight in contrast.weights.items():
            for task, influence in zip(question.cells[name].tasks, of(parts[name]), strict=True):
                total[task] = total[task] + weight * influence
        return tuple(total.values())

    value = sum(weight * parts[name].value for name, weight in contrast.weights.items())
    known = all(part.plain for part in parts.values())
    plain = summed(lambda part: part.plain) if known else ()
    total = Statistic(value, summed(lambda part: part.influences), plain)
    return judge(contrast, total, min(map(len, seeds.values())))


def by_task(question: Question, contrast: Contrast, finals: Finals) -> dict[str, Estimate]:
    """Return a contrast's estimate on each of its tasks alone: to be read, not tested.

    Empty where there is one task, or where the cells' tasks differ.
    """
    tasks = question.cells[next(iter(contrast.weights))].tasks
    if len(tasks) < 2 or any(question.cells[n].tasks != tasks for n in contrast.weights):
        return {}
    alone = {
        task: {n: replace(question.cells[n], tasks=(task,)) for n in contrast.weights}
        for task in tasks
    }
    return {
        task: _answer(replace(question, cells=cells), contrast, finals).estimate
        for task, cells in alone.items()
    }


def _seeds(question: Question, contrast: Contrast, task: str, finals: Finals) -> list[int]:
    """Return the seeds that all of a contrast's cells have on a task, and the anchors if needed."""
    names = [name for name in contrast.weights if task in question.cells[name].tasks]
    names += [NONE, FULL_RESET] if contrast.unit == "gap" else []
    return _common(question, names, task, finals)


def _common(question: Question, names: Sequence[str], task: str, finals: Finals) -> list[int]:
    common: set[int] | None = None
    for name in names:
        have = set(finals.get(name, {}).get(task, {}))
        common = have if common is None else common & have
        if not common:
            raise UsageError(f"{question.name}: '{name}' has no runs on {task} yet; run them.")
    return sorted(common or ())


def _statistic(
    name: str, cell: Cell, unit: str, seeds: Mapping[str, Sequence[int]], finals: Finals
) -> Statistic:
    def values(of: str, task: str) -> Array:
        return np.array([finals[of][task][seed] for seed in seeds[task]])

    own = [values(name, task) for task in cell.tasks]
    if unit == "metric":
        return mean_of([of_interquartile_mean(x) for x in own])
    warm, fresh = ([values(anchor, task) for task in cell.tasks] for anchor in (NONE, FULL_RESET))
    return of_gap_closed(own, warm, fresh)
