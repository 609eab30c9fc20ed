"""How long `suite-core-v1` takes, 12 methods × 20 seeds: `python -m benchmarks.core_suite`.

The command that a user types, into an empty folder. Set-up aside: the time that the same command
takes on two updates of one seed, which is starting processes and loading libraries, is taken off.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import Options, Row, add_options, finish, options_of
from ht_bench.running.cores import available_cores

TWO_UPDATES = """\
name = "two-updates-v1"
family = "warm-start"
seeds = "0"
data = { name = "digits", train = 60 }
net = { name = "mlp", hidden = [4] }
optimizer = { lr = 1e-2 }
training = { batch = 16, stack = 10, points = 1 }

[[phases]]
new = 1.0
updates = 2
"""


def seconds(options: Options, out: Path, *what: str) -> float:
    """Return how long the command takes; raises CalledProcessError if it fails."""
    command = [sys.executable, "-m", "ht_bench", "run", *what, "--out", str(out)]
    begun = time.perf_counter()
    subprocess.run([*command, "--device", options.device], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def measure(options: Options, jobs: int | None) -> Row:
    """Return the row."""
    seeds = "100" if options.tiny else "100-119"
    workers = ["--jobs", str(jobs)] if jobs is not None else []
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "two-updates.toml"
        task.write_text(TWO_UPDATES, encoding="utf-8")
        one = ["--task", str(task), "--method", "none", *workers]
        set_up = seconds(options, Path(folder) / "set-up", *one)
        suite = ["--suite", "suite-core-v1", "--method", "all", "--seeds", seeds]
        what = one if options.tiny else [*suite, *workers]
        wall = seconds(options, Path(folder) / "runs", *what)
    note = f"{wall:.0f} s with set-up ({set_up:.1f} s); {'default' if jobs is None else jobs} jobs"
    return Row(f"core-suite-{options.device}", wall - set_up, "s", note=note)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_options(parser)
    parser.add_argument("--jobs", type=int, help="worker processes (default: one per core)")
    given = parser.parse_args(arguments)
    options = options_of(given)
    # On CUDA the package chooses how many runs share the card.
    jobs = given.jobs or (available_cores() if options.device == "cpu" else None)
    finish("core_suite", options, (measure(options, jobs) for _ in range(1)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
