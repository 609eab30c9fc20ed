"""Processors, memory, GPUs, limits and arithmetic with planted faults."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ht_bench.doctor import arithmetic, golden, machine
from ht_bench.running import cores
from ht_bench.training import device
from ht_bench.training.device import Compute

Found = Callable[[Any], dict[str, list[Any]]]
Patch = pytest.MonkeyPatch
Usage = namedtuple("Usage", "total used free")
GIB = 2**30


def test_a_share_of_the_cores_is_told(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "getloadavg", lambda: (30.0, 0, 0))
    answer = found(machine.processors)
    assert "3 core(s) of 8, the share of this process, to use" in answer["ok"][0].sentence
    assert "a load of 30 on 8 cores" in answer["note"][0].sentence


def test_a_processor_without_vectors(found: Found, monkeypatch: Patch) -> None:
    told = {"machine": "x86_64", "processor": "old", "instructions": "DEFAULT"}
    monkeypatch.setattr(device, "hardware", lambda compute: told)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0, 0))
    assert "no AVX2" in found(machine.processors)["note"][0].sentence


@pytest.mark.parametrize(
    ("free", "state", "remedy"),
    [
        (GIB // 4, "warning", "end other programs"),
        (2 * GIB, "warning", "ht-bench run --jobs 3"),
        (8 * GIB, "ok", ""),
        (None, "note", ""),
    ],
)
def test_memory(
    found: Found, monkeypatch: Patch, free: int | None, state: str, remedy: str
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    [finding] = found(machine.memory)[state]
    assert finding.remedy == remedy


def test_the_least_limit_of_memory_counts(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    for path in (tmp_path / "proc", group):
        path.mkdir(parents=True)
    assert machine.free_memory(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8 kB\n", encoding="ascii")
    (group / "memory.current").write_text("1000\n", encoding="ascii")
    (group / "memory.max").write_text("max\n", encoding="ascii")
    assert machine.free_memory(tmp_path) == 8192
    (group / "memory.max").write_text("5000\n", encoding="ascii")
    assert machine.free_memory(tmp_path) == 4000


# ---- GPUs ----


@pytest.fixture
def cuda_build(monkeypatch: Patch) -> None:
    """A torch built for CUDA that finds no device."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ("The NVIDIA driver on your system is too old (found version 11040).", "fault", "too old"),
        ("Found no NVIDIA driver on your system.", "note", "this machine has no GPU"),
    ],
)
def test_a_driver_that_does_not_fit(
    found: Found, cuda_build: None, monkeypatch: Patch, said: str, state: str, words: str
) -> None:
    def init() -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(machine.Path, "glob", lambda self, pattern: iter(()))
    monkeypatch.setattr(machine.Path, "exists", lambda self: False)
    [finding] = found(machine.gpus)[state]
    assert words in finding.sentence


def test_a_gpu_that_torch_cannot_use(found: Found, cuda_build: None, monkeypatch: Patch) -> None:
    def init() -> None:
        raise RuntimeError("CUDA unknown error")

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(machine.Path, "exists", lambda self: True)
    [finding] = found(machine.gpus)["fault"]
    assert finding.sentence == "There is a GPU, but torch cannot use it: CUDA unknown error."


@pytest.mark.parametrize("value", ["", "-1"])
def test_hidden_gpus(found: Found, cuda_build: None, monkeypatch: Patch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    [finding] = found(machine.gpus)["note"]
    assert finding.remedy == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("capability", "free", "states"),
    [
        ((9, 0), 70, ["ok"]),
        ((9, 0), 10, ["warning"]),
        ((7, 5), 70, ["ok", "note"]),
        ((6, 1), 70, ["fault", "note"]),
        ((12, 1), 70, ["ok"]),
    ],
)
def test_gpus(
    found: Found, monkeypatch: Patch, capability: tuple[int, int], free: int, states: list[str]
) -> None:
    traits = SimpleNamespace(name="a GPU", major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, answer in {
        "is_available": True,
        "device_count": 1,
        "get_device_properties": traits,
        "mem_get_info": (free * GIB, 80 * GIB),
        "get_arch_list": ["sm_75", "sm_80", "sm_90a", "compute_120"],
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    answer = found(machine.gpus)
    assert list(answer) == states
    assert f"cuda:0 is a GPU, {free} of 80 GiB free" in answer[states[0]][0].sentence


# ---- limits ----


def test_little_shared_memory_and_few_files(found: Found, monkeypatch: Patch) -> None:
    resource = pytest.importorskip("resource")
    assert list(found(machine.limits)) == ["ok"]
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(GIB, GIB, 2**20))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (128, 1000))
    warnings = found(machine.limits)["warning"]
    assert "/dev/shm" in warnings[0].sentence or not Path("/dev/shm").is_dir()
    assert "128 files" in warnings[-1].sentence and warnings[-1].remedy == "ulimit -n 1000"


# ---- arithmetic ----


def test_products_that_are_not_what_they_are_called(found: Found, monkeypatch: Patch) -> None:
    """fp32 computed in bf16, and bf16 in fp32."""
    kept = arithmetic.relative_errors

    def swapped(compute: Compute) -> dict[str, float]:
        return kept(Compute(precision="bf16" if compute.precision == "fp32" else "fp32"))

    monkeypatch.setattr(arithmetic, "devices", lambda: ["cpu"])
    assert list(found(arithmetic.precision)) == ["ok"]
    monkeypatch.setattr(arithmetic, "relative_errors", swapped)
    answer = found(arithmetic.precision)
    assert "fp32 on cpu: relative error" in answer["fault"][0].sentence
    assert "more exact than bf16 is" in answer["note"][0].sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e-5])
def test_broken_products(found: Found, monkeypatch: Patch, value: float) -> None:
    monkeypatch.setattr(arithmetic, "devices", lambda: ["cpu"])
    monkeypatch.setattr(arithmetic, "relative_errors", lambda compute: {"products": value})
    assert found(arithmetic.precision)["fault"]


def test_the_errors_of_rounded_numbers_lie_in_their_bounds() -> None:
    """Ten bits of mantissa, as TF32 has, done by hand: there may be no GPU."""
    draw = torch.Generator().manual_seed(1)
    left, right = (torch.randn(192, 192, generator=draw) for _ in range(2))
    bits = [x.view(torch.int32).add(1 << 12).bitwise_and(~0x1FFF).view(torch.float32)
            for x in (left, right)]  # fmt: skip
    exact = left.double() @ right.double()
    error = arithmetic._relative(bits[0].double() @ bits[1].double(), exact)
    least, most = arithmetic.EXPECTED["tf32"]
    assert least < error < most
    assert error > arithmetic.EXPECTED["fp32"][1]


def test_training_that_does_not_repeat(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(arithmetic, "devices", lambda: ["cpu"])
    kept, calls = arithmetic.run_stack, []

    def disturbed(job: Any) -> Any:
        records = kept(job)
        calls.append(job)
        if len(calls) == 4:
            records[1]["curve"]["test/loss"][-1] += 1e-7
        return records

    monkeypatch.setattr(arithmetic, "run_stack", disturbed)
    [finding] = found(arithmetic.repeats)["fault"]
    assert "other bits the second time (convolutions)" in finding.sentence


def test_golden_curves_that_are_missed(found: Found, monkeypatch: Patch) -> None:
    curve = {key: list(values) for key, values in golden.GOLDEN["none"].items()}
    curve["test/loss"][3] += 2e-4
    monkeypatch.setitem(golden.GOLDEN, "none", curve)
    answer = found(arithmetic.curves)
    assert "golden run of 'none' is off by 0.0002 in test/loss" in answer["fault"][0].sentence
    assert len(answer["ok"]) == 1
