"""Training a stranger's seeds again: whose code runs, and what its numbers can do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.leaderboard.known import find_known
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.reproduced import disagreements
from ht_bench.running import reruns

Content = dict[str, Any]
Call = Callable[..., Any]
Write = Callable[..., Path]
Verify = Callable[..., Any]
TASK = "quick-digits-v1"
MINE = """\
from pathlib import Path
from dataclasses import dataclass
from ht_bench.methods.early_stop import EarlyStop

Path(__file__).with_suffix(".imported").touch()

@dataclass(eq=False)
class Mine(EarlyStop):
    name = "mine"
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file that leaves a trace when it is imported, and holds the method `mine`."""
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_named_code_is_run_and_its_source_noted(
    call: Call, content: Content, write: Write, mine: Path
) -> None:
    content["method"]["name"] = "mine"
    answer = call("verify", write(content), "--seeds", "107", "--code", mine)
    assert answer.code == 0
    assert answer.out.startswith("early-stop: reproduced\n")
    assert "another source hash" in answer.out and "agree bit for bit" in answer.out


@pytest.mark.parametrize("name", ["mine", "mine.py", "mine.Mine", "os.system", "Mine"])
def test_code_that_was_not_named_is_never_imported(
    name: str,
    call: Call,
    content: Content,
    write: Write,
    mine: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(mine.parent)
    monkeypatch.syspath_prepend(str(mine.parent))
    content["method"]["name"] = name
    answer = call("verify", write(content), "--rerun", 1)
    assert answer.code == 2
    assert f"The package has no method '{name}'" in answer.out and "--code" in answer.out
    assert not mine.with_suffix(".imported").exists() and "mine" not in sys.modules


@pytest.mark.parametrize("name", ["mine.py:Mine", "./mine.py", "os:system", "a/../mine", "~mine"])
def test_references_are_no_names(name: str, content: Content, write: Write, mine: Path) -> None:
    from ht_bench.leaderboard.valid import read_submission

    content["method"]["name"] = name
    submission, [fault] = read_submission(write(content))
    assert submission is None and fault.path == "$.method.name"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("absent.py", "There is no file"),
        ("broken.py", "failed while it was imported"),
        ("mine.py:Absent", "has no 'Absent'"),
        ("mine.py:Path", "is not a subclass"),
        ("unknown", "Unknown method"),
        ("os:system", "Unknown method"),
        ("other.py", "has no method 'mine' (it has: none)"),
    ],
)
def test_code_that_does_not_serve_is_the_verifiers_matter(
    code: str,
    said: str,
    call: Call,
    content: Content,
    write: Write,
    mine: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2, no fault of the submission."""
    monkeypatch.chdir(mine.parent)
    (mine.parent / "broken.py").write_text("1 / 0", encoding="utf-8")
    (mine.parent / "other.py").write_text("x = 1", encoding="utf-8")
    content["method"]["name"] = "mine"
    answer = call("verify", write(content), "--rerun", 1, "--code", code)
    assert answer.code == 2 and said in answer.out


HYPERPARAMETERS: list[tuple[str, dict[str, Any], int, str]] = [
    ("l2", {"strength": 1e308}, 2, "failed"),
    ("l2", {"strength": -1}, 1, "zero or more"),
    ("l2", {"strength": "1"}, 1, "not of type float"),
    ("l2", {"strength": True}, 1, "not of type float"),
    ("l2", {"strength": None}, 1, "not of type float"),
    ("l2", {"strength": [1.0] * 100}, 1, "strength = [1.0, "),
    ("l2", {"strength": "\n" * 300}, 1, "strength = '\\n"),
    ("l2", {"score": 0.9}, 1, "no hyperparameter 'score'"),
    ("l2", {"module": None}, 1, "no hyperparameter 'module'"),
    ("l2", {"a\nb": 1}, 1, "no hyperparameter 'a\\nb'"),
    ("ema", {"decay": 1e308}, 1, "between 0 and 1"),
    ("ema", {"buffers": ["average"]}, 1, "must be 'average' or 'copy'"),
    ("hare-tortoise", {"reset_every": -1}, 1, "1 step or more"),
    ("hare-tortoise", {"reset_every": "9" * 300}, 1, "again: '9999"),
    ("hare-tortoise", {"reset_every": "nan epochs"}, 1, "no interval"),
    ("head-reset", {"layers": 10**18}, 1, "weight layers"),
    ("head-reset", {"layers": -(2**62)}, 1, "weight layers"),
    ("self-distillation", {"temperature": 1e308}, 2, "failed"),
    ("shrink-perturb", {"amount": -0.5}, 1, "between 0 and 1"),
]


@pytest.mark.parametrize(("method", "changes", "code", "said"), HYPERPARAMETERS)
def test_a_strangers_numbers(
    method: str,
    changes: dict[str, Any],
    code: int,
    said: str,
    content: Content,
    table: Content,
    write: Write,
    verify_file: Verify,
) -> None:
    content["method"]["name"] = method
    table["hyperparameters"] = changes
    report = verify_file(write(content), "reproduced", rerun=reruns.Trainer(), seeds=(100,))
    assert (report.level, report.exit_code) == ("consistent", code)
    [sentence] = [*map(str, report.faults), *report.could_not]
    assert said in sentence
    assert sentence.isascii() and sentence.isprintable() and len(sentence) < 700


@pytest.mark.parametrize("threads", [0, -1, 65, 2**62, "8", "x" * 200])
def test_threads_are_bounded(
    threads: Any, content: Content, table: Content, write: Write, verify_file: Verify
) -> None:
    table["software"]["threads"] = threads
    report = verify_file(write(content), "reproduced", rerun=reruns.Trainer(), seeds=(100,))
    assert report.exit_code == 1 and "1 to 64 can be re-run" in report.faults[0].sentence


def test_a_device_that_is_not_here(
    call: Call, content: Content, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    content["device"] = "cuda"
    answer = call("verify", write(content), "--rerun", 1)
    assert answer.code == 2 and "torch sees no CUDA device" in answer.out


def test_a_crash_of_named_code_is_a_sentence(
    content: Content, write: Write, verify_file: Verify, mine: Path
) -> None:
    body = '    def after_step(self):\n        raise KeyError("\\x1b[31m")\n'
    mine.write_text(MINE + body, encoding="utf-8")
    content["method"]["name"] = "mine"
    trainer = reruns.Trainer(code=str(mine))
    report = verify_file(write(content), "reproduced", rerun=trainer, seeds=(100,))
    assert report.exit_code == 2
    assert "Method 'mine' failed: KeyError" in report.could_not[0]
    assert "\x1b" not in report.could_not[0]


def test_a_retention_that_was_touched_up(records: Any, content: Content, table: Content) -> None:
    """On other software the mean retention lies within the tolerance as well."""
    known = find_known(TASK)
    assert not isinstance(known, str)
    table["seeds"]["100"]["retention"] = [0.5, 0.9]
    submission = Submission(content)
    for kept, agree in (([0.5, 0.9], True), ([0.5, 0.93], True), ([0.5, 0.95], False)):
        again = {100: {**records[100], "retention": kept}}
        assert (not [*disagreements(submission, known, again, exact=False)]) is agree
        assert (not [*disagreements(submission, known, again, exact=True)]) is (kept[1] == 0.9)
    again = {100: records[100]}
    assert [*disagreements(submission, known, again, exact=False)]
