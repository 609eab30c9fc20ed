"""`ht-bench check`: sound methods and tasks pass, a fault is a sentence with exit code 1."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
METHOD = """
    import ht_bench

    class Halving(ht_bench.Method):
        factor: float = 0.5

        def {hook}(self, index):
            for parameter in self.module.parameters():
                parameter.mul_(self.factor)
"""


@pytest.fixture
def method(tmp_path: Path) -> Callable[[str], str]:
    def write(hook: str) -> str:
        path = tmp_path / f"{hook}.py"
        path.write_text(textwrap.dedent(METHOD.format(hook=hook)), encoding="utf-8")
        return f"{path}:Halving"

    return write


def test_sound_ones_pass(call: Call, method: Any, write_task: Any) -> None:
    mine, task = method("on_phase"), write_task()
    answer = call("check", "--method", f"{mine},none", "--task", task)
    assert (answer.code, answer.error) == (0, "")
    assert answer.out.splitlines() == [
        f"{mine} keeps the contract of a method.",
        "none keeps the contract of a method.",
        f"{task} can be run.",
    ]


def test_a_fault_is_a_sentence_and_the_others_are_checked(call: Call, method: Any) -> None:
    wrong = method("on_phase_start")
    answer = call("check", "--method", f"{wrong},none")
    assert answer.code == 1
    assert answer.error.startswith(
        f"{wrong}: Halving.on_phase_start is no hook, and no loop calls it."
    )
    assert answer.out == "none keeps the contract of a method.\n"


def test_what_cannot_be_checked(call: Call, tmp_path: Path) -> None:
    assert "Name what to check" in call("check").error
    answer = call("check", "--method", "nonne")
    assert answer.code == 2 and "Did you mean 'none'?" in answer.error
    broken = tmp_path / "broken.py"
    broken.write_text("class", encoding="utf-8")
    answer = call("check", "--method", f"{broken}:Mine")
    assert answer.code == 2 and "SyntaxError" in answer.error and "line 1" in answer.error
