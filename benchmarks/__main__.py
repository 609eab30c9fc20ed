"""All benchmarks that this machine can run, one table: `python -m benchmarks [NAME …]`.

Each runs in a process of its own and writes benchmarks/results/; what is left out, and why, is
said at the end. `--list` names them.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Script:
    """A benchmark, the devices it is about, what it needs installed, and for how long it runs.

    results: whether it writes results/ itself and so has the common options.
    """

    name: str
    devices: tuple[str, ...] = ("cpu", "cuda")
    needs: tuple[str, ...] = ()
    minutes: int = 1
    results: bool = True


SCRIPTS = (
    Script("peaks"),
    Script("ema", ("cpu",), ("ema_pytorch",)),
    Script("digits"),
    Script("images", minutes=4),
    Script("methods", minutes=6),
    Script("cifar_run", ("cuda",), minutes=4),
    Script("core_suite", minutes=15),
    Script("agent_claims", needs=("cv2", "benchmarks.agents"), minutes=15),
    Script("growth", ("cpu",), minutes=5),
    Script("growth_runs", ("cpu",), minutes=15),
    Script("executors", ("cpu",), ("ray", "joblib"), minutes=8, results=False),
    Script("precision", minutes=30, results=False),
)


def why_not(script: Script, device: str) -> str | None:
    """Return why this machine cannot run it, or None."""
    if importlib.util.find_spec(f"benchmarks.{script.name}") is None:
        return "there is no such script in this version"
    if device not in script.devices:
        return f"it is about {' and '.join(script.devices)}"
    missing = [name for name in script.needs if importlib.util.find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed; pip install -e '.[bench,atari,ray]'"
    return None


def run(script: Script, device: str, tiny: bool) -> str | None:
    """Run a script; returns what went wrong, or None."""
    command = [sys.executable, "-m", f"benchmarks.{script.name}", "--device", device]
    print(f"\n{script.name}, {device} (about {script.minutes} min)", flush=True)
    code = subprocess.run([*command, *(["--tiny"] if tiny else [])], cwd=ROOT, check=False)
    return None if code.returncode == 0 else f"it ended with exit code {code.returncode}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report, and say what was left out; 1 where something failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="benchmarks (default: all)")
    parser.add_argument("--device", default="", help="cpu or cuda (default: all there are)")
    parser.add_argument("--tiny", action="store_true", help="only show that the scripts run")
    parser.add_argument("--list", action="store_true", help="name them and end")
    given = parser.parse_args(arguments)
    known = [script.name for script in SCRIPTS]
    if given.list:
        print("\n".join(known))
        return 0
    unknown = [name for name in given.names if name not in known]
    if unknown:
        print(f"There is no benchmark '{unknown[0]}'; choose from {', '.join(known)}.")
        return 2
    chosen = [script for script in SCRIPTS if not given.names or script.name in given.names]
    devices = [given.device] if given.device else ["cpu", "cuda"]
    left_out, failed = [], []
    for device in devices:
        if device == "cuda" and not torch.cuda.is_available():
            left_out.append("cuda: torch sees no CUDA device here; see benchmarks/gpu.sh")
            continue
        for script in chosen:
            reason = why_not(script, device)
            if given.tiny and not script.results:
                reason = "it has no tiny form"
            if reason is not None:
                left_out.append(f"{script.name}, {device}: {reason}")
            elif wrong := run(script, device, given.tiny):
                failed.append(f"{script.name}, {device}: {wrong}")
    if not given.tiny:
        subprocess.run([sys.executable, "-m", "benchmarks.report"], cwd=ROOT, check=False)
    for line in left_out:
        print(f"Left out: {line}.")
    for line in failed:
        print(f"Failed: {line}.")
    if not given.tiny:
        print(
            "Results: benchmarks/results/; `python -m benchmarks.report --write` renews the page."
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
