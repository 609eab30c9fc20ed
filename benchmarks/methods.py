"""What each method adds to a training step: `python -m benchmarks.methods [--only redo,upgd]`.

The digits perceptron's stack of ten seeds, one thread: stretches of 300 steps with a method (with
its hyperparameters for warm-start-digits-v1) in turns with the same of `none`. Interval work that
falls into a stretch counts, boundaries do not: there is one phase. The page docs/methods.md shows
the ratios.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch

from benchmarks.common import (
    Options,
    Row,
    add_options,
    finish,
    in_turns,
    median_of,
    options_of,
)
from benchmarks.digits import BATCH, EXAMPLES, STACK, WIDTHS
from benchmarks.loops import OwnLoop, make_task
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.recipe import recipe_names
from ht_bench.methods.resolve import resolve
from ht_bench.streams.data import load
from ht_bench.training.device import Compute, settings

TASK = "warm-start-digits-v1"
"""Whose hyperparameters the methods have."""


def loop(method: Method, options: Options, steps: int) -> OwnLoop:
    """Return the package's loop with a method."""
    task = make_task(
        {"name": "mlp", "hidden": list(WIDTHS[1:-1])},
        steps,
        options.turns + 2,
        BATCH,
        STACK,
        data={"name": "digits", "train": EXAMPLES},
    )
    return OwnLoop(task, load("digits"), method, range(STACK), Compute(options.device))


def measure(name: str, options: Options, steps: int) -> Row:
    """Return the milliseconds of a step with a method and with `none`, and their ratio."""
    method = resolve(name, TASK).build()
    with settings(Compute(options.device)):
        loops = [loop(each, options, steps) for each in (method, resolve("none").build())]
        for each in loops:
            each.warm_up()
        seconds = in_turns(loops, options.turns) / steps * 1e3
        for each in loops:
            each.close()
    own, none = (median_of(column).median for column in seconds.T)
    return Row(name, own, "ms", none, "none", median_of(seconds[:, 0] / seconds[:, 1]))


def measured(names: Sequence[str], options: Options) -> Iterator[Row]:
    """Yield a row for each method; one that fails is said, and leaves the others."""
    steps = 5 if options.tiny else 300
    for name in names:
        try:
            yield measure(name, options, steps)
        except UsageError as error:
            print(f"Left out: {name}: {error}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.add_argument("--only", default="", help="methods, separated by commas (default: all)")
    given = parser.parse_args(arguments)
    options = options_of(given)
    names = [name for name in given.only.split(",") if name] or recipe_names()
    torch.set_num_threads(1)
    finish("methods", options, measured(names, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
