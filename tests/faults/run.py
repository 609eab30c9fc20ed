"""Fault injection: `python -m tests.faults.run --rounds 200`, a table, exit code 1 for any loss.

Each round trains a few short stacks while processes are killed, the disk fills, files are damaged,
two runners meet or the clock jumps back; then the same command runs to its end, and what lies in
the folder is compared with an undisturbed run's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import psutil

from tests.faults.check import Verdict
from tests.faults.disk import own_mounts
from tests.faults.faults import KINDS
from tests.faults.rounds import Report, play
from tests.faults.work import WORKLOADS, Reference, make_reference, write_tasks

HEADINGS = ("kind", "rounds", "struck", "lost", "duplicated", "different", "other")


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the rounds and print the table; 1 where anything was lost, doubled or different."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", choices=("", *KINDS), help="one kind of fault")
    parser.add_argument("--jobs", type=int, default=2, help="rounds side by side")
    given = parser.parse_args(arguments)
    import_what_rounds_use()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    files = folder / "tasks"
    write_tasks(files)
    references = {
        name: make_reference(workload, folder / "undisturbed" / name, files)
        for name, workload in WORKLOADS.items()
    }
    numbers = range(given.first, given.first + given.rounds)
    began, reports = time.monotonic(), []
    with contextlib.suppress(KeyboardInterrupt):  # the table of what was played
        for report in _in_lanes(numbers, given, references, folder):
            reports.append(report)
            _tell(report, given, len(reports))
    print(table(reports), f"\n{len(reports)} rounds in {time.monotonic() - began:.0f} s")
    failed = len(reports) < given.rounds or any(report.verdict.faults() for report in reports)
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


def import_what_rounds_use() -> None:
    """Import once what every forked process needs."""
    import stable_baselines3  # noqa: F401
    import torch
    from tensorboard.backend.event_processing import event_accumulator  # noqa: F401

    import ht_bench.commands.run
    import ht_bench.running.evaluate
    import ht_bench.training.reinforcement
    import ht_bench.views.live  # noqa: F401

    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first one imports much


def _tell(report: Report, given: argparse.Namespace, count: int) -> None:
    faults = report.verdict.faults()
    print(
        f"{count}/{given.rounds}: round {report.number}, {report.kind}, {report.workload}, "
        f"--jobs {report.jobs}: {'; '.join(faults) or 'nothing lost'}",
        flush=True,
    )
    if faults:
        only = f" --only {given.only}" if given.only else ""
        print(
            f"    see {report.folder}; again: python -m tests.faults.run --rounds 1 --first "
            f"{report.number} --seed {given.seed}{only}",
            flush=True,
        )


def table(reports: Sequence[Report]) -> str:
    """Return kind × what is wrong as Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    kinds = [kind for kind in KINDS if any(report.kind == kind for report in reports)]
    for kind in [*kinds, "all"]:
        own = [report for report in reports if kind in (report.kind, "all")]
        wrong = [sum(len(getattr(each.verdict, key)) for each in own) for key in HEADINGS[3:]]
        numbers = [len(own), sum(report.struck for report in own), *wrong]
        lines.append(f"| {kind} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


# ---- rounds side by side ----


def _in_lanes(
    numbers: Sequence[int],
    given: argparse.Namespace,
    references: dict[str, Reference],
    folder: Path,
) -> Iterator[Report]:
    """Yield reports as rounds end. Lanes are forked: they have torch, and mounts of their own."""
    lanes: dict[Connection, ForkProcess] = {}
    for lane in range(given.jobs):
        reading, writing = connection.Pipe(duplex=False)
        own = numbers[lane :: given.jobs]
        process = ForkProcess(target=_lane, args=(own, given, references, folder, writing))
        process.start()
        writing.close()
        lanes[reading] = process
    try:
        while lanes:
            for ready in connection.wait(list(lanes)):
                assert isinstance(ready, connection.Connection)
                try:
                    yield ready.recv()
                except EOFError:
                    lanes.pop(ready).join()
    finally:
        for process in lanes.values():
            _end(process)


def _end(lane: ForkProcess) -> None:
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(lane.pid).children(recursive=True):
            process.kill()
    lane.kill()


def _lane(
    numbers: Sequence[int],
    given: argparse.Namespace,
    references: dict[str, Reference],
    folder: Path,
    reports: Connection,
) -> None:
    can_mount = own_mounts()
    for number in numbers:
        place = folder / f"round-{number}"
        try:
            report = play(
                number, given.seed, given.only, references, folder / "tasks", place, can_mount
            )
        except Exception:  # the program's own fault: the other rounds go on
            wrong = Verdict(other=[traceback.format_exc()])
            report = Report(number, given.only or "several", 0, "", 0, wrong, place)
        reports.send(report)
    reports.close()


if __name__ == "__main__":
    sys.exit(main())
