"""What all benchmarks share: options, stretches in turns, intervals, the machine, results."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.claims import CLAIMS, number
from ht_bench.running.cores import available_cores
from ht_bench.training.device import Compute, hardware, software
from ht_bench.version import VERSION

RESULTS = Path(__file__).parent / "results"
Seconds = npt.NDArray[np.float64]
Stretch = Callable[[], float]
"""Does some work and returns the seconds it took."""


@dataclass(frozen=True)
class Options:
    """What a benchmark was asked for.

    turns: stretches of each peer. tiny: sizes that only show that the script runs. out: the
    folder for the result, or None.
    """

    device: str = "cpu"
    turns: int = 7
    tiny: bool = False
    out: Path | None = RESULTS


@dataclass(frozen=True)
class Interval:
    """A median with the 2.5th and 97.5th percentile of its bootstrap distribution."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Row:
    """One measurement: this package's number, a peer's, their ratio.

    claim: its id in `CLAIMS`. ratio: the peer's time over this package's, or where the claim is
    about a cost the other way round. share: of the measured peak of the device's arithmetic.
    """

    claim: str
    own: float
    unit: str
    peer: float | None = None
    peer_name: str = ""
    ratio: Interval | None = None
    share: float | None = None
    note: str = ""


def read_options(document: str | None, arguments: Sequence[str] | None = None) -> Options:
    """Read a benchmark's command line; exits with code 2 where the device is not there."""
    parser = argparse.ArgumentParser(description=(document or "").split("\n\n")[0])
    add_options(parser)
    return options_of(parser.parse_args(arguments))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Define the options that all benchmarks have."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--turns", type=int, default=7, help="stretches of each (default 7)")
    parser.add_argument("--tiny", action="store_true", help="only show that the script runs")
    parser.add_argument("--out", type=Path, help="folder for the result (default: results/)")


def options_of(given: argparse.Namespace) -> Options:
    """Return the options that all benchmarks have; a tiny run overwrites no committed result."""
    if given.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here; leave --device out.", file=sys.stderr)
        raise SystemExit(2)
    out = given.out or (None if given.tiny else RESULTS)
    return Options(given.device, 2 if given.tiny else given.turns, given.tiny, out)


# ---- time ----


def synchronize(device: str) -> None:
    """Wait for what is only queued."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], device: str, calls: int = 1) -> float:
    """Return the seconds of one of `calls` calls."""
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    return (time.perf_counter() - begun) / calls


def calls_for(work: Callable[[], Any], device: str, seconds: float) -> int:
    """Return how many calls fill so many seconds, after warming up."""
    once = min(timed(work, device) for _ in range(3))
    return max(1, int(seconds / max(once, 1e-7)))


def in_turns(
    stretches: Sequence[Stretch], turns: int, wait: Callable[[], Any] = lambda: None
) -> Seconds:
    """Return seconds [turns, stretches]; who goes first alternates from turn to turn.

    wait: called before each stretch, so that processes begin it together.
    """
    seconds = np.zeros((turns, len(stretches)))
    for turn in range(turns):
        order = range(len(stretches))
        for index in order if turn % 2 == 0 else reversed(order):
            wait()
            seconds[turn, index] = stretches[index]()
    return seconds


def median_of(values: Seconds) -> Interval:
    """Return the median with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return Interval(float(np.median(values)), float(low), float(high))


# ---- results ----


def machine(device: str) -> dict[str, Any]:
    """Describe hardware and software; no name of the machine and no path."""
    compute = Compute(device)
    versions = software(compute)
    kept = {key: versions[key] for key in ("python", "torch", "numpy", "libraries")}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        **hardware(compute),
        "cores": available_cores(),
        "load": round(load, 1),
        "ht_bench": VERSION,
        **kept,
    }


def finish(script: str, options: Options, rows: Iterable[Row], **more: Any) -> None:
    """Write results/<script>-<device>.json row by row, so that an ended script keeps what it has.

    Rows of earlier calls on the same machine stay where they are not measured anew. The table is
    printed at the end.
    """
    described = machine(options.device)
    path = None if options.out is None else options.out / f"{script}-{options.device}.json"
    kept = _earlier(path, described)
    result = {
        "command": f"python -m benchmarks.{script} --device {options.device}",
        "date": datetime.date.today().isoformat(),
        "turns": options.turns,
        "machine": described,
        **more,
    }
    measured: list[Row] = []
    for row in rows:
        measured.append(row)
        kept[row.claim] = dataclasses.asdict(row)
        _write(path, {**result, "rows": list(kept.values())})
    if not measured:
        _write(path, {**result, "rows": list(kept.values())})
    console = Console(width=140)
    if measured:
        console.print(table(script, measured))
    for row in measured:
        if row.note:
            console.print(f"{row.claim}: {row.note}", highlight=False)
    console.print(
        f"{described.get('gpu') or described['processor']}, {described['cores']} cores, load "
        f"{described['load']}; torch {described['torch']}, Python {described['python']}"
    )


def _earlier(path: Path | None, described: dict[str, Any]) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    result = json.loads(path.read_text(encoding="utf-8"))
    if any(
        result["machine"].get(key) != described.get(key) for key in ("processor", "gpu", "torch")
    ):
        return {}
    return {row["claim"]: row for row in result["rows"]}


def _write(path: Path | None, result: dict[str, Any]) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def table(title: str, rows: Sequence[Row]) -> Table:
    """Return the rows as a table."""
    made = Table("what", "goal", "measured", "peer", "ratio", "of the peak", title=title)
    for row in rows:
        claim = CLAIMS.get(row.claim)
        made.add_row(
            claim.what if claim else row.claim,
            claim.goal if claim else "",
            f"{number(row.own)} {row.unit}",
            "" if row.peer is None else f"{number(row.peer)} {row.unit} ({row.peer_name})",
            str(row.ratio or ""),
            "" if row.share is None else f"{row.share:.0%}",
        )
    return made
