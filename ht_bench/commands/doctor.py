"""ht-bench doctor: why does it not work here, and what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ht_bench.doctor.checks import Examined


def doctor(
    out: Path = Path("runs"),
    quick: bool = False,
    format: Literal["table", "json"] = "table",
) -> int:
    """Look at this machine and installation, and say of each finding what to do about it.

    Python, torch, devices, limits, extras, plug-ins, environment variables; folders, disk space,
    locks; the data and their hashes; what lies in a runs folder; whether the machine computes as
    the published runs did. Ends with 1 where there is a fault. Nothing is changed.

    Example: ht-bench doctor --out runs

    Args:
        out: the runs folder to look at; it need not be there yet.
        quick: leave out what takes seconds: trial imports, hashes of the data, trial runs.
        format: table (terminal) or json.

    """
    from ht_bench.doctor import report

    examined = _examined(out, quick)
    if format == "json":
        print(report.to_json(examined))
    else:
        from rich.console import Console

        report.show(examined, Console())
    return 1 if report.counts(examined)["fault"] else 0


def _examined(out: Path, quick: bool) -> list[Examined]:
    """Go through the checks under a bar that names the present one."""
    from tqdm import tqdm

    from ht_bench.doctor.checks import CHECKS, examine

    total = sum(not (quick and check.slow) for check in CHECKS)
    examined = []
    with tqdm(total=total, unit="check", leave=False, disable=not sys.stderr.isatty()) as bar:
        for each in examine(out, quick, begin=lambda check: bar.set_description(check.about)):
            examined.append(each)
            bar.update()
    return examined
