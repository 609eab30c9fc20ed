"""`ht-bench doctor`: a sound machine, one check among others, its outputs and exit codes."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ht_bench.doctor import checks, report
from ht_bench.doctor.checks import CHECKS, Check, Examined, examine
from ht_bench.doctor.finding import Finding, fault, note, ok, warning

Call = Callable[..., Any]
Patch = pytest.MonkeyPatch
OF_THE_MACHINE = ("memory", "space", "limits", "GPU", "torch")
"""What a machine that runs the tests may lack."""


def test_a_sound_machine_has_no_fault(tmp_path: Path) -> None:
    """All checks but the trial imports, which take seconds."""
    own = [check for check in CHECKS if check.about != "imports"]
    for each in examine(tmp_path / "runs", checks=own):
        assert each.findings, each.about
        states = {finding.state for finding in each.findings}
        allowed = {"ok", "note", "warning"} if each.about in OF_THE_MACHINE else {"ok", "note"}
        assert states <= allowed, each
    assert list(tmp_path.iterdir()) == []


def used() -> float:
    """Return the seconds that the processes which have ended took of processors."""
    told = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told.ru_utime + told.ru_stime


@pytest.mark.evidence
def test_the_whole_takes_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    """15 seconds of processors' time: other work on the machine does not count."""
    before = used()
    command = [sys.executable, "-m", "ht_bench", "doctor", "--format", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["counts"]["ok"] >= 20
    assert used() - before < 15
    assert list(tmp_path.iterdir()) == []


def test_every_check_is_there_to_be_called() -> None:
    for check in CHECKS:
        assert (checks._function(check.look).__doc__ or "").endswith("."), check
    assert len({check.look for check in CHECKS}) == len(CHECKS)


def broken(out: Path) -> Iterator[Finding]:
    yield ok("So far.")
    raise OSError(5, "Input/output error")


def leaving(out: Path) -> Iterator[Finding]:
    raise SystemExit(3)
    yield ok("Never.")


def sound(out: Path) -> Iterator[Finding]:
    yield warning(f"Looked at {out}.", "rm 'a long name.pt'")
    yield note("By the way.", "ht-bench data fetch mnist")


@pytest.fixture
def planted(monkeypatch: Patch) -> None:
    """Three checks, of which two break."""
    functions = {"a:broken": broken, "a:leaving": leaving, "a:sound": sound}
    monkeypatch.setattr(checks, "_function", functions.__getitem__)
    plan = tuple(Check(name[2:], name, slow=name == "a:leaving") for name in functions)
    monkeypatch.setattr(checks, "CHECKS", plan)


def test_a_check_that_breaks_hinders_no_other(planted: None) -> None:
    first, second, third = examine(Path("runs"), checks=checks.CHECKS)
    assert [each.state for each in first.findings] == ["ok", "fault"]
    assert "OSError: [Errno 5] Input/output error" in first.findings[1].sentence
    assert second.findings[0].state == "fault" and "SystemExit: 3" in second.findings[0].sentence
    assert third.findings[0].sentence == "Looked at runs."


def test_quick_leaves_out_the_slow_ones(planted: None) -> None:
    begun: list[str] = []
    plan = checks.CHECKS
    done = examine(Path(), quick=True, checks=plan, begin=lambda check: begun.append(check.about))
    assert [each.about for each in done] == begun == ["broken", "sound"]


def test_a_torch_that_cannot_be_imported_is_named_once(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    needing = [check for check in CHECKS if check.torch]
    found = {each.about: each.findings for each in examine(tmp_path, checks=needing)}
    [finding] = found.pop("torch")
    assert (
        finding.state == "fault" and "torch cannot be imported: ModuleNotFound" in finding.sentence
    )
    assert "pip install --force-reinstall torch" in finding.remedy
    assert {finding.state for findings in found.values() for finding in findings} == {"note"}


def test_the_command_in_text(planted: None, call: Call, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    said = call("doctor", "--out", "there")
    assert said.code == 1 and "\x1b" not in said.out
    assert "Looked at there." in said.out
    what_to_do, at_will = said.out.split("If you want it:")
    assert "\n  sound: rm 'a long name.pt'\n" in what_to_do.split("What to do:")[1]
    assert "ht-bench data fetch mnist" in at_will
    assert said.out.splitlines()[-1] == "2 faults, 1 warning and 1 note in 3 checks."


def test_the_command_in_json(planted: None, call: Call) -> None:
    said = call("doctor", "--format", "json", "--quick")
    assert said.code == 1 and said.error == ""
    answer = json.loads(said.out)
    assert answer["counts"] == {"ok": 1, "note": 1, "warning": 1, "fault": 1}
    assert answer["findings"][2] == {
        "about": "sound",
        "state": "warning",
        "sentence": "Looked at runs.",
        "remedy": "rm 'a long name.pt'",
    }


def test_warnings_alone_end_with_0(planted: None, call: Call, monkeypatch: Patch) -> None:
    monkeypatch.setattr(checks, "CHECKS", checks.CHECKS[2:])
    assert call("doctor").code == 0


def test_a_path_is_no_markup() -> None:
    screen = io.StringIO()
    each = Examined("[/x]", (fault("A folder [red]runs[/red].", "rm '[bold]'"),))
    report.show([each], Console(file=screen, width=80))
    shown = screen.getvalue()
    assert "[/x]" in shown and "[red]runs[/red]" in shown and "rm '[bold]'" in shown
