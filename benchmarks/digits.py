"""Stacked seeds of the digits perceptron, the whole machine: `python -m benchmarks.digits`.

On a CPU one process per core, one thread each: this package's loop with Hare & Tortoise (average
and reset) in turns with the best loop over seeds (a plain `nn.Module` per seed, fused AdamW) and
with `torch.func.vmap`; seed-steps per second of all processes together. On CUDA milliseconds a
step of 10, 100 and 1,000 seeds in one process, in turns with `torch.func.vmap`.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common import Options, Row, Seconds, finish, in_turns, median_of, read_options
from benchmarks.ema import perceptron
from benchmarks.loops import DECAY, OwnLoop, PlainLoop, VmapLoop, make_task
from benchmarks.peaks import matrix_product
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.running.cores import available_cores
from ht_bench.streams.data import load
from ht_bench.training.device import Compute, settings

WIDTHS = (64, 128, 128, 128, 10)
EXAMPLES, BATCH, STACK = 300, 64, 10
PER_STEP = 6 * sum(a * b for a, b in itertools.pairwise(WIDTHS)) * BATCH
"""Floating-point operations of a seed's step, forward and backward."""


def own_loop(options: Options, steps: int, seeds: int) -> OwnLoop:
    """Return this package's loop over `seeds` seeds as one module."""
    task = make_task(
        {"name": "mlp", "hidden": list(WIDTHS[1:-1])},
        steps,
        options.turns + 2,
        BATCH,
        seeds,
        data={"name": "digits", "train": EXAMPLES},
    )
    method = HareTortoise(decay=DECAY, reset_every=500)
    return OwnLoop(task, load("digits"), method, range(seeds), Compute(options.device))


def plain_networks(count: int) -> list[nn.Module]:
    """Return so many plain perceptrons."""
    return [perceptron(*WIDTHS) for _ in range(count)]


def plain_data(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images [N, 64], normalised beforehand, and labels [N]."""
    data = load("digits")
    images = torch.from_numpy(data.train_images[:EXAMPLES].reshape(EXAMPLES, -1)).float() / 8 - 1
    return images.to(device), torch.from_numpy(data.train_labels[:EXAMPLES]).to(device)


together: Any = None
"""What the processes wait at; each is given it as it starts."""


def take_barrier(barrier: Any) -> None:
    """Give this process what all of them wait at."""
    global together
    together = barrier


def one_process(options: Options) -> Seconds:
    """Measure the three loops in turns, in step with the other processes."""
    try:
        return three_loops(options, together.wait)
    except BaseException:
        together.abort()  # or the others would wait
        raise


def three_loops(options: Options, wait: Callable[[], Any]) -> Seconds:
    """Return seconds [turns, 3] of this package's loop, the loop per seed and vmap."""
    steps = 20 if options.tiny else 200
    compute = Compute(options.device)
    torch.manual_seed(0)
    with settings(compute):
        own = own_loop(options, steps, STACK)
        data = plain_data("cpu")
        lone = PlainLoop(plain_networks(1)[0], *data, BATCH, steps, compute, DECAY)
        stacked = VmapLoop(plain_networks(STACK), *data, BATCH, steps, compute)
        own.warm_up(), lone(), stacked()
        seconds = in_turns([own, lone, stacked], options.turns, wait)
        own.close()
    return seconds


def on_cpu(options: Options) -> list[Row]:
    """Return the rows of a CPU: one process per core."""
    cores = available_cores()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(cores, timeout=300)
    with ProcessPoolExecutor(cores, context, take_barrier, (barrier,)) as pool:
        found = list(pool.map(one_process, [options] * cores))
    # What is begun together has ended when the slowest process has.
    seconds: Seconds = np.max(found, axis=0)
    steps = 20 if options.tiny else 200
    rates = cores * steps * np.array([STACK, 1, STACK]) / seconds
    own = median_of(rates[:, 0]).median
    torch.set_num_threads(1)
    peak = cores * matrix_product("cpu", "fp32", options.tiny)
    rows = []
    for column, (claim, peer) in enumerate(
        (("digits-cpu", "a loop per seed"), ("digits-cpu-vmap", "vmap")), start=1
    ):
        ratio = median_of(rates[:, 0] / rates[:, column])
        theirs = median_of(rates[:, column]).median
        share = own * PER_STEP / peak
        rows.append(Row(claim, own, "seed-steps/s", theirs, peer, ratio, share))
    return rows


def on_cuda(options: Options) -> Iterator[Row]:
    """Yield the rows of a GPU: stacks of several widths."""
    peak = matrix_product(options.device, "fp32", options.tiny)
    for seeds in (10,) if options.tiny else (10, 100, 1_000):
        steps = 20 if options.tiny else 300
        compute = Compute(options.device)
        with settings(compute):
            own = own_loop(options, steps, seeds)
            data = plain_data(options.device)
            peer = VmapLoop(plain_networks(seeds), *data, BATCH, steps, compute)
            first = own.warm_up()
            peer()
            seconds = in_turns([own, peer], options.turns) / steps * 1e3
            own.close()
        median = median_of(seconds[:, 0]).median
        share = seeds * PER_STEP / (median / 1e3) / peak
        note = f"first stretch of {steps} steps, with capture: {first:.1f} s"
        ratio = median_of(seconds[:, 1] / seconds[:, 0])
        theirs = median_of(seconds[:, 1]).median
        yield Row(f"digits-{seeds}", median, "ms", theirs, "vmap, eager", ratio, share, note)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = read_options(__doc__, arguments)
    on_device: Callable[[Options], Iterable[Row]] = on_cpu if options.device == "cpu" else on_cuda
    finish("digits", options, on_device(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
