"""The open questions and their answers, ready for a terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.ranking.claims import Answer, Contrast, Correlation, decide
from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.questions import (
    Question,
    Runs,
    answer,
    by_task,
    read_answers,
    read_questions,
)
from ht_bench.views.text import format_estimate

IN_WORDS = {"yes": "yes", "no": "no", "open": "not decided"}


@dataclass(frozen=True)
class Told:
    """A question with its answers, or why there are none yet.

    command: what runs it. by_task: of each contrast over several tasks, its effect on each.
    """

    question: Question
    answers: Sequence[Answer]
    lacks: str
    command: str
    runs: Runs | None = None
    by_task: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Return the answer in a word: of its first contrast, which is the question's own."""
        return IN_WORDS[self.answers[0].verdict] if self.answers else "not run"

    @property
    def counted(self) -> str:
        """Count the verdicts of a question that makes several claims; "" for one."""
        if len(self.answers) < 2:
            return ""
        found = [one.verdict for one in self.answers]
        parts = [f"{found.count(key)} {word}" for key, word in IN_WORDS.items() if key in found]
        return f"to its first claim; of {len(found)}: {', '.join(parts)}"


def tell(folder: Path, runs: Mapping[str, Runs] | None = None) -> list[Told]:
    """Return every question of a folder with its answers.

    runs: by question's name; the committed ones if left out. Runs of a question that was written
    otherwise since do not count. The verdicts' family-wise error is over all that were answered.
    """
    found = read_answers(folder) if runs is None else runs
    questions = read_questions(folder)
    answers: dict[str, list[Answer]] = {}
    lacks: dict[str, str] = {}
    for name, question in questions.items():
        own = found.get(name)
        if own is None or not own.finals:
            lacks[name] = "not run yet"
        elif own.sha256 != question.sha256:
            lacks[name] = "the question was written otherwise when its runs were collected"
        else:
            try:
                answers[name] = answer(question, own.finals)
            except UsageError as error:
                lacks[name] = str(error)
    decided = iter(decide([one for several in answers.values() for one in several]))
    judged = {name: [next(decided) for _ in several] for name, several in answers.items()}
    return [
        Told(
            question,
            judged.get(name, []),
            lacks.get(name, ""),
            f"ht-bench questions {folder} --name {name} --run"
            + (" --device cuda" if question.needs == "cuda" else ""),
            found.get(name),
            _by_task(question, found[name]) if name in answers else {},
        )
        for name, question in questions.items()
    ]


def _by_task(question: Question, runs: Runs) -> dict[str, dict[str, Estimate]]:
    each = {one.name: by_task(question, one, runs.finals) for one in question.contrasts}
    return {name: tasks for name, tasks in each.items() if tasks}


def effect(found: Answer) -> str:
    """Write an answer's estimate in the unit that it is worth."""
    return _in_unit(found.estimate, found.contrast)


def is_correlation(found: Answer) -> bool:
    """Whether an answer is a correlation over methods."""
    return isinstance(found.contrast, Correlation)


def claim(found: Answer) -> str:
    """Say what the hypothesis claims of an answer's number, which a verdict affirms or denies."""
    wanted = found.contrast.wanted
    return f"within {found.contrast.margin:g} of zero" if wanted == "zero" else f"{wanted} zero"


def effects_by_task(one: Told, found: Answer) -> list[tuple[str, str]]:
    """Write an answer's effect on each task alone, none where there is one task."""
    tasks = one.by_task.get(found.contrast.name, {})
    return [(task, _in_unit(value, found.contrast)) for task, value in tasks.items()]


def _in_unit(value: Estimate, contrast: Contrast | Correlation) -> str:
    returns = abs(value.value) >= 5
    return format_estimate(value, 2 if contrast.unit == "gap" else 1 if returns else 3)


def to_text(told: Sequence[Told], details: bool = False) -> str:
    """Return lines for a terminal. details: with each task's effect, and the cells' means."""
    blocks = []
    for one in told:
        lines = [f"{one.question.name}: {one.question.title}", f"  {one.question.hypothesis}"]
        if one.lacks:
            lines.append(f"  {one.lacks}; {one.command}")
        for found in one.answers:
            count = f"{len(one.question.cells)} methods, " if is_correlation(found) else ""
            numbers = f"{found.contrast.unit}, {count}n = {found.n}, p = {found.shown:.2g}"
            verdict = f"{claim(found)}: {IN_WORDS[found.verdict]}"
            lines.append(f"  {found.contrast.name}: {effect(found)} ({numbers}); {verdict}")
            if details:
                lines += [f"    {task}: {value}" for task, value in effects_by_task(one, found)]
        if details and one.answers:
            lines += _means(one)
        if one.question.afterwards:
            lines.append(f"  Afterwards: {one.question.afterwards}")
        blocks.append("\n".join(lines))
    legend = (
        "Weighted sums of cells [95 % interval], paired by seed; verdicts at 5 % for any error "
        "among all contrasts of all answered questions (Holm)."
    )
    return "\n\n".join([*blocks, legend]) + "\n"


def _means(one: Told) -> list[str]:
    """Return a line a cell and task: what its runs ended at, mean over seeds."""
    assert one.runs is not None
    return [
        f"    {cell}, {task}: {np.mean(list(seeds.values())):.4f} (n = {len(seeds)})"
        for cell, tasks in one.runs.finals.items()
        for task, seeds in tasks.items()
    ]
