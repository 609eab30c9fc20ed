"""The published CIFAR-10 warm start, one seed, all of it: `python -m benchmarks.cifar_run`.

ResNet-18, `hare-tortoise` with the published hyperparameters, bf16, 41,756 steps of 256 images and
40 points of the curve, each on 10,000 test images. CUDA only. `--share 0.1` trains a tenth of each
phase's epochs, evaluates as often, and says what the whole would take.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.common import Options, Row, add_options, finish, options_of
from benchmarks.loops import cifar10, compile_as_long, make_task, synthetic
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.stream import Stream, planned_steps
from ht_bench.streams.task import Task
from ht_bench.training.device import Compute, settings
from ht_bench.training.history import Observer, Point
from ht_bench.training.supervised import SupervisedRun

NAMES = ("warm-start-cifar10-v2", "warm-start-cifar10-v1")
"""The task, newest version first."""
SEED = 100


def shortened(task: Task, share: float) -> Task:
    """Return the task with a share of each phase's epochs, at least one."""
    phases = tuple(
        dataclasses.replace(phase, epochs=max(1, round((phase.epochs or 1) * share)))
        for phase in task.phases
    )
    return dataclasses.replace(task, phases=phases)


@dataclass(frozen=True)
class Times:
    """Steps and seconds of a run; first: of its first stretch, with compilation and capture."""

    steps: int
    training: float
    evaluation: float
    first_steps: int
    first: float

    def whole(self, steps: int) -> float:
        """Return what `steps` steps take, evaluated as often as these were."""
        each = (self.training - self.first) / max(1, self.steps - self.first_steps)
        return self.first + each * (steps - self.first_steps) + self.evaluation


def train(task: Task, data: Dataset, compute: Compute) -> Times:
    """Train one seed and return its times."""
    marks: list[tuple[int, float]] = []
    with settings(compute):
        method = HareTortoise(decay=0.999, reset_every="10 epochs")
        run = SupervisedRun(task, data, method, [SEED], "test", compute)
        compile_as_long(run)

        def mark(point: Point) -> None:
            marks.append((point["step"], run.seconds))

        run.train(observer=Observer(point=mark))
    return Times(sum(run.planned), run.seconds, run.evaluation_seconds, *marks[1])


def measure(options: Options, share: float, precision: str) -> Row:
    """Return the row."""
    if options.tiny:
        data, share = synthetic(64, 32, 16), 1.0
        task = make_task({"name": "resnet18"}, 1, 3, 32)
        whole = 3
    else:
        data, which = cifar10()
        print(f"Images: {which}.")
        published = get_task(next(name for name in NAMES if name in task_files()))
        assert isinstance(published, Task)
        task = published
        whole = sum(planned_steps(Stream(task, data, SEED)))
        task = shortened(task, share)
    times = train(task, data, Compute(options.device, precision))
    note = (
        f"{precision}; {times.steps:,} of {whole:,} steps trained"
        f"{', the rest extrapolated' if times.steps < whole else ''}; evaluation "
        f"{times.evaluation:.1f} s, first stretch of {times.first_steps} steps {times.first:.1f} s"
    )
    return Row("warm-start", times.whole(whole), "s", note=note)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_options(parser)
    parser.add_argument("--share", type=float, default=1.0, help="of each phase (default 1)")
    parser.add_argument("--precision", default="bf16", help="fp32, tf32, bf16 (default bf16)")
    given = parser.parse_args(arguments)
    options = options_of(given)
    if options.device == "cpu" and not options.tiny:
        print("This run needs a CUDA device: a CPU would take days.")
        return 2
    finish("cifar_run", options, (measure(options, given.share, given.precision) for _ in "1"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
