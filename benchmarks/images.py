"""A training step on CIFAR-10, ResNet-18 and the small conv net: `python -m benchmarks.images`.

This package's loop (time between two points of its curve; evaluation apart) in turns with a plain
torch loop of the same network, batch, precision and method. Without CIFAR-10 the images are random
ones of its shape, which take the same time. On a CPU one thread works, as in each process of
`ht-bench run`, and the batches of ResNet-18 are of 32 images.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import (
    Options,
    Row,
    Seconds,
    add_options,
    finish,
    in_turns,
    median_of,
    options_of,
)
from benchmarks.loops import OwnLoop, PlainLoop, cifar10, make_task, synthetic
from benchmarks.peaks import convolution
from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.streams.dataset import Dataset
from ht_bench.training.device import Compute, settings

RESNET = {"name": "resnet18"}
SMALL = {"name": "cnn", "channels": [32, 64, 128], "hidden": [256]}
DECAY = 0.999


@dataclass(frozen=True)
class Case:
    """One line: a network, a precision, a method; steps of a stretch; seeds of a stack.

    long: trained as in a run that is long enough to compile the network for, as the published are.
    """

    claim: str
    net: dict[str, Any]
    batch: int
    steps: int
    precision: str = "fp32"
    averages: bool = False
    augment: bool = False
    seeds: int = 1
    long: bool = False

    def method(self) -> Method:
        """Return the method, fresh."""
        return HareTortoise(decay=DECAY, reset_every=500) if self.averages else Method()


CUDA = (
    Case("resnet-bf16-none", RESNET, 256, 150, "bf16", long=True),
    Case("resnet-bf16-ht", RESNET, 256, 150, "bf16", averages=True, long=True),
    Case("cnn-20", SMALL, 128, 200, "bf16", averages=True, seeds=20),
    Case("cnn-20-long", SMALL, 128, 200, "bf16", averages=True, seeds=20, long=True),
    Case("resnet-tf32", RESNET, 256, 100, "tf32", averages=True, long=True),
    Case("resnet-bf16-augmented", RESNET, 256, 100, "bf16", True, True, long=True),
    Case("cnn-lone", SMALL, 128, 300, "bf16", averages=True),
    Case("resnet-fp32", RESNET, 256, 40, "fp32", averages=True, long=True),
)
CPU = (
    Case("resnet-fp32-cpu", RESNET, 32, 2, "fp32", averages=True),
    Case("resnet-bf16-cpu", RESNET, 32, 2, "bf16", averages=True),
    Case("cnn-lone-cpu", SMALL, 128, 10, averages=True),
    Case("cnn-4-cpu", SMALL, 128, 4, averages=True, seeds=4),
)
PAIR = ("resnet-bf16-none", "resnet-bf16-ht")
"""Measured in turns with one another."""


def small(case: Case) -> Case:
    """Return a case that only shows that it runs."""
    net = {**case.net, "channels": [8], "hidden": [8]} if case.net is SMALL else case.net
    return dataclasses.replace(case, net=net, batch=4, steps=2, seeds=min(2, case.seeds))


def own_loop(case: Case, data: Dataset, compute: Compute, turns: int) -> OwnLoop:
    """Return this package's loop; raises UsageError for a stack that it does not have."""
    task = make_task(
        case.net,
        case.steps,
        turns + 2,
        case.batch,
        case.seeds,
        augment=case.augment,
        optimizer={"weight_decay": 1e-3, "clip": 0.5},
    )
    return OwnLoop(task, data, case.method(), range(case.seeds), compute, case.long)


def plain_loop(case: Case, data: Dataset, compute: Compute) -> PlainLoop:
    """Return a plain torch loop of one seed of the case."""
    images, labels = (
        torch.tensor(array, device=compute.device)
        for array in (data.train_images, data.train_labels)
    )
    shape = data.train_images.shape[1:]
    net = networks.build(case.net, (int(shape[0]), int(shape[1]), int(shape[2])), data.classes)
    decay = DECAY if case.averages else None
    return PlainLoop(net, images, labels, case.batch, case.steps, compute, decay, 0.5, case.augment)


def step_flops(case: Case, size: int) -> int:
    """Return the floating-point operations of one seed's step, forward and backward."""
    module = networks.build(case.net, (3, size, size), 10)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(2, 3, size, size)).sum().backward()
    return counter.get_total_flops() * case.batch // 2


def measure(case: Case, data: Dataset, options: Options) -> tuple[Row, Seconds]:
    """Measure one case; returns its row and milliseconds a seed-step [turns, 2]."""
    compute = Compute(options.device, case.precision)
    with settings(compute):
        own, peer = own_loop(case, data, compute, options.turns), plain_loop(case, data, compute)
        first = own.warm_up()
        peer()
        seconds = in_turns([own, peer], options.turns)
        evaluation = own.run.evaluation_seconds
        own.close()
        peak = convolution(options.device, case.precision, options.tiny)
    each = seconds / case.steps / [case.seeds, 1] * 1e3
    median = median_of(each[:, 0]).median
    rate = step_flops(case, data.train_images.shape[-1]) / (median / 1e3)
    note = (
        f"first stretch of {case.steps} steps, with compilation and capture: {first:.1f} s; "
        f"evaluation: {evaluation / (options.turns + 2):.2f} s a point of the curve"
    )
    row = Row(
        case.claim,
        median,
        "ms",
        median_of(each[:, 1]).median,
        "plain torch loop, eager",
        median_of(each[:, 1] / each[:, 0]),
        None if options.tiny else rate / peak,
        note,
    )
    return row, each


def paired(data: Dataset, options: Options, cases: Sequence[Case]) -> Row:
    """Return what the second case costs over the first, both this package's own, in turns."""
    compute = Compute(options.device, cases[0].precision)
    with settings(compute):
        loops = [own_loop(case, data, compute, options.turns) for case in cases]
        for loop in loops:
            loop.warm_up()
        seconds = in_turns(loops, options.turns)
        for loop in loops:
            loop.close()
    each = seconds / cases[0].steps * 1e3
    without, with_method = (median_of(column).median for column in each.T)
    ratio = median_of(each[:, 1] / each[:, 0])
    return Row("resnet-bf16-ht-over-none", with_method, "ms", without, "none", ratio)


def all_rows(options: Options, only: Sequence[str]) -> Iterator[Row]:
    """Yield a row per case that this machine and this version can run."""
    data, which = (synthetic(64, 32, 16), "random images") if options.tiny else cifar10()
    if options.device == "cpu":  # 10,000 test images at each point would take minutes
        data = dataclasses.replace(
            data, test_images=data.test_images[:200], test_labels=data.test_labels[:200]
        )
    print(f"Images: {which}.")
    cases = CUDA if options.device == "cuda" else CPU
    chosen = [case for case in cases if not only or case.claim in only]
    for case in map(small, chosen) if options.tiny else chosen:
        try:
            yield measure(case, data, options)[0]
        except UsageError as error:
            print(f"Left out: {case.claim}: {error}")
    if options.device == "cuda" and (not only or "resnet-bf16-ht-over-none" in only):
        pair = [case for case in cases if case.claim in PAIR]
        yield paired(data, options, pair)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_options(parser)
    parser.add_argument("--only", default="", help="claims, separated by commas")
    given = parser.parse_args(arguments)
    options = options_of(given)
    finish("images", options, all_rows(options, given.only.split(",") if given.only else []))
    return 0


if __name__ == "__main__":
    sys.exit(main())
