"""How cost grows with the number of results: `python -m benchmarks.growth [--sizes 100,1000]`.

Folders of copies of one real record (`growth_folder.py`), each step in a process of its own:
seconds of the processor (a busy machine changes them little), and the most memory it held. An
exponent of 1 between two sizes is linear growth. `--runs 5000` measures the runner instead
(`growth_runs.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.common import Options, Row, add_options, finish, options_of
from benchmarks.growth_board import write_board
from benchmarks.growth_folder import Shape, fill, shape_of, task_files

SIZES = (100, 1_000, 10_000)


@dataclass(frozen=True)
class Place:
    """A folder of a size: runs/, board/, tasks/ and its methods."""

    folder: Path
    methods: tuple[str, ...]

    @property
    def tasks(self) -> str:
        """The tasks' files, as --task takes them."""
        return ",".join(map(str, sorted((self.folder / "tasks").glob("*.toml"))))

    @property
    def runs(self) -> str:
        """The folder of results."""
        return str(self.folder / "runs")

    @property
    def board(self) -> str:
        """The folder of the board."""
        return str(self.folder / "board")


@dataclass(frozen=True)
class Step:
    """A command that reads the folder. modules: imported before the clock starts."""

    name: str
    words: Callable[[Place], list[str]]
    modules: tuple[str, ...]


STEPS = (
    Step(
        "resume",
        lambda at: ["run", "--task", at.tasks, "--method", ",".join(at.methods), "--out", at.runs],
        ("ht_bench.running.evaluate",),
    ),
    Step(
        "compare",
        lambda at: ["compare", at.runs, "--format", "json"],
        ("ht_bench.ranking.comparison",),
    ),
    Step(
        "tensorboard",
        lambda at: ["tensorboard", at.runs, "--no-serve"],
        ("ht_bench.ranking.comparison", "ht_bench.views.tensorboard"),
    ),
    Step(
        "submit",
        lambda at: [
            *("submit", at.runs, "--method", "none", "--task", at.tasks, "--authors", "Nobody"),
            *("--tuning", "none", "--tuning-runs", "0", "--replace"),
            *("--out", f"{at.board}/submissions/none.json"),
        ],
        ("ht_bench.leaderboard.submit",),
    ),
    Step(
        "verify",
        lambda at: [
            *("verify", "--task", at.tasks),
            *map(str, sorted(Path(at.board, "submissions").glob("*.json"))),
        ],
        ("ht_bench.leaderboard.verify", "ht_bench.running.reruns"),
    ),
    Step(
        "page",
        lambda at: ["page", at.board, "--task", at.tasks],
        ("ht_bench.leaderboard.board", "ht_bench.views.page"),
    ),
)
"""In this order: `submit` writes the file of which the board is made that `verify` reads."""


@dataclass(frozen=True)
class Cost:
    """What a step took on a folder: seconds of the processor and of the clock, MiB at most.

    base: MiB before it began, the libraries'.
    """

    step: str
    runs: int
    seconds: float
    wall: float
    peak: float
    base: float


def peak_mib() -> float:
    """Return the most memory that this process has held."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        # ru_maxrss would be the parent's where that is larger: exec hands it on.
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)


def carry_out(step: Step, place: Place, runs: int) -> Cost:
    """Do a step here and return what it took; raises SystemExit where the command fails."""
    from ht_bench.cli import main as command

    for module in step.modules:
        importlib.import_module(module)
    base, said = peak_mib(), io.StringIO()
    wall, seconds = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(said):
        code = command(step.words(place))
    seconds, wall = time.process_time() - seconds, time.perf_counter() - wall
    if code:
        raise SystemExit(f"`ht-bench {step.name}` ended with {code}:\n{said.getvalue()[-2000:]}")
    return Cost(step.name, runs, seconds, wall, peak_mib(), base)


def in_a_child(step: Step, place: Place, runs: int) -> Cost:
    """Do a step in a process of its own."""
    given = [str(place.folder), ",".join(place.methods), str(runs)]
    command = [sys.executable, "-m", "benchmarks.growth", "--step", step.name, *given]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    return Cost(**json.loads(done.stdout))


def measure(shape: Shape, folder: Path) -> Iterator[Cost]:
    """Fill a folder and yield what every step takes on it."""
    tasks = task_files(folder / "tasks", shape.tasks)
    methods = fill(folder / "runs", tasks, shape.methods)
    place = Place(folder, tuple(methods))
    for step in STEPS:
        yield in_a_child(step, place, shape.runs)
        if step.name == "submit":
            write_board(folder / "board" / "submissions" / "none.json", tasks, methods)


def exponents(costs: Sequence[Cost], step: str) -> list[float]:
    """Return, from each size to the next, the power of the size that the seconds rise by."""
    own = sorted((cost for cost in costs if cost.step == step), key=lambda cost: cost.runs)
    return [
        math.log(after.seconds / before.seconds) / math.log(after.runs / before.runs)
        for before, after in pairwise(own)
    ]


def rows_of(costs: Sequence[Cost]) -> Iterator[Row]:
    """Yield the exponent of every step between the two largest sizes."""
    for step in STEPS:
        if found := exponents(costs, step.name):
            two = sorted((c for c in costs if c.step == step.name), key=lambda c: c.runs)[-2:]
            words = " → ".join(f"{c.seconds:.3g} s, {c.peak:.0f} MiB at {c.runs:,}" for c in two)
            yield Row(f"growth-{step.name}", found[-1], "", note=words)


def table(costs: Sequence[Cost]) -> Table:
    """Return size × step: seconds of the processor, MiB at most, exponents."""
    sizes = sorted({cost.runs for cost in costs})
    head = [f"{size:,} results" for size in sizes]
    made = Table("step", *head, "exponents", title="Seconds of the processor, MiB at most")
    for step in STEPS:
        own = {cost.runs: cost for cost in costs if cost.step == step.name}
        cells = [
            f"{own[size].seconds:.2f} s, {own[size].peak:.0f} MiB" if size in own else ""
            for size in sizes
        ]
        made.add_row(step.name, *cells, ", ".join(f"{x:.2f}" for x in exponents(costs, step.name)))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_options(parser)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of results")
    parser.add_argument("--runs", type=int, default=0, help="measure the runner on so many runs")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.step:
        return _child(*given.step)
    if given.runs:
        from benchmarks.growth_runs import main as runner

        more = ["--out", str(given.out)] if given.out else []
        return runner(["--runs", str(given.runs), *more, *(["--tiny"] if given.tiny else [])])
    options = options_of(given)
    sizes = [40, 80] if options.tiny else [int(size) for size in given.sizes.split(",")]
    costs: list[Cost] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for cost in measure(shape_of(size), Path(folder)):
                costs.append(cost)
                print(f"{cost.step}, {cost.runs:,}: {cost.seconds:.2f} s", file=sys.stderr)
    Console(width=140).print(table(costs))
    _finish(options, costs)
    return 0


def _finish(options: Options, costs: Sequence[Cost]) -> None:
    finish("growth", options, rows_of(costs), growth=[dataclasses.asdict(cost) for cost in costs])


def _child(name: str, folder: str, methods: str, runs: str) -> int:
    [step] = (step for step in STEPS if step.name == name)
    cost = carry_out(step, Place(Path(folder), tuple(methods.split(","))), int(runs))
    print(json.dumps(dataclasses.asdict(cost)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
