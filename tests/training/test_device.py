"""What a record says of the machine: whatever decides bits beside the processor's name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ht_bench.training import device
from ht_bench.training.device import (
    LIMITS,
    Compute,
    hardware,
    matmul_precision,
    settings,
    software,
)


def test_instructions_name_torchs_capability_and_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    words = hardware(Compute())["instructions"].split()
    assert words[0] == torch.backends.cpu.get_cpu_capability()
    assert ("avx512" in words) == torch.cpu._is_avx512_supported()
    monkeypatch.setattr("torch.cpu._is_avx512_supported", lambda: False)
    assert "avx512" not in hardware(Compute())["instructions"].split()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert hardware(Compute())["instructions"].endswith("ONEDNN_MAX_CPU_ISA=AVX2")


def test_the_same_processor_with_fewer_instructions_is_another_machine() -> None:
    """A virtual machine may give one name to both."""
    code = "from ht_bench.training.device import *; print(hardware(Compute())['instructions'])"
    smaller = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    run = subprocess.run([sys.executable, "-c", code], env=smaller, capture_output=True, text=True)
    assert run.stdout.split()[0] == "DEFAULT", run.stderr
    assert run.stdout.strip() != hardware(Compute())["instructions"]


def test_the_maths_libraries_have_their_versions() -> None:
    said = software(Compute())["libraries"]
    built = torch.__config__.show()
    for name, theirs in (("MKL", "Math Kernel Library"), ("oneDNN", "MKL-DNN")):
        assert (f"{name} " in said) == (theirs in built)
    assert "BLAS" in said and any(letter.isdigit() for letter in said)


def read() -> device._Globals:
    return device._Globals.read()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_tf32_is_on_where_it_was_chosen_alone(precision: str) -> None:
    compute = Compute("cuda", precision)
    before = read()
    held = before.changed(compute, matmul_precision(compute))
    try:
        held.write()
        allowed = precision == "tf32"
        assert read() == held
        assert torch.backends.cudnn.allow_tf32 == allowed
        assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
    finally:
        before.write()
    assert read() == before


def test_attention_on_cuda_takes_the_deterministic_kernel() -> None:
    """Torch only warns there, and the others' backward passes are then not deterministic."""
    before = read()
    on_cuda, on_cpu = (before.changed(Compute(name), "highest") for name in ("cuda", "cpu"))
    assert not any(on_cuda.attention) and on_cpu.attention == before.attention
    assert torch.backends.cuda.math_sdp_enabled()


@pytest.mark.parametrize("value", [None, ":16:8"])
def test_the_environment_is_as_before_afterwards(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(device.WORKSPACE, raising=False)
    if value is not None:
        monkeypatch.setenv(device.WORKSPACE, value)
    with settings(Compute()):
        assert os.environ[device.WORKSPACE] == (value or ":4096:8")
    assert os.environ.get(device.WORKSPACE) == value
