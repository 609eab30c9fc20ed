"""ht-bench verify: check submission files without trusting them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ht_bench.commands.naming import own_suites
from ht_bench.errors import UsageError

if TYPE_CHECKING:
    from ht_bench.leaderboard.verify import Checks, Report


def verify(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    level: Literal["valid", "consistent"] = "consistent",
    rerun: int = 0,
    seeds: str = "",
    code: str = "",
    trust_code: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    record: Path | None = None,
    task: str = "",
    suite: str = "",
) -> int:
    """Say whether submissions are valid, consistent and, trained again, reproduced.

    A file is untrusted text: nothing in it is executed, and a method that is not in the
    package is trained only from code that you name here, after you have read it.
    valid: schema, tasks, hashes, all seeds, grids, ranges. consistent: untrained networks,
    whole numbers of examples. reproduced: seeds drawn at random, trained again, agree: bit for
    bit on the same software and processor, elsewhere within the noise of rounding. It is measured
    by training 5 seeds or more twice, the second time from weights disturbed in their last bit.
    Exit code: 0 all that was asked holds, 1 something does not, 2 something could not be run.

    Example: ht-bench verify leaderboard/submissions/my-method.json --rerun 2

    Of a method in a file: add --code my_method.py --trust-code

    Args:
        files: submission files.
        level: how far to go without training again.
        rerun: seeds of each task to train again, drawn at random.
        seeds: train these seeds again instead, such as 100,107.
        code: file.py or file.py:Class of a method that the package does not have. It runs on
            this machine with all your rights: see leaderboard/README.md for a container.
        trust_code: say that you have read that file; without it nothing of it runs.
        device: where to train again; auto takes the submission's own.
        as_json: print one JSON object for each file, an array for several.
        record: a JSON file in which to record what was reached, for the page
            (leaderboard/verified.json).
        task: TOML files of tasks of your own that submissions may name, separated by commas.
        suite: TOML files of suites of your own, whose tasks they may name.

    """
    from ht_bench.leaderboard.verified import add_report, digests, verified_beside
    from ht_bench.leaderboard.verify import verify as verify_file

    if not files:
        raise UsageError("Name a file: ht-bench verify leaderboard/submissions/NAME.json.")
    if rerun < 0:
        raise UsageError(f"--rerun {rerun}: give the number of seeds to train again.")
    own_suites(task, suite)
    if code:
        _ask_for_trust(code, trust_code)
    checks = _checks(level, rerun, seeds, code, device)
    reports = []
    for file in files:
        reports.append(verify_file(file, checks, digests(verified_beside(file))))
        if not as_json:
            _print(reports[-1])
        if record is not None and reports[-1].level != "not valid":
            add_report(record, reports[-1])
    if as_json:
        tables = [report.as_json() for report in reports]
        print(json.dumps(tables[0] if len(tables) == 1 else tables, indent=1, allow_nan=False))
    codes = {report.exit_code for report in reports}
    return 1 if 1 in codes else max(codes)


def _checks(level: str, rerun: int, seeds: str, code: str, device: str) -> Checks:
    from ht_bench.leaderboard.verify import Checks
    from ht_bench.running import reruns
    from ht_bench.streams.seeds import parse_seeds

    again = rerun > 0 or bool(seeds)
    if again and level == "valid":
        raise UsageError("--level valid trains nothing again; leave it or --rerun out.")
    return Checks(
        machine=reruns.machine,
        first_points=None if level == "valid" else reruns.first_points,
        rerun=reruns.Trainer(code, device, _announce) if again else None,
        seeds=parse_seeds(seeds) if seeds else rerun,
    )


def _ask_for_trust(code: str, trusted: bool) -> None:
    if not trusted:
        raise UsageError(
            f"--code {code} would run that file here, with all your rights; read it, then add "
            "--trust-code (leaderboard/README.md shows how to run it in a container)."
        )
    _announce(f"Running the code of {code} on this machine, with all your rights.")


def _announce(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _print(report: Report) -> None:
    from ht_bench.leaderboard.reading import shown

    name = report.name or shown(Path(report.file).name)
    print(f"{name}: {report.level}")
    for fault in report.faults:
        print(f"  {fault}")
    for sentence in (*report.could_not, *report.notes):
        print(f"  {sentence}")
    for task, rerun in report.reruns.items():
        seeds = ", ".join(map(str, rerun["seeds"]))
        print(f"  {task}: trained again, seeds {seeds}, agree {rerun['how']}.{_power(rerun)}")


def _power(rerun: Mapping[str, Any]) -> str:
    if not (power := rerun.get("power")):
        return ""
    return (
        f" A boost of {power['every_seed']:.2g} on every seed, or of {power['one_seed']:.2g} on "
        "one of these, would have been caught with probability 0.9."
    )
