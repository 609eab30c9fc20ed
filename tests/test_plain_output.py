"""What goes into a file or a pipe is plain text that fits 80 columns where it is prose."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ht_bench.cli import COMMANDS, main
from ht_bench.errors import warn_in_sentences

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
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["compare", str(runs), "--details"]) == 0
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--help"])
    shown = screen.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "---" in shown and "Rank the methods" in shown and "?" not in shown.split("usage")[0]


class Screen(io.TextIOWrapper):
    """A terminal of an encoding that keeps what was shown."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    def text(self) -> str:
        return self.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_plain_on_any_terminal(
    command: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"] if command else ["--help"])
    assert "usage: ht-bench" in screen.text() and "--help" in screen.text()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "--task", "wärm", "--method", "none"),
        ("data", "import", "mnist", "nöwhere→"),
        ("data", "fetch", "ünknown"),
        ("list", "täsks"),
        ("compare", "∞"),
        ("nö",),
    ],
)
def test_errors_are_plain_on_any_terminal(
    words: tuple[str, ...], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, errors = Screen(encoding), Screen(encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", errors)
    try:
        code: Any = main(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert (screen.text() + errors.text()).strip()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_progress_is_plain_on_any_terminal(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bars of training and of decoding images."""
    import numpy as np

    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in range(10):
            file = tmp_path / part / str(name) / "0.png"
            file.parent.mkdir(parents=True)
            Image.fromarray(draw.integers(0, 256, (28, 28), dtype=np.uint8)).save(file)
    errors = Screen(encoding)
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["data", "import", "mnist", str(tmp_path)]) == 2
    assert "decoding mnist" in errors.text() and "not the whole mnist" in errors.text()


def test_a_warning_for_a_user_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    warn_in_sentences()
    assert warnings.formatwarning("Mind this.", UserWarning, "x.py", 3) == "Warning: Mind this.\n"
    assert "x.py:3" in warnings.formatwarning("old", DeprecationWarning, "x.py", 3)


def test_a_suite_is_not_released_without_a_title(call: Any, runs: Any) -> None:
    words = ("freeze", "--suite", "suite-a-v1", "--task", "a-v1", "--title", " ", "--runs", runs)
    answer = call(*words)
    assert answer.code == 2 and "Say what the suite scores" in answer.error
