"""The open questions and their answers, ready for a terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.ranking.questions import (
    Answer,
    Question,
    Runs,
    answer,
    decide,
    read_answers,
    read_questions,
)
from ht_bench.views.text import format_estimate

IN_WORDS = {"yes": "yes", "no": "no", "open": "not decided"}


@dataclass(frozen=True)
class Told:
    """A question with its answers, or why there are none yet. command: what runs it."""

    question: Question
    answers: Sequence[Answer]
    lacks: str
    command: str
    runs: Runs | None = None

    @property
    def verdict(self) -> str:
        """Return the answer in a word: of its first contrast, which is the question's own."""
        return IN_WORDS[self.answers[0].verdict] if self.answers else "not run"


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
        )
        for name, question in questions.items()
    ]


def effect(found: Answer) -> str:
    """Write an answer's estimate in the unit that it is worth."""
    returns = abs(found.estimate.value) >= 5
    decimals = 2 if found.contrast.unit == "gap" else 1 if returns else 3
    return format_estimate(found.estimate, decimals)


def to_text(told: Sequence[Told]) -> str:
    """Return lines for a terminal."""
    blocks = []
    for one in told:
        lines = [f"{one.question.name}: {one.question.title}", f"  {one.question.hypothesis}"]
        if one.lacks:
            lines.append(f"  {one.lacks}; {one.command}")
        for found in one.answers:
            numbers = f"{found.contrast.unit}, n = {found.n}, p = {found.p_value:.2g}"
            verdict = IN_WORDS[found.verdict]
            lines.append(f"  {found.contrast.name}: {effect(found)} ({numbers}): {verdict}")
        blocks.append("\n".join(lines))
    legend = (
        "Weighted sums of cells [95 % interval], paired by seed; verdicts at 5 % for any error "
        "among all contrasts of all answered questions (Holm)."
    )
    return "\n\n".join([*blocks, legend]) + "\n"
