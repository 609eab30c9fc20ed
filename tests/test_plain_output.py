"""What goes into a file or a pipe is plain text that fits 80 columns where it is prose."""

from __future__ import annotations

import io
import json
import sys
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


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_without_box_characters_is_served(
    encoding: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ht_bench.cli import main

    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["compare", str(runs), "--details"]) == 0
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--help"])
    shown = screen.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "---" in shown and "Rank the methods" in shown and "?" not in shown.split("usage")[0]
