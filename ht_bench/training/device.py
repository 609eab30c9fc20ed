"""Where and how precisely a run computes, and what it says about its software and hardware."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ht_bench.networks.products import medium_is_fp32


@dataclass(frozen=True)
class Compute:
    """A device ("cpu", "cuda"), a precision and CPU threads.

    precision: "fp32", products of fp32 numbers in full; "tf32", on CUDA alone, with ten bits of
    their mantissas, in convolutions too; "bf16" by autocast. `running.compute` chooses one.
    """

    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context forward passes run in."""
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16)


WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable without which cuBLAS is not deterministic."""


@contextmanager
def settings(compute: Compute, matmul: str | None = None) -> Iterator[None]:
    """Hold torch's global settings for a run: threads, determinism, precision, RNG states.

    All of them are as before afterwards. Deterministic algorithms; TF32 where it was chosen. On a
    CPU whose "medium" matrix products are still fp32 (checked by value) they take oneDNN's path,
    unless `matmul` names a precision.
    """
    devices = [torch.cuda.current_device()] if compute.device == "cuda" else []
    before = _Globals.read()
    with torch.random.fork_rng(devices=devices):
        try:
            before.changed(compute, matmul or matmul_precision(compute)).write()
            yield
        finally:
            before.write()


@dataclass(frozen=True)
class _Globals:
    """torch's global settings.

    cudnn: (benchmark, deterministic, allow_tf32). attention: whether the (flash, memory-efficient,
    cuDNN) kernels may be taken. workspace: the environment variable WORKSPACE.
    """

    threads: int
    matmul: str
    deterministic: bool
    warn_only: bool
    fill_memory: bool
    cudnn: tuple[bool, bool, bool]
    attention: tuple[bool, bool, bool]
    workspace: str | None

    @classmethod
    def read(cls) -> _Globals:
        cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
        return cls(
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
            (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()),
            os.environ.get(WORKSPACE),
        )

    def changed(self, compute: Compute, matmul: str) -> _Globals:
        """Return what a run holds instead."""
        cuda = compute.device == "cuda"
        return _Globals(
            threads=compute.threads,
            matmul=matmul,
            deterministic=True,
            # Max pooling without overlap is deterministic on CUDA, yet torch would refuse it.
            warn_only=cuda,
            fill_memory=False,  # it would cost time and change no bits
            cudnn=(False, True, cuda and compute.precision == "tf32"),
            # Where torch only warns, their backward passes are not deterministic.
            attention=(False, False, False) if cuda else self.attention,
            workspace=self.workspace or ":4096:8",
        )

    def write(self) -> None:
        torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision(self.matmul)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = self.fill_memory  # type: ignore[attr-defined]
        cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = self.cudnn
        cuda.enable_flash_sdp(self.attention[0])
        cuda.enable_mem_efficient_sdp(self.attention[1])
        cuda.enable_cudnn_sdp(self.attention[2])
        if self.workspace is None:
            os.environ.pop(WORKSPACE, None)
        else:
            os.environ[WORKSPACE] = self.workspace


def matmul_precision(compute: Compute) -> str:
    """Return how fp32 matrices are multiplied, in torch's words.

    On CUDA "high" (TF32) where that was chosen, else "highest". On a CPU "medium" where that is
    still fp32 arithmetic (oneDNN), else "highest".
    """
    if compute.device != "cpu":
        return "high" if compute.precision == "tf32" else "highest"
    return "medium" if medium_is_fp32() else "highest"


def random_state(compute: Compute) -> list[torch.Tensor]:
    """Return the states of torch's generators: the CPU's, and CUDA's if it is in use."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state()] if compute.device == "cuda" else states


def set_random_state(states: list[torch.Tensor]) -> None:
    """Take over what `random_state` returned."""
    torch.set_rng_state(states[0].cpu())
    for state in states[1:]:
        torch.cuda.set_rng_state(state.cpu())


def software(compute: Compute) -> dict[str, Any]:
    """Return the versions that decide a run's bits."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "threads": compute.threads,
        "matmul": matmul_precision(compute),
        "libraries": _libraries(),
    }


def hardware(compute: Compute) -> dict[str, Any]:
    """Return the name of the device and the machine's processor."""
    names = {
        "machine": platform.machine(),
        "processor": _processor(),
        "instructions": _instructions(),
    }
    if compute.device == "cuda":
        names["gpu"] = torch.cuda.get_device_name()
    return names


LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Environment variables that make the maths libraries leave instructions out."""


def _instructions() -> str:
    """Say which instructions decide a CPU's bits; a processor's name does not.

    A virtual machine gives one name to processors with and without AVX-512. torch's own kernels go
    by its CPU capability, oneDNN and the maths library by what the processor has.
    """
    cpu = torch.cpu
    flags = ("avx2", "avx512", "avx512_bf16", "vnni", "amx_tile", "amx_fp16")
    asked = {flag: getattr(cpu, f"_is_{flag}_supported", None) for flag in flags}
    has = [flag for flag, supported in asked.items() if supported is not None and supported()]
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *has, *limits])


def _libraries() -> str:
    """Name the maths libraries that torch was built with, and their versions."""
    built = torch.__config__.show()
    named = {"MKL": r"Math Kernel Library Version (\S+)", "oneDNN": r"MKL-DNN v(\S+)"}
    versions = {name: re.search(pattern, built) for name, pattern in named.items()}
    listed = [f"{name} {match[1]}" for name, match in versions.items() if match]
    blas = re.search(r"BLAS_INFO=(\w+)", built)
    return ", ".join([*listed, f"BLAS {blas[1]}" if blas else "no BLAS"])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            named = [line.split(":", 1)[1].strip() for line in handle if "model name" in line]
    except OSError:
        named = []
    return named[0] if named else platform.processor()


class PeakMemory:
    """The peak of a run's own memory: what it needed beyond what its process held before.

    On CUDA what torch allocated; else the pages resident in this process, on Linux since the run
    began, elsewhere no less than the process's highest so far; 0 where the system does not tell.
    """

    def __init__(self, compute: Compute) -> None:
        """Start the peak anew, earlier runs' memory given back where the system allows it."""
        self.compute = compute
        if compute.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        _give_back()
        with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as handle:
            handle.write("5")
        self.before = _status("VmRSS") or _highest()

    def bytes(self) -> int:
        """Return the peak up to now."""
        if self.compute.device == "cuda":
            return max(0, int(torch.cuda.max_memory_allocated()) - self.before)
        return max(0, (_status("VmHWM") or _highest()) - self.before)


def _give_back() -> None:
    """Have glibc return freed memory: what one run freed is not to be the next one's."""
    if platform.system() == "Linux":
        import ctypes

        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _highest() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int | None:
    """Return a size in bytes from /proc/self/status, or None where there is none."""
    try:
        with open("/proc/self/status", encoding="ascii") as handle:
            sizes = [line.split()[1] for line in handle if line.startswith(f"{key}:")]
    except OSError:
        return None
    return int(sizes[0]) * 1024 if sizes else None
