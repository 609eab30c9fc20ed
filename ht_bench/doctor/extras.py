"""What is optional: the extras, plug-ins of other packages, environment variables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from ht_bench import registry
from ht_bench.doctor.finding import Finding, fault, note, ok, warning
from ht_bench.doctor.requirements import PIP, extras, installed, module_of
from ht_bench.errors import UsageError, did_you_mean, reason

VARIABLES = ("HT_BENCH_CACHE", "HT_BENCH_DATA", "HT_BENCH_NO_LOCKS")
DETERMINISTIC = (":4096:8", ":16:8")
"""Values of CUBLAS_WORKSPACE_CONFIG under which cuBLAS gives the same bits."""
BITS = (
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"),
    *("ATEN_CPU_CAPABILITY", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
"""Variables that change which bits a machine computes."""
PATIENCE = 120.0
"""Seconds for the imports of one process."""
IMPORTS = """
import importlib, json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what a module prints is no answer
def say(*words):
    print(json.dumps(words), file=answers, flush=True)
for name in sys.argv[1:]:
    say(name, "begun")
    try:
        importlib.import_module(name)
        said = ""
    except BaseException as error:
        said = f"{type(error).__name__}: {error}" or "it failed"
    say(name, said)
"""


def extras_there(out: Path) -> Iterator[Finding]:
    """Look which optional packages are installed, in which version."""
    for extra, needed in extras().items():
        lacking = [each for each in needed if installed(each.name) is None]
        old = [each for each in needed if each not in lacking and not _fits(each)]
        versions = ", ".join(f"{each.name} {installed(each.name)}" for each in needed)
        if lacking:
            names = ", ".join(each.name for each in lacking)
            yield note(f"Extra '{extra}': {names} not installed.", _pip(lacking))
        elif old:
            yield warning(
                f"Extra '{extra}' needs {', '.join(map(str, old))}: {versions}.", _pip(old)
            )
        else:
            yield ok(f"Extra '{extra}': {versions}.")


def _fits(requirement: Requirement) -> bool:
    return requirement.specifier.contains(installed(requirement.name) or "0", prereleases=True)


def _pip(needed: Sequence[Requirement]) -> str:
    words = []
    for each in needed:
        each = Requirement(str(each))
        each.marker = None
        words.append(f"'{each}'" if set(str(each)) & set("<>[;~ ") else str(each))
    return f"{PIP} {' '.join(words)}"


def extras_work(out: Path) -> Iterator[Finding]:
    """Import the optional packages that are installed, in a process that may die of it."""
    packages = {
        module_of(each.name): (each.name, extra)
        for extra, needed in extras().items()
        for each in needed
        if installed(each.name) is not None
    }
    broken = imported(list(packages))
    for module, said in broken.items():
        name, extra = packages[module]
        yield fault(
            f"{name} (extra '{extra}') is installed, but `import {module}` failed: {said}.",
            f"{PIP} --force-reinstall {name}",
        )
    if not broken:
        yield ok(f"{len(packages)} optional packages can be imported.")


def imported(modules: Sequence[str], patience: float = PATIENCE) -> dict[str, str]:
    """Import modules in other processes; return module → why, for those that cannot be.

    A process that dies or hangs counts against the module that it was at; the next goes on.
    """
    broken: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        said, ended = _run(waiting, patience)
        done = [name for name, answer in said if answer != "begun"]
        broken |= {name: _line(answer) for name, answer in said if answer not in ("", "begun")}
        waiting = [name for name in waiting if name not in done]
        if waiting:
            broken[waiting.pop(0)] = ended
    return broken


def _run(modules: Sequence[str], patience: float) -> tuple[list[list[str]], str]:
    """Return what a process said of each module, and how it ended."""
    # "-P" keeps the present folder out: a file there is no installed package.
    command = [sys.executable, "-P", "-W", "ignore", "-c", IMPORTS, *modules]
    try:
        done = subprocess.run(command, capture_output=True, timeout=patience, check=False)
        output, ended = done.stdout, f"the process ended with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"it took over {patience:.0f} seconds"
    lines = output.decode(errors="replace").splitlines()
    return [json.loads(line) for line in lines], ended


def _line(text: str) -> str:
    return reason(ImportError(text))


def clusters(out: Path) -> Iterator[Finding]:
    """Look at what `--executor slurm` and `--executor ray` would find from here."""
    submit = shutil.which("sbatch")
    if submit is not None and installed("submitit") is None:
        yield note("This is a Slurm cluster; the extra 'slurm' trains on it.", f"{PIP} submitit")
    else:
        yield ok(f"Slurm: {submit}." if submit else "Slurm: no sbatch here, so no cluster of it.")
    address = os.environ.get("RAY_ADDRESS")
    yield ok(f"Ray: RAY_ADDRESS={address}." if address else "Ray: RAY_ADDRESS names no cluster.")


def plug_ins(out: Path) -> Iterator[Finding]:
    """Load what installed packages offer by entry point."""
    names = 0
    for kind, things in registry.KINDS.items():
        for name in filter(things.is_from_outside, things.names()):
            names += 1
            try:
                things.get(name)
            except (UsageError, SystemExit) as error:
                origin = things.origin(name)
                why = " ".join(str(error).split()).rstrip(".") or "it exits"
                yield fault(
                    f"The {kind} '{name}' of {origin} cannot be loaded: {why}.",
                    f"install {origin} again, or uninstall it",
                )
    yield ok(f"{names} things of other packages or files." if names else "None is installed.")


def environment(out: Path) -> Iterator[Finding]:
    """Look at the variables that this package, torch and its libraries heed."""
    given = os.environ
    for name in sorted(given):
        if name.startswith("HT_BENCH_") and name not in VARIABLES:
            yield warning(
                f"{name} is no variable of this package.{did_you_mean(name, VARIABLES)}",
                f"unset {name}",
            )
    raw = given.get("HT_BENCH_DATA")
    if raw and not Path(raw).expanduser().is_dir():
        yield warning(f"HT_BENCH_DATA names {raw}, which is no folder.", "unset HT_BENCH_DATA")
    if given.get("HT_BENCH_NO_LOCKS"):
        yield warning(
            "HT_BENCH_NO_LOCKS is set: where a file system keeps no locks, nothing keeps two "
            "processes from training one run.",
            "unset HT_BENCH_NO_LOCKS",
        )
    workspace = given.get("CUBLAS_WORKSPACE_CONFIG", DETERMINISTIC[0])
    if workspace not in DETERMINISTIC:
        yield warning(
            f"CUBLAS_WORKSPACE_CONFIG={workspace}: runs on CUDA do not repeat their bits.",
            "unset CUBLAS_WORKSPACE_CONFIG",
        )
    for name in filter(given.get, BITS):
        yield note(f"{name}={given[name]}: bits are comparable only under the same.")
    shown = ("HT_BENCH_CACHE", "HT_BENCH_DATA", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    told = ", ".join(f"{name}={given[name]}" for name in shown if name in given)
    yield ok(f"{told}." if told else "None of the variables that matter is set.")
