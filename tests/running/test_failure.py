"""Why a stack failed: its sentence, its places, its causes, here and out of a worker."""

import pickle
from pathlib import Path

import pytest
import torch

import ht_bench
from ht_bench.methods.resolve import resolve
from ht_bench.running.evaluate import Stopped
from ht_bench.running.failure import Failure, chain, failure, in_words
from ht_bench.running.job import StackJob
from ht_bench.streams.task import Task, load_task
from ht_bench.training.history import Interrupted

BUG = """\
import ht_bench, torch
class Odd(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")
class Buggy(ht_bench.Method):
    def after_step(self):
        try:
            torch.zeros(2) @ torch.zeros(3)  # inner
        except RuntimeError as error:
            raise Odd("this", "that") from error  # outer
"""


@pytest.fixture
def method_file(tmp_path: Path) -> Path:
    path = tmp_path / "buggy.py"
    path.write_text(BUG, encoding="utf-8")
    return path


@pytest.fixture
def task(write_task: object) -> Task:
    return load_task(write_task(stack=("stack = 4", "stack = 1")))  # type: ignore[operator]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_chain_of_causes_reaches_the_caller(task: Task, method_file: Path, jobs: int) -> None:
    """From workers too, where the exception's class cannot be made again from its text."""
    with pytest.raises(ht_bench.UsageError) as raised:
        ht_bench.evaluate(f"{method_file}:Buggy", task, (0, 1), jobs=jobs, progress=False)
    lines = BUG.splitlines()
    outer, inner = (
        next(n for n, line in enumerate(lines, 1) if line.endswith(mark))
        for mark in ("# outer", "# inner")
    )
    sentence = str(raised.value)
    assert f"Odd: this and that ({method_file}, line {outer})" in sentence
    assert "caused by RuntimeError" in sentence and f"({method_file}, line {inner})" in sentence
    causes = list(chain(raised.value))[1:]
    assert "this and that" in str(causes[0]) and isinstance(causes[1], RuntimeError)
    if jobs == 2:
        assert "in after_step" in causes[0].__notes__[0]


def test_a_method_that_cannot_be_made_is_a_sentence(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "unmade.py"
    path.write_text(
        "import dataclasses\nimport ht_bench\n@dataclasses.dataclass(eq=False)\n"
        "class Unmade(ht_bench.Method):\n"
        "    def __post_init__(self):\n        raise KeyError('lost')\n"
    )
    with pytest.raises(ht_bench.UsageError, match=r"KeyError: 'lost' .*unmade.py, line 6"):
        ht_bench.evaluate(f"{path}:Unmade", task, (0,), progress=False)


def test_a_failure_is_its_sentence_pickled_too() -> None:
    try:
        try:
            raise ValueError("first")
        except ValueError:
            raise OSError(28, "second")  # noqa: B904  # its context counts as well
    except OSError as error:
        made = Failure("It failed.", error)
    again = pickle.loads(pickle.dumps(made))
    assert again == made == "It failed."
    assert [str(link) for link in chain(again.cause)] == ["[Errno 28] second", "first"]
    assert in_words(made.cause or OSError()).count(f"({__file__}, line ") == 2


def test_no_except_exception_takes_an_interruption() -> None:
    for kind in (Stopped, Interrupted):
        assert not issubclass(kind, Exception)
    assert issubclass(Stopped, KeyboardInterrupt)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 4 GB"),
    ],
)
def test_memory_that_ran_out_is_not_called_the_methods_fault(error: Exception, task: Task) -> None:
    said = failure(StackJob(task, resolve("none"), (100,)), error)
    assert "needs more memory than this machine gives" in said and "failed" not in said
    assert said.cause is error
