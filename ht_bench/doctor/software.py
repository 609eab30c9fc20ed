"""Python, this package, torch: which they are, and whether they go together."""

from __future__ import annotations

import platform
import re
import struct
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ht_bench.doctor.finding import Finding, fault, note, ok, warning
from ht_bench.doctor.requirements import NAME, PIP, checkout, installed, requirements
from ht_bench.errors import UsageError
from ht_bench.files import folder
from ht_bench.version import VERSION

PYTHONS = ((3, 11), (3, 12))
TORCHES = ((2, 11), (2, 13))
"""The oldest and the newest that were tried."""
DRIVER = Path("/proc/driver/nvidia/version")
BUILDS = "https://pytorch.org/get-started/locally"
SOURCE = f"{NAME} @ git+ADDRESS"
"""As the README installs it."""


def python(out: Path) -> Iterator[Finding]:
    """Look at Python itself."""
    version, bits = platform.python_version(), struct.calcsize("P") * 8
    said = f"Python {version}, {sys.executable}"
    if bits < 64:
        yield fault(
            f"{said}, is a {bits}-bit build, for which there is no torch.",
            "install a 64-bit Python",
        )
    elif sys.version_info[:2] > PYTHONS[1]:
        yield note(f"{said}: newer than {_dotted(PYTHONS[1])}, the newest that was tried.")
    else:
        yield ok(f"{said}.")


def package(out: Path) -> Iterator[Finding]:
    """Look at the package, its data folders, the tasks in them, and what pip thinks of it."""
    from ht_bench.streams.catalog import get_task, task_files

    root = checkout()
    reinstall = f"cd {root} && {PIP} -e ." if root else f"{PIP} --force-reinstall '{SOURCE}'"
    try:
        places = [folder(name) for name in ("tasks", "baselines")]
        tasks = [get_task(name) for name in task_files()]
    except UsageError as error:
        yield fault(str(error), "git restore tasks baselines" if root else reinstall)
        return
    recipes = len(list(places[1].glob("*.toml")))
    kind = f"a checkout, {root}" if root else f"installed, {places[0].parent.parent}"
    yield ok(f"{NAME} {VERSION}, {kind}: {len(tasks)} tasks as released, {recipes} recipes.")
    try:
        told = metadata.version(NAME)
    except metadata.PackageNotFoundError:
        yield note(f"{NAME} is not installed: there is no command of its name.", reinstall)
        return
    if told != VERSION:
        yield note(
            f"pip knows {NAME} as {told}, its code is {VERSION}: entry points and extras are those "
            "of that version.",
            reinstall,
        )


def dependencies(out: Path) -> Iterator[Finding]:
    """Look whether what the package needs is there, in a version that it takes."""
    needed = requirements().get("", [])
    whole = True
    for requirement in needed:
        version = installed(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            whole = False
            yield fault(
                f"{requirement} is needed, {version or 'none'} is installed.",
                f"{PIP} '{requirement}'",
            )
    if whole:
        yield ok(f"{len(needed)} packages that it needs, each in a version that it takes.")


def torch_build(out: Path) -> Iterator[Finding]:
    """Look at torch: its version, what it was built for, and whether that is what is here."""
    import torch

    cuda, rocm = torch.version.cuda, getattr(torch.version, "hip", None)
    build = f"for CUDA {cuda}" if cuda else f"for ROCm {rocm}" if rocm else "for CPUs"
    said = f"torch {torch.__version__}, built {build}"
    tried = f"{_dotted(TORCHES[0])} to {_dotted(TORCHES[1])}"
    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if version < TORCHES[0]:
        yield fault(f"{said}, is older than {tried}, which were tried.", f"{PIP} -U torch")
    elif version > TORCHES[1]:
        yield note(f"{said}, is newer than {tried}, which were tried: bits may differ.")
    else:
        yield ok(f"{said}.")
    if not (cuda or rocm) and DRIVER.exists():
        yield warning(
            "This machine has an NVIDIA driver, but torch is built for CPUs alone.",
            f"install a build for its CUDA: {BUILDS}",
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
