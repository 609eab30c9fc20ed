"""Read mutated files by every reader of the package: a sentence or success, whatever they hold.

    python -m tests.fuzz.run                        10,000 cases of each reader
    python -m tests.fuzz.run parquet idx            of these two
    python -m tests.fuzz.run parquet --case 1234    one case, what came of it, and its files

Cases are drawn by their number alone. They are read in processes of their own, so that a crash is
told too; the next process goes on behind it. Exit code 1 where a case was no sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MOST_FAILURES = 20
"""Of one reader, after which it is left."""
CHUNK = 2_500
"""Cases of one process: what they leave in memory goes with it."""
NAMES = (
    *("task", "agents-task", "suite", "recipe", "lock", "result", "kept-task", "submission"),
    *("ranking", "verified", "idx", "idx-gz", "npz", "pickle", "parquet", "images", "zip", "tar"),
    *("cache", "checkpoint", "weights", "tensors", "search"),
)
SLOW = {"search": 20, "images": 2}
"""Readers whose cases take long, of which fewer are read: one in so many."""
SHARED = Path("/dev/shm")
"""Files that live in memory, where the system has them: no case waits for a disk."""


def start(names: Sequence[str], first: int, end: int, work: Path) -> subprocess.Popen[str]:
    """Start a process for cases of some readers; it dies of no more than its own faults."""
    words = [sys.executable, "-m", "tests.fuzz.child", work, first, end, ",".join(names)]
    own = {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "TMPDIR": str(work)}
    return subprocess.Popen(
        [str(word) for word in words],
        cwd=ROOT,
        env={**os.environ, **own, "HT_BENCH_CACHE": str(work / "no-cache")},
        stdout=subprocess.PIPE,
        stderr=(work / "stderr").open("w"),
        text=True,
    )


def fuzz(names: Sequence[str], first: int, end: int) -> Iterator[dict[str, Any]]:
    """Yield what is told of the cases `first` to `end` of readers: failures, and counts at last."""
    names, at, failures = list(names), first, 0
    while names:
        place = SHARED if SHARED.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="ht-bench-fuzz-", dir=place) as folder:
            work = Path(folder)
            # After a crash its reader goes on alone.
            process = start(names if at == first else names[:1], at, end, work)
            assert process.stdout is not None
            for line in process.stdout:
                facts = json.loads(line)
                yield facts
                if "counts" in facts:
                    names, at, failures = names[1:], first, 0
                else:
                    failures += 1
                    if failures >= MOST_FAILURES:
                        process.kill()
            if process.wait() == 0:
                continue
            reader, number = (work / "at").read_text(encoding="ascii").split()
            if failures < MOST_FAILURES:
                said = (work / "stderr").read_text(encoding="utf-8", errors="replace")
                outcome = "hangs" if "Timeout" in said else f"ends with {process.returncode}"
                yield {"reader": reader, "case": int(number), "outcome": outcome, "details": said}
                failures += 1
            at = int(number) + 1
            if failures >= MOST_FAILURES or int(number) < 0 or at >= end:
                names, at, failures = names[1:], first, 0


def one(name: str, number: int) -> int:
    """Read one case and show what comes of it; its files stay."""
    from .child import Fuzzer, Watch, limit, readers
    from .reader import put

    folder = Path(tempfile.mkdtemp(prefix=f"ht-bench-fuzz-{name}-{number}-"))
    os.chdir(folder)
    fuzzer = Fuzzer(name, folder / "files", Watch())
    shutil.copytree(folder / "files", folder / "case")
    from random import Random

    put(folder / "case", readers()[name].mutate(fuzzer.honest, Random(f"{name} {number}")))
    print(f"Files: {folder / 'case'}", flush=True)
    limit()
    outcome, details = fuzzer.case(number)
    print(f"{outcome}\n{details}")
    return outcome not in ("read", "refused")


def together(names: Sequence[str], cases: int) -> int:
    """Read the cases of several readers in one process, and tell what is told; for short runs."""
    failed = False
    for facts in fuzz(names, 0, cases):
        print(json.dumps(facts), flush=True)
        failed |= "counts" not in facts
    return failed


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description=__doc__.split("\n")[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(NAMES))
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--together", action="store_true", help="in one process, told as JSON")
    given = parser.parse_args()
    chosen = given.readers or list(NAMES)
    if given.case is not None:
        return one(chosen[0], given.case)
    if given.together:
        return together(chosen, given.cases)
    chunks = [
        ([name], first, min(first + CHUNK, cases))
        for name in chosen
        for cases in [-(-given.cases // SLOW.get(name, 1))]
        for first in range(0, cases, CHUNK)
    ]
    started, totals, failed = time.monotonic(), dict[str, dict[str, int]](), 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for told in pool.map(lambda chunk: list(fuzz(*chunk)), chunks):
            for facts in told:
                if "counts" not in facts:
                    failed += 1
                    print(f"{facts['reader']} case {facts['case']}: {facts['outcome']}")
                    print("    " + facts["details"].strip()[-1_500:].replace("\n", "\n    "))
                    continue
                total = totals.setdefault(facts["reader"], {})
                for key, count in facts["counts"].items():
                    total[key] = total.get(key, 0) + count
                total["MiB"] = max(total.get("MiB", 0), facts["mib"])
            sys.stdout.flush()
    for name, total in totals.items():
        print(f"{name:12} " + ", ".join(f"{count:,} {key}" for key, count in total.items()))
    print(f"{failed} failures in {time.monotonic() - started:.0f} s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
