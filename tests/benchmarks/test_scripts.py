"""Every script runs, at sizes that show nothing else."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import SCRIPTS, main, why_not
from benchmarks.claims import CLAIMS
from benchmarks.common import Options
from benchmarks.digits import three_loops
from benchmarks.loops import OwnLoop, make_task, synthetic
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.training.device import Compute

ROOT = Path(__file__).parent.parent.parent
GPU = ROOT / "benchmarks" / "gpu.sh"


def run(name: str, tmp_path: Path, *words: str) -> list[str]:
    script = importlib.import_module(f"benchmarks.{name}")
    assert script.main(["--tiny", "--out", str(tmp_path), *words]) == 0
    return [row["claim"] for row in json.loads((tmp_path / f"{name}-cpu.json").read_text())["rows"]]


def test_averages(tmp_path: Path) -> None:
    assert {"ema-loop-26k", "ema-averaged-26k"} <= set(run("ema", tmp_path))


def test_peaks(tmp_path: Path) -> None:
    run("peaks", tmp_path)
    peaks = json.loads((tmp_path / "peaks-cpu.json").read_text())["peaks"]
    assert {peak["what"] for peak in peaks} == {"matrix product", "convolution", "copy"}
    assert all(peak["rate"] > 0 for peak in peaks)


def test_digits() -> None:
    seconds = three_loops(Options(turns=2, tiny=True), lambda: None)
    assert seconds.shape == (2, 3) and (seconds > 0).all()


def test_images(tmp_path: Path) -> None:
    assert run("images", tmp_path, "--only", "cnn-lone-cpu") == ["cnn-lone-cpu"]


def test_methods(tmp_path: Path) -> None:
    assert run("methods", tmp_path, "--only", "none,l2") == ["none", "l2"]


@pytest.mark.evidence
@pytest.mark.parametrize("name", ["digits", "images", "cifar_run", "core_suite"])
def test_long_ones(name: str, tmp_path: Path) -> None:
    assert run(name, tmp_path)


def test_a_loop_trains_a_stretch_at_a_time_and_ends() -> None:
    task = make_task({"name": "mlp", "hidden": [4]}, 3, 4, 16)
    method = HareTortoise(decay=0.9, reset_every=5)
    loop = OwnLoop(task, synthetic(64, 16, 8), method, [0], Compute())
    assert loop.warm_up() > 0 and loop.run.steps_taken == 3
    assert loop() > 0 and loop.run.steps_taken == 6
    loop.close()
    assert loop.run.steps_taken in (6, 7) and not loop._thread.is_alive()


def test_a_loop_that_fails_says_why() -> None:
    class Failing(HareTortoise):
        def after_step(self) -> None:
            raise ValueError("on purpose")

    task = make_task({"name": "mlp", "hidden": [4]}, 3, 4, 16)
    loop = OwnLoop(task, synthetic(64, 16, 8), Failing(), [0], Compute())
    with pytest.raises(ValueError, match="on purpose"):
        loop.warm_up()


@pytest.mark.evidence
def test_coverage_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    """Intervals and the bootstrap hold the truth now and then; both tables have all their cells."""
    coverage = importlib.import_module("benchmarks.coverage")
    coverage.main(["--boards", "4", "--markdown"])
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in printed if line.startswith("| five tasks |")]
    assert len(rows) == 6 + 8 and all(len(row.split("|")) == 10 for row in rows)
    assert len([line for line in printed if line.startswith("| one task, noisy method")]) == 6


def test_every_claim_has_a_script_that_is_run() -> None:
    assert {claim.script for claim in CLAIMS.values()} <= {script.name for script in SCRIPTS}


def test_what_cannot_run_is_left_out_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def stand_in(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, int("benchmarks.digits" in command))

    monkeypatch.setattr(subprocess, "run", stand_in)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["digits", "cifar_run", "--tiny"]) == 1
    said = capsys.readouterr().out
    assert "Left out: cifar_run, cpu: it is about cuda." in said
    assert "Left out: cuda: torch sees no CUDA device here" in said
    assert "Failed: digits, cpu: it ended with exit code 1." in said
    assert [command[2] for command in ran] == ["benchmarks.digits"]
    assert main(["emma"]) == 2


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def find(name: str) -> object:
        return None if name == "ema_pytorch" else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    script = next(script for script in SCRIPTS if script.name == "ema")
    assert "pip install -e '.[bench" in str(why_not(script, "cpu"))


def test_the_script_for_a_gpu_is_sound_bash_and_refuses_a_machine_without() -> None:
    assert subprocess.run(["bash", "-n", GPU], check=False).returncode == 0
    done = subprocess.run(
        ["bash", GPU], env={"PYTHON": "/bin/false", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "install the package" in done.stdout
