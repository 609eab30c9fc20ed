"""ht-bench tensorboard: look at a runs folder's comparison in the browser."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ht_bench.errors import UsageError

if TYPE_CHECKING:
    from ht_bench.ranking.comparison import Comparison, Table


def tensorboard(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    port: int = 6006,
    serve: bool = True,
    seeds: bool = False,
    suite: str = "",
) -> int:
    """Compare methods in TensorBoard: a run per method, its curves averaged over seeds.

    Writes the folder RUNS/aggregate anew from the results and serves it. CUSTOM SCALARS lays the
    methods over one another, task by task, with 95 % intervals of the mean over seeds; HPARAMS
    lists hyperparameters (where a method's differ by task, in the order of `tasks`), gap closed as
    `ht-bench compare` has it, and the metric. The other tabs smooth curves unless smoothing is 0.
    Example: ht-bench tensorboard runs.

    Args:
        runs: the folder that `ht-bench run --out` filled.
        port: where to serve.
        serve: start TensorBoard; --no-serve only writes RUNS/aggregate.
        seeds: serve all of RUNS, the run of every seed beside the means. HPARAMS then lists seeds,
            and of more than 40 runs TensorBoard shows those that you pick.
        suite: score this suite only, by its name or TOML file.

    """
    if serve:
        _check_free(port)
    from ht_bench.ranking.comparison import compare_folder
    from ht_bench.views.tensorboard import write_aggregate

    comparison, groups, infos = compare_folder(runs, suite)
    folder = runs / "aggregate"
    written = write_aggregate(folder, comparison, groups, infos, hparams=not seeds)
    print(
        f"{len(written)} runs, one per method, in {folder}. CUSTOM SCALARS: means and 95 % "
        f"intervals over seeds. HPARAMS: {'a row per seed' if seeds else 'gap closed'}.",
        flush=True,
    )
    for note in comparison.notes:
        print(note, flush=True)
    lacking = _without_gap(comparison)
    if lacking:
        print(
            f"No gap closed for {', '.join(lacking)}: it needs none and full-reset, the "
            f"latter surely better; `ht-bench compare {runs}` says more.",
            flush=True,
        )
    shown = runs if seeds else folder
    if serve:
        return _serve(shown, port)
    print(f"Next: tensorboard --logdir {shown}")
    return 0


def _without_gap(comparison: Comparison) -> list[str]:
    tasks = [table for table in comparison.tables if not table.is_suite]
    return [f"{table.name} ({table.setting})" for table in tasks if not _has_gap(table)]


def _has_gap(table: Table) -> bool:
    return any(row.gap_closed and math.isfinite(row.gap_closed.value) for row in table.rows)


def _check_free(port: int) -> None:
    try:
        with socket.create_server(("localhost", port)):
            pass
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"Port {port} is in use or not to be had; name another with --port, or only write the "
            "files with --no-serve."
        ) from error


def _serve(folder: Path, port: int) -> int:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    try:
        return subprocess.run([*command, "--port", str(port)], check=False).returncode
    except OSError as error:
        raise UsageError(f"TensorBoard did not start: {error}; install tensorboard.") from error
