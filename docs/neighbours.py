"""How near Lookahead is to Hare & Tortoise, in numbers: `python docs/neighbours.py`.

Lookahead with k and α against Hare & Tortoise with an interval of k and 1 − μᵏ = α, so that the
weights of one interval have the same share in all. Some minutes on a CPU.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

import ht_bench
from ht_bench.methods.average import SlowCopy
from ht_bench.methods.base import Method
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.lookahead import Lookahead
from ht_bench.streams.catalog import get_task
from ht_bench.streams.data import load
from ht_bench.streams.task import Task
from ht_bench.training.supervised import SupervisedRun

PAIRS = ((5, 0.5), (20, 0.5), (50, 0.8))
SHOWN = (1, 2, 5, 10, 20)
"""Intervals after which distances are printed."""
SEEDS = tuple(range(10))


def methods(every: int, share: float) -> tuple[Lookahead, HareTortoise]:
    """Return the two, neither touching statistics nor moments."""
    decay = (1 - share) ** (1 / every)
    return Lookahead(every=every, share=share), HareTortoise(decay=decay, reset_every=every)


# ---- distances of the slow weights ----


class Trace:
    """The slow weights after each interval, one float64 row per seed."""

    def __init__(self, method: Method, every: int) -> None:
        self.method, self.every = method, every
        self.rows = [self._slow()]
        method.optimizer.register_step_post_hook(self._note)
        self._steps = 0

    def _slow(self) -> Tensor:
        slow: SlowCopy = getattr(self.method, "slow", None) or self.method.tortoise  # type: ignore[attr-defined]
        stacked = self.method.stacked
        tensors = [t.flatten(1) if stacked else t.reshape(1, -1) for t in slow.values]
        return torch.cat(tensors, 1).double()

    def _note(self, *_: object) -> None:
        self._steps += 1
        if self._steps % self.every == 0:
            self.rows.append(self._slow())


def quadratic(method: Method, every: int) -> list[Tensor]:
    """Descend ½ Σ hᵢ θᵢ² from ones, ten hᵢ from 0.01 to 1, by SGD with lr 0.5."""
    curvature = torch.logspace(-2, 0, 10, dtype=torch.float64)
    net = nn.Linear(10, 1, bias=False).double()
    nn.init.ones_(net.weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    trace = Trace(method.attach(net, optimizer), every)
    for _ in range(max(SHOWN) * every):
        net.weight.grad = curvature * net.weight.detach()
        optimizer.step()
    return trace.rows


def digits(method: Method, every: int) -> list[Tensor]:
    """Train the first phase of warm-start-digits-v1, shortened; the stack's seeds are 0 to 9."""
    task = get_task("warm-start-digits-v1")
    assert isinstance(task, Task)
    phase = dataclasses.replace(task.phases[0], updates=max(SHOWN) * every)
    short = dataclasses.replace(task, phases=(phase,))
    run = SupervisedRun(short, load("digits"), method, SEEDS, "validation")
    trace = Trace(method, every)
    run.train()
    return trace.rows


def distances(title: str, trained: tuple[list[Tensor], list[Tensor]]) -> None:
    """Print ‖s_L − s_H‖ / ‖s_L − s_0‖ and ‖s_H − s_0‖ / ‖s_L − s_0‖, means over seeds."""
    lookahead, tortoise = trained
    apart, way = [], []
    for index in SHOWN:
        whole = (lookahead[index] - lookahead[0]).norm(dim=1)
        apart.append(((lookahead[index] - tortoise[index]).norm(dim=1) / whole).mean())
        way.append(((tortoise[index] - tortoise[0]).norm(dim=1) / whole).mean())
    print(f"{title:34}" + "".join(f"{value:8.3f}" for value in apart), flush=True)
    print(f"{'  way from s0, H&T / Lookahead':34}" + "".join(f"{value:8.3f}" for value in way))


# ---- accuracies ----


def interval(differences: np.ndarray) -> str:
    """Return a mean with its 95 % interval, Student's."""
    mean, count = differences.mean(), len(differences)
    half = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def accuracies(task: str) -> None:
    """Print the final validation metric of the two and their paired differences."""
    plain = ht_bench.evaluate("none", task, SEEDS, split="validation", progress=False).final
    print(f"{task}: none {plain.mean():.4f}")
    for every, share in PAIRS:
        finals = [
            ht_bench.evaluate(method, task, SEEDS, split="validation", progress=False).final
            for method in methods(every, share)
        ]
        print(
            f"  k {every:3}, α {share}   {finals[0].mean():.4f}   {finals[1].mean():.4f}   "
            f"{interval(finals[0] - finals[1])}   {interval(finals[0] - plain)}",
            flush=True,
        )


def main() -> None:
    """Print all tables."""
    print(f"ht-bench {ht_bench.__version__}, torch {torch.__version__}, seeds 0-9")
    print("\nDistance of the slow weights after so many intervals, by the way of Lookahead's")
    print(f"{'':34}" + "".join(f"{index:8}" for index in SHOWN))
    for name, train in (("quadratic", quadratic), ("digits, AdamW", digits)):
        for every, share in PAIRS:
            first, second = (train(method, every) for method in methods(every, share))
            distances(f"{name}: k {every}, α {share}", (first, second))
    print("\nFinal metric, validation split: Lookahead, Hare & Tortoise, their paired difference,")
    print("and Lookahead's to none [95 % interval, Student's]")
    for task in ("warm-start-digits-v1", "continual-digits-v1"):
        accuracies(task)


if __name__ == "__main__":
    main()
