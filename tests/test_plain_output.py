"""What goes into a file or a pipe is plain text that fits 80 columns where it is prose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.mark.parametrize("command", ["list", "compare"])
def test_no_colour_codes_outside_a_terminal(
    command: str, call: Call, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    answer = call(command, *([runs] if command == "compare" else []))
    assert answer.code == 0 and answer.out
    assert "\x1b" not in answer.out + answer.error
    if command == "list":
        assert max(map(len, answer.out.splitlines())) <= 80


def test_a_program_can_read_stdout(call: Call, runs: Path, tmp_path: Path) -> None:
    """Remarks go to stderr, so that stdout is the answer alone."""
    answer = call("compare", runs, "--format", "json", "--figures", tmp_path / "figures")
    assert json.loads(answer.out)
    assert "Figures: " in answer.error
