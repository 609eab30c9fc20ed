"""How often `ht_bench.diagnose` is right: `python docs/diagnosis.py` (10 minutes of one core).

20 networks with planted plasticity loss and 20 healthy ones are to learn the digits. Printed: each
network's two gaps and verdict, and how many of each kind are answered rightly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import ht_bench
from ht_bench.diagnosis.examples import read
from ht_bench.diagnosis.report import LOSS, Diagnosis

BUDGET = {"steps": 500, "pairs": 6, "lr": 2e-3}
TRAIN = read("digits", torch.Generator())[0]
X, Y = TRAIN.inputs, TRAIN.labels
Case = tuple[str, bool, Callable[[], nn.Module]]


def perceptron(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Return a fresh perceptron with two hidden layers of 128 units."""
    hidden = [nn.Linear(64, 128), activation(), nn.Linear(128, 128), activation()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))


def convolutional() -> nn.Module:
    """Return a fresh convolutional network with BatchNorm."""
    convolution = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(128, 64), nn.ReLU(),
                         nn.Linear(64, 10))  # fmt: skip


def trained(module: nn.Module, inputs: Tensor, labels: Tensor, steps: int, lr: float) -> nn.Module:
    """Train a network on batches of 64 with Adam and return it."""
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    for _ in range(steps):
        batch = torch.randint(len(inputs), (64,))
        optimizer.zero_grad()
        cross_entropy(module(inputs[batch]), labels[batch]).backward()
        optimizer.step()
    return module


def shuffled(module: nn.Module, rounds: int, lr: float = 3e-3) -> nn.Module:
    """Train on labels drawn at random, drawn anew in every round of 1,000 steps."""
    for _ in range(rounds):
        trained(module, X, torch.randint(10, Y.shape), 1_000, lr)
    return module


@torch.no_grad()
def exploded(module: nn.Module, factor: float) -> nn.Module:
    """Multiply every weight."""
    for parameter in module.parameters():
        parameter.mul_(factor)
    return module


@torch.no_grad()
def dead(count: int) -> nn.Module:
    """Give units of both hidden layers a bias at which they never fire."""
    module = perceptron()
    for layer in (module[1], module[3]):  # type: ignore[index]
        layer.bias[:count] = -100
    return module


@torch.no_grad()
def duplicate(kinds: int) -> nn.Module:
    """Let the units of both hidden layers be copies of a few, their outgoing weights too."""
    module = perceptron()
    for layer, after in ((module[1], module[3]), (module[3], module[5])):  # type: ignore[index]
        which = torch.arange(128) % kinds
        layer.weight.copy_(layer.weight[which])
        layer.bias.copy_(layer.bias[which])
        after.weight.copy_(after.weight[:, which])
    return module


def planted() -> Iterator[Case]:
    """Yield networks that have lost plasticity."""
    for rounds in (6, 8, 10, 12):
        yield (
            f"shuffled labels, {rounds},000 steps",
            True,
            lambda r=rounds: shuffled(perceptron(), r),
        )
    for rounds in (6, 10):
        yield (
            f"shuffled labels, {rounds},000 steps, tanh",
            True,
            lambda r=rounds: shuffled(perceptron(nn.Tanh), r),
        )
    for rounds in (8, 12):
        yield (
            f"shuffled labels, {rounds},000 steps, CNN",
            True,
            lambda r=rounds: shuffled(convolutional(), r),
        )
    for factor in (8, 10, 15, 20):
        yield f"weights × {factor}", True, lambda f=factor: exploded(perceptron(), f)
    for factor in (15, 30):
        yield f"weights × {factor}, tanh", True, lambda f=factor: exploded(perceptron(nn.Tanh), f)
    for count in (96, 104, 112, 120):
        yield f"{count} of 128 units dead", True, lambda c=count: dead(c)
    for kinds in (2, 4):
        yield f"units are copies of {kinds}", True, lambda k=kinds: duplicate(k)


def healthy() -> Iterator[Case]:
    """Yield networks that are fresh, or shortly trained on what they are to learn or alike."""
    odd, other = Y % 2 == 1, torch.tensor([3, 7, 0, 9, 1, 8, 2, 4, 5, 6])
    for index in range(4):
        yield f"fresh, draw {index}", False, perceptron
    for name, build in (("tanh", lambda: perceptron(nn.Tanh)), ("CNN", convolutional)):
        yield f"fresh, {name}", False, build
    for steps in (50, 100, 200, 300):
        yield (
            f"the data, {steps} steps",
            False,
            lambda s=steps: trained(perceptron(), X, Y, s, 1e-3),
        )
    yield "the data, 300 steps, CNN", False, lambda: trained(convolutional(), X, Y, 300, 1e-3)
    for share in (300, 600):
        yield (
            f"{share} of 1,297 examples, 300 steps",
            False,
            lambda n=share: trained(perceptron(), X[:n], Y[:n], 300, 1e-3),
        )
    for name, inputs, labels in (
        ("odd digits", X[odd], Y[odd]),
        ("even digits", X[~odd], Y[~odd]),
        ("classes renamed", X, other[Y]),
        ("images upside down", X.flip(2), Y),
        ("images mirrored", X.flip(3), Y),
        ("images inverted", -X, Y),
        ("images transposed", X.transpose(2, 3), Y),
    ):
        yield (
            f"{name}, 300 steps",
            False,
            lambda x=inputs, y=labels: trained(perceptron(), x, y, 300, 1e-3),
        )


def diagnosed(case: Case, seed: int) -> Diagnosis:
    """Make a network from its seed and diagnose it."""
    torch.manual_seed(seed)
    return ht_bench.diagnose(case[2](), "digits", progress=False, seed=seed, **BUDGET)


def main() -> None:
    """Print the table and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=int, default=20, help="so many of each kind")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    table = Table("network", "test", "random labels", "verdict", box=None)
    right = {True: 0, False: 0}
    alarms = 0
    cases = [*list(planted())[:only], *list(healthy())[:only]]
    for seed, case in enumerate(cases):
        answer = diagnosed(case, seed)
        gaps = [f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for e in
                (gap.estimate for gap in answer.gaps)]  # fmt: skip
        table.add_row(case[0], *gaps, answer.verdict)
        found = answer.verdict == LOSS
        right[case[1]] += found == case[1]
        alarms += found and not case[1]
        print(case[0], *gaps, answer.verdict, sep=" | ", flush=True)
    Console(width=120).print(table)
    print(f"planted and found: {right[True]}; healthy without an alarm: {right[False]}; "
          f"false alarms: {alarms}")  # fmt: skip


if __name__ == "__main__":
    main()
