"""A question's runs: made once, collected, answered on the terminal and on the page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from ht_bench.cli import main
from ht_bench.ranking.claims import Answer, decide
from ht_bench.views.answers import tell, to_text

ROOT = Path(__file__).parents[2]

TASK = (
    'name = "tiny"\nfamily = "warm-start"\nseeds = "100-105"\n'
    'data = {name = "digits", train = 100}\nnet = {name = "mlp", hidden = [16]}\n'
    "optimizer = {lr = 1e-2}\ntraining = {batch = 32, points = 2, stack = 6}\n"
    "phases = [{new = 0.5, wrong = 0.5, updates = 20}, {new = 0.5, updates = 20}]\n"
)
QUESTION = """
name = "q-tiny"
title = "Is a broken network worse? <b>"
hypothesis = "Zeroed weights end lower."
written = "2026-01-01"
stopping = "All seeds."

[cells.broken]
method = "mine.py:Broken"
tasks = ["tiny.toml"]

[cells.plain]
method = "none"
tasks = ["tiny.toml"]

[[contrasts]]
name = "plain over broken"
weights = { plain = 1, broken = -1 }
"""
BROKEN = """\
import ht_bench

class Broken(ht_bench.Method):
    def after_step(self):
        for parameter in self.module.parameters():
            parameter.zero_()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "questions"
    folder.mkdir()
    (tmp_path / "tiny.toml").write_text(TASK, encoding="utf-8")
    (folder / "mine.py").write_text(BROKEN, encoding="utf-8")
    (folder / "q.toml").write_text(QUESTION.replace("tiny.toml", "../tiny.toml"), encoding="utf-8")
    return folder


def test_a_question_is_run_once_written_and_answered(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["questions", str(folder)]) == 0
    assert "not run yet; ht-bench questions" in capsys.readouterr().out
    words = ["questions", str(folder), "--out", str(tmp_path / "runs"), "--jobs", "1"]
    assert main([*words, "--run", "--write"]) == 0
    printed = capsys.readouterr()
    assert "12 runs, 0 finished already" in printed.err
    assert "plain over broken: 0." in printed.out and printed.out.count("; above zero: yes") == 1
    assert main([*words, "--run"]) == 0
    assert "nothing is left to train" in capsys.readouterr().err
    assert main(["questions", str(folder)]) == 0  # from the committed answers
    assert "; above zero: yes" in capsys.readouterr().out
    _stand_on_the_page(folder, tmp_path / "site")
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    assert set(answers["q-tiny"]["finals"]) == {"broken", "plain"}
    assert len(answers["q-tiny"]["finals"]["plain"]["../tiny.toml"]) == 6


def test_verdicts_of_one_question_are_held_to_the_error_over_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["questions", str(folder), "--out", str(tmp_path / "runs"), "--jobs", "1"]
    assert main([*words, "--run", "--write"]) == 0
    text = (folder / "q.toml").read_text(encoding="utf-8").replace("q-tiny", "q-other")
    (folder / "r.toml").write_text(text, encoding="utf-8")
    judged: list[int] = []

    def counted(found: Sequence[Answer]) -> list[Answer]:
        judged.append(len(found))
        return decide(found)

    monkeypatch.setattr("ht_bench.views.answers.decide", counted)
    assert main([*words, "--run", "--write", "--name", "q-other"]) == 0
    assert main(["questions", str(folder), "--name", "q-other"]) == 0
    assert judged == [2, 2]


def _page(folder: Path, site: Path) -> str:
    """Return the first page of a small board with these questions."""
    board = Path(__file__).parents[2] / "leaderboard"
    submissions = board.parent / "leaderboard" / "submissions" / "0.1"
    own = site.with_name("board")
    (own / "submissions").mkdir(parents=True)
    for name in ("none", "full-reset"):
        shutil.copy(submissions / f"{name}.json", own / "submissions")
    shutil.copy(board / "verified.json", own)
    assert main(["page", str(own), "--out", str(site), "--questions", str(folder)]) == 0
    return (site / "index.html").read_text(encoding="utf-8")


def _stand_on_the_page(folder: Path, site: Path) -> None:
    """Above the ranking: the question, its answer, the effect and the command."""
    page = _page(folder, site)
    own = site.with_name("board")
    [section] = re.findall(r"(?s)<section class=.questions.*?</section>", page)
    assert "<b>yes</b></td>" in section and "plain over broken: 0." in section
    assert ", claimed to be above zero" in section
    assert f"ht-bench questions {folder}" in section
    assert page.index("What is known") < page.index("Who is ahead")
    assert main(["page", str(own), "--out", str(site), "--questions", "nowhere"]) == 0
    assert "What is known" not in (site / "index.html").read_text(encoding="utf-8")


def test_an_answer_in_a_word_is_of_the_first_claim_and_says_so(tmp_path: Path) -> None:
    told = {one.question.name: one for one in tell(ROOT / "docs" / "questions")}
    assert told["q1-return"].verdict == "yes"
    assert told["q1-return"].counted == "to its first claim; of 3: 2 yes, 1 not decided"
    assert told["q3-trainability"].counted == ""
    page = _page(ROOT / "docs" / "questions", tmp_path / "site")
    assert "<b>yes</b> <small>to its first claim; of 3: 2 yes, 1 not decided</small>" in page


def test_an_answer_to_another_question_does_not_count(folder: Path, tmp_path: Path) -> None:
    words = ["questions", str(folder), "--out", str(tmp_path / "runs"), "--jobs", "1"]
    assert main([*words, "--run", "--write"]) == 0
    text = (folder / "q.toml").read_text(encoding="utf-8")
    (folder / "q.toml").write_text(text.replace("end lower", "end higher"), encoding="utf-8")
    [told] = tell(folder)
    assert told.verdict == "not run" and "written otherwise" in told.lacks
    assert "written otherwise" in to_text([told])


def test_wrong_words_are_a_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["questions", str(tmp_path / "nowhere")]) == 2
    assert main(["questions", str(folder), "--run", "--name", "q-tinny"]) == 2
    said = capsys.readouterr().err
    assert "is no folder of questions" in said and "Did you mean 'q-tiny'" in said
    assert main(["questions", str(folder), "--name", "q-tinny"]) == 2


TWO_TASKS = QUESTION.replace('tasks = ["tiny.toml"]', 'tasks = ["../tiny.toml", "../other.toml"]')


def test_each_tasks_effect_and_a_remark_of_afterwards(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.toml").write_text(TASK.replace('"tiny"', '"other"'), encoding="utf-8")
    (folder / "q.toml").write_text(TWO_TASKS, encoding="utf-8")
    words = ["questions", str(folder), "--out", str(tmp_path / "runs"), "--jobs", "1"]
    assert main([*words, "--run", "--write"]) == 0
    assert "../other.toml" not in capsys.readouterr().out
    remark = 'stopping = "All seeds."\nafterwards = "Seen <i>since</i>."'
    text = TWO_TASKS.replace('stopping = "All seeds."', remark)
    (folder / "q.toml").write_text(text, encoding="utf-8")
    assert main(["questions", str(folder), "--details"]) == 0
    printed = capsys.readouterr().out
    assert "; above zero: yes" in printed and "  Afterwards: Seen <i>since</i>." in printed
    [told] = tell(folder)
    alone = told.by_task["plain over broken"]
    assert list(alone) == ["../tiny.toml", "../other.toml"]
    assert told.answers[0].estimate.value == pytest.approx(
        sum(estimate.value for estimate in alone.values()) / 2
    )
    for task, estimate in alone.items():
        assert f"    {task}: {estimate.value:.3f} [" in printed
    assert re.search(r"    plain, \.\./other\.toml: 0\.\d{4} \(n = 6\)", printed)
    page = _page(folder, tmp_path / "site")
    assert "Afterwards: Seen &lt;i&gt;since&lt;/i&gt;." in page
    assert all(f">{task}</td>" in page for task in alone)
