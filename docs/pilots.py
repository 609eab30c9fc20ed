"""Pilots of tasks: does starting over gain anything there? `python docs/pilots.py [NAME …]`.

Trains `none` and `full-reset` on tuning seeds 0-4, validation split, and prints a Markdown row of
docs/suites.md for each: their means, the paired gap and its standard error. Some 25 seconds to four
minutes a pilot on one core, the images' (`i-…`) up to nine. `--images 0.1,0.03` runs the published
CIFAR-10 streams at these shares of their epochs in their place; they need a GPU (`--device cuda`).
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from anchors import gap, known

from ht_bench.streams.catalog import get_task
from ht_bench.streams.task import Task, parse_task

SEEDS = range(5)
DEEP = (64,) * 6
ARRIVALS = (0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0)
Phases = list[dict[str, Any]]


def two(share: float, wrong: float, first: int, second: int) -> Phases:
    """Return a share of the examples with wrong labels, then all of them, clean."""
    start: dict[str, Any] = {"new": share, "updates": first}
    if wrong:
        start["wrong"] = wrong
    return [start, {"new": round(1 - share, 4), "updates": second}]


def anew(count: int, updates: int, **change: Any) -> Phases:
    """Return phases over the same examples, changed anew in each."""
    return [{"new": 1.0, "updates": updates, **change}] + (count - 1) * [
        {"updates": updates, **change}
    ]


def pilot(
    family: str, train: int, phases: Phases, hidden: tuple[int, ...] = (128, 128, 128), **more: Any
) -> dict[str, Any]:
    """Return a task's table but its name. more: data, channels, lr, optimizer, stack, points."""
    net: dict[str, Any] = {"name": "mlp", "hidden": list(hidden)}
    if "channels" in more:
        net |= {"name": "cnn", "channels": more["channels"]}
    return {
        "family": family,
        "data": {"name": more.get("data", "digits"), "train": train},
        "net": net,
        "optimizer": {"name": more.get("optimizer", "adamw"), "lr": more.get("lr", 1e-3)},
        "training": {"batch": 64, "stack": more.get("stack", 5), "points": more.get("points", 2)},
        "phases": phases,
    }


def images(
    data: str,
    train: int,
    phases: Phases,
    channels: list[int],
    last: int,
    family: str = "warm-start",
    stack: int = 5,
) -> dict[str, Any]:
    """Return a small convolutional net's task on real images; last: its hidden units."""
    more = {"data": data, "channels": channels, "points": 1, "stack": stack}
    return pilot(family, train, phases, (last,), **more)


NOISY, CLEAN, SHIFT = "warm-start", "warm-start-clean", "permuted"
PERMUTED = {"inputs": "permuted"}
NARROW = ([8, 16, 32], 64)
PILOTS = {
    "n-digits-cnn": pilot(NOISY, 300, two(0.5, 0.5, 1500, 600), (64,), channels=[16, 32]),
    "n-digits-tenth": pilot(NOISY, 1000, two(0.1, 0.5, 1500, 600)),
    "n-cont-digits-300": pilot(
        "continual", 300, [{"new": 0.1, "wrong": w, "updates": 300} for w in ARRIVALS]
    ),
    "n-cont-digits-200b": pilot(
        "continual",
        200,
        [{"new": 0.2, "wrong": w, "updates": 600} for w in (0.5, 0.4, 0.3, 0.2, 0.0)],
    ),
    "c-digits-60": pilot(CLEAN, 60, two(0.3, 0, 3000, 600)),
    "c-digits-100": pilot(CLEAN, 100, two(0.3, 0, 3000, 600)),
    "c-digits-200": pilot(CLEAN, 200, two(0.3, 0, 3000, 600)),
    "c-digits-cnn-100": pilot(CLEAN, 100, two(0.3, 0, 3000, 600), (64,), channels=[16, 32]),
    "c-digits-deep-100": pilot(CLEAN, 100, two(0.3, 0, 3000, 600), DEEP),
    "c-digits-lr1e-4": pilot(CLEAN, 100, two(0.3, 0, 6000, 1500), lr=1e-4),
    "c-digits-sgd": pilot(CLEAN, 100, two(0.3, 0, 6000, 1500), lr=0.05, optimizer="sgd"),
    "c-digits-wide": pilot(CLEAN, 100, two(0.3, 0, 3000, 600), (32, 32)),
    "c-digits-perm-first": pilot(
        CLEAN, 300, [{"new": 1.0, "updates": 1500, **PERMUTED}, {"updates": 600}]
    ),
    "c-digits-perm-first-100": pilot(
        CLEAN, 100, [{"new": 1.0, "updates": 1500, **PERMUTED}, {"updates": 300}]
    ),
    "c-digits-labelperm-first": pilot(
        CLEAN, 300, [{"new": 1.0, "updates": 1500, "labels": "permuted"}, {"updates": 600}]
    ),
    "c2-300-long": pilot(CLEAN, 300, two(0.3, 0, 6000, 600)),
    "c2-400-tenth": pilot(CLEAN, 400, two(0.1, 0, 4000, 600)),
    "c2-deep-200": pilot(CLEAN, 200, two(0.3, 0, 3000, 600), DEEP),
    "c3-16-200": pilot(CLEAN, 200, two(0.3, 0, 3000, 600), (16, 16)),
    "c3-32-200": pilot(CLEAN, 200, two(0.3, 0, 3000, 600), (32, 32)),
    "c3-32-100-long": pilot(CLEAN, 100, two(0.3, 0, 6000, 600), (32, 32)),
    "c3-32-slow-100": pilot(CLEAN, 100, two(0.3, 0, 6000, 1500), (32, 32), lr=3e-4),
    "c3-32-fast-200": pilot(CLEAN, 200, two(0.3, 0, 1500, 300), (32, 32), lr=3e-3),
    "c3-32x3-200": pilot(CLEAN, 200, two(0.3, 0, 3000, 600), (32, 32, 32)),
    "c5-200-tenth": pilot(CLEAN, 200, two(0.1, 0, 6000, 600)),
    "c5-32x2-60": pilot(CLEAN, 60, two(0.3, 0, 3000, 600), (32, 32)),
    "c5-64x3-100-slow": pilot(CLEAN, 100, two(0.2, 0, 6000, 600), (64, 64, 64), lr=3e-4),
    "c5-full-100": pilot(CLEAN, 100, two(0.3, 0, 3000, 300)),
    "clean-few-digits": pilot(CLEAN, 100, two(0.3, 0, 3000, 300)),
    "clean-few-narrow-digits": pilot(CLEAN, 100, two(0.3, 0, 3000, 300), (64, 64, 64)),
    "clean-fifth-digits": pilot(CLEAN, 100, two(0.2, 0, 6000, 300), (64, 64, 64)),
    "clean-deep-digits": pilot(CLEAN, 100, two(0.3, 0, 3000, 600), DEEP),
    "ci-digits-2": pilot(
        "class-incremental",
        300,
        [{"classes": 5, "updates": 1500}, {"classes": 5, "updates": 600}],
        stack=1,
    ),
    "ci-digits-10x1": pilot(
        "class-incremental", 300, [{"classes": 1, "updates": 200}] * 10, stack=1
    ),
    "s2-gradual-50": pilot(SHIFT, 300, anew(30, 150, **PERMUTED, change=0.5)),
    "s2-deep": pilot(SHIFT, 300, anew(20, 150, **PERMUTED), DEEP),
    "s5-deep-30": pilot(SHIFT, 300, anew(30, 150, **PERMUTED), DEEP),
    "s5-gradual-10": pilot(SHIFT, 300, anew(30, 150, **PERMUTED, change=0.1)),
    "s5-gradual-50-200": pilot(SHIFT, 200, anew(30, 150, **PERMUTED, change=0.5)),
    "s-digits-labels": pilot(SHIFT, 300, anew(30, 150, labels="permuted")),
    "s-digits-both": pilot(SHIFT, 300, anew(30, 150, labels="permuted", **PERMUTED)),
    "permuted-few-digits": pilot(SHIFT, 200, anew(30, 150, **PERMUTED)),
    "permuted-both-digits": pilot(SHIFT, 200, anew(30, 150, labels="permuted", **PERMUTED)),
    "permuted-labels-digits": pilot(SHIFT, 200, anew(30, 150, labels="permuted")),
    "permuted-narrow-digits": pilot(SHIFT, 200, anew(20, 300, **PERMUTED), (32, 32)),
    "permuted-deep-digits": pilot(SHIFT, 300, anew(30, 150, **PERMUTED), DEEP),
    "gradual-digits-10": pilot(SHIFT, 200, anew(30, 150, **PERMUTED, change=0.1)),
    "gradual-digits-50": pilot(SHIFT, 200, anew(30, 150, **PERMUTED, change=0.5)),
    "class-pairs-digits": pilot(
        "class-incremental",
        100,
        [{"classes": 2, "updates": 600}] * 4 + [{"classes": 2, "updates": 300}],
        stack=1,
    ),
    "class-pairs-narrow-digits": pilot(
        "class-incremental",
        100,
        [{"classes": 2, "updates": 1500}] * 4 + [{"classes": 2, "updates": 300}],
        (32, 32),
        stack=1,
    ),
    "i-mnist-1000": images("mnist", 1000, two(0.1, 0.5, 1500, 600), [16, 32], 64),
    "i-mnist-most": images("mnist", 2000, two(0.1, 0.8, 1500, 600), [8, 16], 64),
    "i-fashion-5000": images("fashion-mnist", 5000, two(0.1, 0.5, 1500, 800), [16, 32], 128),
    "i-cifar-2000": images("cifar10", 2000, two(0.2, 0.5, 1500, 600), [16, 32], 128),
    "i-cifar-5000": images("cifar10", 5000, two(0.1, 0.5, 1500, 800), [16, 32, 64], 128),
    "i-cifar-narrow-5000": images("cifar10", 5000, two(0.1, 0.5, 1500, 800), [8, 16, 32], 64),
    "i-cifar-clean-5000": images("cifar10", 5000, two(0.1, 0, 1500, 800), [16, 32, 64], 128, CLEAN),
    "i-cifar-cont-5000": images(
        "cifar10",
        5000,
        [{"new": 0.2, "wrong": w, "updates": 600} for w in (0.5, 0.4, 0.3, 0.2, 0.0)],
        [16, 32, 64],
        128,
        "continual",
    ),
    "noisy-most-cifar10": images("cifar10", 5000, two(0.1, 0.8, 1500, 800), *NARROW),
    "noisy-narrow-cifar10": images("cifar10", 5000, two(0.1, 0.5, 1500, 800), *NARROW),
    "noisy-10000-cifar10": images("cifar10", 10000, two(0.1, 0.5, 1500, 1200), *NARROW),
    "clean-narrow-cifar10": images("cifar10", 5000, two(0.1, 0, 3000, 800), *NARROW, CLEAN),
    "continual-narrow-cifar10": images(
        "cifar10",
        5000,
        [{"new": 0.2, "wrong": w, "updates": 500} for w in (0.5, 0.4, 0.3, 0.2, 0.0)],
        *NARROW,
        "continual",
    ),
    "pairs-cifar10": images(
        "cifar10",
        5000,
        [{"classes": 2, "updates": 400}] * 5,
        *NARROW,
        "class-incremental",
        stack=1,
    ),
}
"""By name: the name keys all draws."""
IMAGES = ("warm-start-cifar10-v2", "warm-start-aug-cifar10-v2", "continual-cifar10-v2")
"""What `--images` shortens: ResNet-18 without augmentation, with it, and in ten arrivals."""


def task_of(name: str) -> Task:
    """Return a pilot as a task."""
    task = parse_task({"name": f"{name}-v1", **PILOTS[name]}, name)
    assert isinstance(task, Task)
    return task


def shorter(name: str, share: float) -> Task:
    """Return a published task with this share of its epochs in every phase, one at least."""
    task = get_task(name)
    assert isinstance(task, Task)
    phases = tuple(
        dataclasses.replace(phase, epochs=max(1, round(share * phase.epochs)))
        for phase in task.phases
        if phase.epochs is not None
    )
    assert len(phases) == len(task.phases), name
    short = f"{name.removesuffix('-v2')}-share-{share:g}".replace(".", "-")
    return dataclasses.replace(task, name=f"{short}-v1", title=short, phases=phases)


def row(task: Task, device: str = "cpu") -> str:
    """Train both anchors and return the pilot's row."""
    name = task.name.removesuffix("-v1")
    return f"| `{name}` | {gap(task, SEEDS, 3, device, progress=device != 'cpu')} |"


def main() -> None:
    """Read the command line and print a row a pilot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the digits' pilots; else all")
    parser.add_argument("--images", default="", metavar="SHARE[,SHARE]", help="of the epochs")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    given = parser.parse_args()
    known(parser, given.names, PILOTS)
    try:
        shares = [float(share) for share in given.images.split(",") if share]
    except ValueError:
        parser.error(f"--images {given.images}: shares of the epochs are numbers, as 0.3,0.1")
    tasks = [shorter(name, share) for share in shares for name in IMAGES]
    for task in tasks or map(task_of, given.names or PILOTS):
        print(row(task, given.device), flush=True)


if __name__ == "__main__":
    main()
