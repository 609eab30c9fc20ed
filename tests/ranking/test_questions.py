"""Contrasts and correlations against SciPy and by hand; files that cannot be questions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ht_bench.errors import UsageError
from ht_bench.ranking.claims import Contrast, decide, judge
from ht_bench.ranking.correlation import correlate
from ht_bench.ranking.influence import of_interquartile_mean
from ht_bench.ranking.questions import (
    answer,
    by_task,
    read_answers,
    read_question,
    read_questions,
)

SHIPPED = Path(__file__).parent.parent.parent / "docs" / "questions"
HEAD = """
name = "q"
title = "?"
hypothesis = "a ends above b"
written = "2026-01-01"
stopping = "all seeds"

[cells.a]
method = "ema"
tasks = ["one", "two"]

[cells.b]
method = "l2"
tasks = ["one", "two"]
"""
CONTRAST = '\n[[contrasts]]\nname = "a over b"\nweights = { a = 1, b = -1 }\n'


@pytest.fixture
def write(tmp_path: Path):
    def write(more: str = CONTRAST, head: str = HEAD, name: str = "q.toml") -> Path:
        path = tmp_path / name
        path.write_text(head + more, encoding="utf-8")
        return path

    return write


def values(n: int, center: float, key: int, size: float = 0.01) -> dict[int, float]:
    drawn = center + size * np.random.default_rng(key).normal(size=n)
    return {100 + k: float(x) for k, x in enumerate(drawn)}


def finals(a: float = 0.92, b: float = 0.9, n: int = 12) -> dict:
    tables = {}
    for place, (cell, center) in enumerate(
        {"a": a, "b": b, "none": 0.85, "full-reset": 0.95}.items()
    ):
        tables[cell] = {
            task: values(n, center, 7 * place + k) for k, task in enumerate(("one", "two"))
        }
    return tables


def test_a_contrast_is_paired_by_seed_and_averaged_over_tasks(write) -> None:
    question, runs = read_question(write()), finals()
    [found] = answer(question, runs)
    wanted, variance, parts = 0.0, 0.0, []
    for task in ("one", "two"):
        a, b = (np.array([*runs[cell][task].values()]) for cell in "ab")
        wanted += (stats.trim_mean(a, 0.25) - stats.trim_mean(b, 0.25)) / 2
        clip = [np.clip(x, *np.sort(x)[[3, 8]]) / 6 / 2 for x in (a, b)]
        parts.append(12 * (clip[0] - clip[1]).var(ddof=1))
    variance = sum(parts)
    assert found.estimate.value == pytest.approx(wanted)
    freedom = variance**2 / sum(part**2 / 5 for part in parts)
    t = wanted / math.sqrt(variance)
    assert found.p_value == pytest.approx(2 * stats.t.sf(t, freedom))
    assert found.n == 12


def test_a_middle_half_that_agrees_by_chance_is_not_sure(write) -> None:
    """As in tables: at least half of the variance that a plain mean of the differences has."""
    question = read_question(write(head=HEAD.replace(', "two"', "")))
    apart = np.array([-0.1] * 3 + [0.009, 0.0095, 0.01, 0.01, 0.0105, 0.011] + [0.1] * 3)
    runs = {
        cell: {"one": {100 + k: float(x) for k, x in enumerate(series)}}
        for cell, series in {"a": 0.8 + apart, "b": np.full(12, 0.8)}.items()
    }
    [found] = answer(question, runs)
    width = stats.t.ppf(0.975, 10) * math.sqrt(0.5 * apart.var(ddof=1) / 12)
    assert found.estimate.value == pytest.approx(0.01)
    assert found.estimate.high - found.estimate.value == pytest.approx(width)
    assert found.p_value > 0.05
    equal = read_question(
        write(CONTRAST + 'wanted = "zero"\nmargin = 0.02\n', head=HEAD.replace(', "two"', ""))
    )
    assert answer(equal, runs)[0].p_value > 0.1  # nor is equality, on either side


def test_each_tasks_effect_is_that_of_the_task_alone(write) -> None:
    question, runs = read_question(write()), finals()
    [contrast] = question.contrasts
    alone = by_task(question, contrast, runs)
    for task in ("one", "two"):
        a, b = (np.array([*runs[cell][task].values()]) for cell in "ab")
        wanted = stats.trim_mean(a, 0.25) - stats.trim_mean(b, 0.25)
        assert alone[task].value == pytest.approx(wanted)
    other = HEAD.replace('method = "l2"\ntasks = ["one", "two"]', 'method = "l2"\ntasks = ["one"]')
    differ = read_question(write(head=other))
    assert by_task(differ, contrast, runs) == {}
    single = read_question(write(head=HEAD.replace(', "two"', "")))
    assert by_task(single, contrast, runs) == {}


def test_gap_closed_needs_the_anchors(write) -> None:
    path = write('\n[[contrasts]]\nname = "x"\nweights = { a = 1 }\nunit = "gap"\n')
    question, runs = read_question(path), finals()
    assert question.anchored() == ["one", "two"]
    [found] = answer(question, runs)
    assert 0.6 < found.estimate.value < 0.8
    del runs["none"]
    with pytest.raises(UsageError, match="'none' has no runs on one yet"):
        answer(question, runs)


def test_only_common_seeds_count(write) -> None:
    runs = finals()
    del runs["a"]["one"][100], runs["b"]["one"][101]
    [found] = answer(read_question(write()), runs)
    assert found.n == 10


@pytest.mark.parametrize(
    ("a", "wanted", "verdict"),
    [
        (0.95, "above", "yes"),
        (0.95, "below", "no"),
        (0.901, "above", "open"),
        (0.9, "zero", "yes"),
        (0.95, "zero", "no"),
        (0.91, "zero", "open"),  # surely above zero, and perhaps within the margin
    ],
)
def test_verdicts(write, a: float, wanted: str, verdict: str) -> None:
    path = write(CONTRAST + f'wanted = "{wanted}"\nmargin = 0.015\n')
    [found] = decide(answer(read_question(path), finals(a=a, b=0.9)))
    assert found.verdict == verdict


def test_a_claim_of_equality_is_held_to_its_margin(write) -> None:
    """Its yes is in Holm's family too: within the interval alone is not sure among a hundred."""
    path = write(CONTRAST + 'wanted = "zero"\nmargin = 0.015\n')
    [near] = answer(read_question(path), finals(a=0.91, b=0.9))
    assert near.estimate.low > 0 and near.against == 1.0 and near.p_value > 0.001
    [equal] = answer(read_question(path), finals(a=0.902, b=0.9))
    assert -0.015 < equal.estimate.low < equal.estimate.high < 0.015
    assert equal.p_value < 0.025 and decide([equal])[0].verdict == "yes"
    assert {each.verdict for each in decide([equal] * 1000)} == {"open"}
    [far] = decide(answer(read_question(path), finals(a=0.95, b=0.9)))
    assert far.shown == far.against and far.against < 0.001 and far.p_value > 0.5


def test_equality_is_rarely_claimed_of_what_lies_at_the_margin() -> None:
    draw = np.random.default_rng(3)
    wanted = Contrast("x", {"a": 1.0}, wanted="zero", margin=0.5)
    verdicts = []
    for _ in range(400):
        runs = of_interquartile_mean(0.5 + draw.normal(size=20) * 0.3)
        verdicts += [each.verdict for each in decide([judge(wanted, runs, 20)])]
    assert verdicts.count("yes") <= 0.05 * 400 and verdicts.count("no") <= 0.05 * 400


def test_the_error_is_over_all_contrasts(write) -> None:
    """What is sure alone need not be among a hundred."""
    [found] = answer(read_question(write()), finals(a=0.907))
    assert 0.0005 < found.p_value < 0.05
    assert decide([found])[0].verdict == "yes"
    assert {each.verdict for each in decide([found] * 100)} == {"open"}


def test_a_correlation_is_spearmans_and_its_interval_holds_both_levels() -> None:
    draw = np.random.default_rng(0)
    skill = np.linspace(0, 1, 12)
    noise = 0.05 * draw.normal(size=(2, 12, 10))
    x = [of_interquartile_mean(s + e) for s, e in zip(skill, noise[0], strict=True)]
    y = [of_interquartile_mean(s**2 + e) for s, e in zip(skill, noise[1], strict=True)]
    estimate, p_value = correlate(x, y, "q")
    wanted = stats.spearmanr([s.value for s in x], [s.value for s in y]).statistic
    assert estimate.value == pytest.approx(wanted)
    assert estimate.low < wanted <= estimate.high <= 1 and p_value < 0.01
    unrelated, p = correlate(x, [y[k] for k in draw.permutation(12)], "q")
    assert unrelated.low < 0 < unrelated.high and p > 0.05
    assert correlate(x, y, "q") == (estimate, p_value)
    few, p = correlate(x[:2], y[:2], "q")
    assert (few.low, few.high, p) == (-1, 1, 1)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('\n[[contrasts]]\nname = "x"\nweights = { c = 1 }\n', "weighs 'c', which is no cell"),
        ('\n[[contrasts]]\nname = "x"\nweights = {}\n', "weighs nothing"),
        (CONTRAST + 'wanted = "zero"\n', "claims zero without a margin"),
        (
            '[[correlations]]\nname = "r"\nx = ["one"]\ny = ["two"]\nwanted = "zero"\n',
            "a correlation is zero, which is not tested",
        ),
        (CONTRAST + 'unit = "points"\n', "must be one of 'gap', 'metric'"),
        ('\n[[correlations]]\nname = "x"\nx = ["one"]\ny = ["three"]\n', "lacks three"),
        ("", "has no \\[\\[contrasts\\]\\]"),
        (CONTRAST + "\n[answers]\nx = 1\n", "unknown key"),
    ],
)
def test_what_is_no_question_is_refused(write, more: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        read_question(write(more))
    assert "q.toml" in str(caught.value)


def test_the_shipped_questions_are_questions_and_were_written_down() -> None:
    questions = read_questions(SHIPPED)
    assert len(questions) == len(list(SHIPPED.glob("*.toml"))) >= 8
    for name, question in questions.items():
        assert name.startswith("q") and question.written and question.stopping
        for contrast in question.contrasts:
            if contrast.unit == "metric" and len(contrast.weights) > 1:
                assert sum(contrast.weights.values()) == pytest.approx(0)


def test_answers_that_are_none_are_refused(tmp_path: Path) -> None:
    assert read_answers(tmp_path) == {}
    for content in ('{"q": {"finals": 3}}', "[]", '{"q": {}}'):
        (tmp_path / "answers.json").write_text(content)
        with pytest.raises(UsageError, match="answers.json"):
            read_answers(tmp_path)
    (tmp_path / "answers.json").write_text(json.dumps({}))
    assert read_answers(tmp_path) == {}
