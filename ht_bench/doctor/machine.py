"""The machine: processors, memory, GPUs, and the system's limits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ht_bench.doctor.finding import Finding, fault, note, ok, warning

GIB = 2**30
PROCESS = 0.6 * GIB
"""Bytes that a worker process holds before its network does."""
SHARED = 64 * 2**20
"""Bytes of /dev/shm that containers have by default."""
FILES = 256
"""Open files that suffice: a stack of ten seeds holds two for each."""


def processors(out: Path) -> Iterator[Finding]:
    """Look how many cores there are to use, and which instructions decide the bits."""
    import torch

    from ht_bench.running.cores import available_cores
    from ht_bench.training.device import Compute, hardware

    told, cores, all_of_them = hardware(Compute()), available_cores(), os.cpu_count() or 1
    share = "" if cores == all_of_them else f" of {all_of_them}, the share of this process,"
    yield ok(
        f"{told['processor']} ({told['instructions']}): {cores} core(s){share} to use; runs take a "
        f"thread each, torch by itself {torch.get_num_threads()}."
    )
    if "avx2" not in told["instructions"].lower() and told["machine"] in ("x86_64", "AMD64"):
        yield note("The processor, or a variable, offers no AVX2: runs take several times longer.")
    with suppress(OSError, AttributeError):  # Windows has no load
        load = os.getloadavg()[0]
        if load > 1.5 * all_of_them:
            yield note(
                f"The machine is busy: a load of {load:.0f} on {all_of_them} cores; measured times "
                "will be long."
            )


def memory(out: Path) -> Iterator[Finding]:
    """Look whether a process per core fits into the free memory."""
    from ht_bench.running.cores import available_cores

    free = free_memory()
    if free is None:
        yield note("The system does not tell how much memory is free.")
        return
    cores = available_cores()
    fit = int(free / PROCESS)
    said = f"{free / GIB:.1f} GiB of memory are free"
    if fit < 1:
        yield warning(f"{said}, less than one process takes.", "end other programs")
    elif fit < cores:
        yield warning(
            f"{said}: {cores} processes, one per core, may not fit.", f"ht-bench run --jobs {fit}"
        )
    else:
        yield ok(f"{said}; {cores} processes take about {cores * PROCESS / GIB:.0f}.")


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process may still take, by system and control group; or None.

    root: the file system that holds /proc and /sys.
    """
    limits = []
    with suppress(OSError, ValueError, IndexError):
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        limits += [1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        group = root / "sys/fs/cgroup"
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            most = int((group / limit).read_text(encoding="ascii"))
            limits.append(most - int((group / used).read_text(encoding="ascii")))
    return max(0, min(limits)) if limits else None


def gpus(out: Path) -> Iterator[Finding]:
    """Look at the CUDA devices; why there is none, where torch was built for some."""
    import torch

    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        yield ok("No CUDA: torch is built for CPUs, and all runs take the CPU.")
    elif not torch.cuda.is_available():
        yield _no_gpu(torch)
    else:
        for index in range(torch.cuda.device_count()):
            yield from _gpu(torch, index)


def _no_gpu(torch: Any) -> Finding:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return note(
            f"CUDA_VISIBLE_DEVICES={visible} hides every GPU.", "unset CUDA_VISIBLE_DEVICES"
        )
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        words = " ".join(str(error).split())
    else:
        words = "it finds no device"
    if "driver" in words and ("too old" in words or "insufficient" in words):
        return fault(
            f"torch cannot use the GPU: {words.rstrip('.')}.",
            f"update the NVIDIA driver, or install a torch for an older CUDA than "
            f"{torch.version.cuda}: https://pytorch.org/get-started/locally",
        )
    if any(Path("/dev").glob("nvidia[0-9]*")) or Path("/proc/driver/nvidia/version").exists():
        return fault(f"There is a GPU, but torch cannot use it: {words.rstrip('.')}.", "nvidia-smi")
    return note("torch is built for CUDA, and this machine has no GPU: all runs take the CPU.")


def _gpu(torch: Any, index: int) -> Iterator[Finding]:
    traits = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    said = f"cuda:{index} is {traits.name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
    built = torch.cuda.get_arch_list()
    if built and not _serves(built, traits.major, traits.minor):
        yield fault(
            f"{said}: this torch has no code for it (compute {traits.major}.{traits.minor}; built "
            f"for {', '.join(built)}).",
            "install a torch that has: https://pytorch.org/get-started/locally",
        )
    elif free < total / 2:
        yield warning(f"{said}: another program holds the rest.", "nvidia-smi")
    else:
        yield ok(f"{said}.")
    if (traits.major, traits.minor) < (8, 0) and getattr(torch.version, "hip", None) is None:
        yield note(f"cuda:{index} has no TF32 and no bf16 units: use --precision fp32.")


def _serves(built: list[str], major: int, minor: int) -> bool:
    """Whether a build has code for a device: of its major version, or PTX of an older one."""
    for name in built:
        kind, _, digits = name.partition("_")
        digits = digits.rstrip("af")
        if not digits.isdigit():
            return True  # another maker's names
        version = divmod(int(digits), 10)
        if kind == "sm" and version[0] == major and version[1] <= minor:
            return True
        if kind == "compute" and version <= (major, minor):
            return True
    return False


def limits(out: Path) -> Iterator[Finding]:
    """Look at shared memory and at how many files a process may open."""
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        said = f"{free / GIB:.1f} GiB of shared memory (/dev/shm) are free"
        if free < SHARED:
            yield warning(
                f"{said}: Ray's object store, and torch's loaders, need more.",
                "docker run --shm-size=2g, or remove what lies in /dev/shm",
            )
        else:
            yield ok(f"{said}.")
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    said = f"A process may open {'any number of' if unlimited else f'{soft:,}'} files"
    if not unlimited and soft < FILES:
        most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        yield warning(f"{said}: a large stack may need more.", f"ulimit -n {most}")
    else:
        yield ok(f"{said}.")
