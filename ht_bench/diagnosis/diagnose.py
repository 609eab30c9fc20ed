"""Train a given network and fresh twins alike, and say whether it has lost plasticity."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ht_bench.diagnosis import examples, symptoms
from ht_bench.diagnosis.examples import Examples
from ht_bench.diagnosis.report import Budget, Diagnosis, Gap
from ht_bench.diagnosis.training import (
    MakeOptimizer,
    batches,
    check,
    copied,
    fresh_twin,
    learning_curve,
    own_randomness,
)
from ht_bench.errors import UsageError
from ht_bench.networks.stacking import is_stacked

MARGIN, RANDOM_LABELS = 0.02, 2.5
"""The smallest gap that counts, and how many times as much of it on random labels."""
TEST_EXAMPLES = 10_000
EPOCHS = 40
"""Passes over the examples with random labels that the budget makes, if there are enough."""


def diagnose(
    module: nn.Module,
    data: Any,
    *,
    test: Any = None,
    fresh: Callable[[], nn.Module] | None = None,
    optimizer: MakeOptimizer | None = None,
    lr: float = 1e-3,
    margin: float = MARGIN,
    progress: bool = True,
    **budget: Any,
) -> Diagnosis:
    """Say whether this network, with these data, has plasticity loss.

    A copy of the network and a fresh twin are trained alike: the same batches in the same order,
    the same optimizer, the same number of steps; first on the data, then, with a new optimizer, on
    random labels for some of the same inputs, so that both have learned the data before. Several
    such pairs, which differ in split, order, random labels and fresh weights, give the gaps fresh −
    given and their intervals: of generalisation as Ash & Adams 2020 (1910.08475) measure it, of
    trainability on random labels as Lyle et al. 2023 (2303.01486) do.
    The module, its mode, and torch's random numbers are left bit for bit as they were.

    Args:
        module: any torch module that takes inputs [B, …] and returns one tensor, in the state to
            be diagnosed. What does not require a gradient stays frozen in both networks.
        data: training examples it is to learn: (inputs, labels), a Dataset or DataLoader of such
            pairs, or a dataset's name. Whole numbers are classes (cross-entropy, accuracy),
            floating labels are targets (squared error, explained share of the variance).
        test: test examples, in the same forms; by default a share of `data` is split off, anew in
            each pair. Examples that the network has been trained on flatter it.
        fresh: builds a fresh network; by default each layer's own `reset_parameters` draws.
        optimizer: makes the optimizer from parameters; by default AdamW.
        lr: learning rate of the default optimizer.
        margin: the smallest gap of test accuracy or explained variance that counts; on random
            labels, whose noise is greater, 2.5 times as much does.
        progress: say beforehand how long it takes, and show a bar, on stderr.
        **budget: fields of `Budget`: steps, pairs, batch, points, test_share, seed.

    Returns:
        The Diagnosis: `verdict`, `gaps`, `symptoms`; `str()` of it is a report.

    Raises:
        UsageError: for data, outputs and labels that do not fit together, a layer that cannot be
            redrawn, or a budget of nothing.

    """
    spec = _budget(budget, margin)
    run = _Run(module, spec, fresh, optimizer or _adamw(lr))
    run.read(data, test)
    with own_randomness(run.device):
        if progress:
            seconds = run.estimate()
            print(
                f"Training {spec.pairs} pairs, twice {spec.steps:,} steps: about "
                f"{max(seconds, 1):.0f} s.",
                file=sys.stderr,
            )
        total = 4 * spec.pairs * spec.steps
        with tqdm(total=total, unit="step", unit_scale=True, disable=not progress) as bar:
            begun = time.perf_counter()
            run.train(bar.update)
    return Diagnosis(run.gaps(margin), run.symptoms(), spec, time.perf_counter() - begun)


def _adamw(lr: float) -> MakeOptimizer:
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr)


def _budget(given: dict[str, Any], margin: float) -> Budget:
    try:
        spec = Budget(**given)
    except TypeError as error:
        raise UsageError(
            f"diagnose: {str(error).partition(') ')[2]}; a budget has "
            f"{', '.join(Budget.__dataclass_fields__)}."
        ) from error
    for name, least in (("steps", 1), ("pairs", 2), ("batch", 1), ("points", 1)):
        value = getattr(spec, name)
        if not isinstance(value, int) or value < least:
            raise UsageError(f"diagnose: {name} is {value}; give {least} or more.")
    if not 0 < spec.test_share < 1 or not margin > 0:
        raise UsageError(
            f"diagnose: test_share is {spec.test_share} and margin {margin}; the share lies "
            "between 0 and 1, the margin above 0."
        )
    return spec


class _Run:
    """The pairs of one diagnosis."""

    def __init__(
        self,
        module: nn.Module,
        budget: Budget,
        fresh: Callable[[], nn.Module] | None,
        make_optimizer: MakeOptimizer,
    ) -> None:
        self.module, self.budget, self.fresh = module, budget, fresh
        self.make_optimizer = make_optimizer
        parameter = next(module.parameters(), None)
        if parameter is None:
            raise UsageError(f"{type(module).__name__} has no parameters.")
        if is_stacked(module) and len(parameter) > 1:
            raise UsageError(
                f"{type(module).__name__} is a stack of {len(parameter)} networks; give one."
            )
        self.device = parameter.device
        grid = np.linspace(0, budget.steps, min(budget.points, budget.steps) + 1)
        self.points = tuple(dict.fromkeys(round(float(point)) for point in grid))
        self.curves: dict[tuple[str, str], list[list[float]]] = {}
        self.seen: list[dict[str, float]] = []

    def read(self, data: Any, test: Any) -> None:
        """Take the data, and check that they fit the network."""
        generator = torch.Generator().manual_seed(self.budget.seed)
        self.data, self.test = examples.read(data, generator)
        if test is not None:
            self.test = examples.read(test, generator)[0]
        self.data = self.data.to(self.device)
        self.test = self.test and self.test.to(self.device)
        if self.test and self.test.are_classes != self.data.are_classes:
            raise UsageError("Training labels and test labels are of different types.")
        if len(self.data) < 8 or (self.test is not None and not len(self.test)):
            raise UsageError(f"{len(self.data)} training examples are too few to learn from.")
        with own_randomness(self.device):
            self.classes = check(self.module, self.data)
            if self.test:
                check(self.module, self.test)

    def split(self, generator: torch.Generator) -> tuple[Examples, Examples]:
        """Return training and test examples of a pair."""
        order = torch.randperm(len(self.data), generator=generator)
        if self.test is not None:
            return self.data, self.test.take(order_of(self.test, generator))
        count = min(max(1, round(self.budget.test_share * len(order))), TEST_EXAMPLES)
        return self.data.take(order[count:]), self.data.take(order[:count])

    def train(self, advance: Callable[[int], Any]) -> None:
        """Train every pair on the data, then on random labels."""
        self.given_symptoms = symptoms.measured(self.module, self.data.inputs)
        for pair in range(self.budget.pairs):
            generator = torch.Generator().manual_seed(self.budget.seed * 1_000_003 + pair)
            twin = fresh_twin(self.module, generator, self.fresh)
            self.seen.append(symptoms.measured(twin, self.data.inputs))
            train, test = self.split(generator)
            few = train.take(torch.randperm(len(train), generator=generator)[: self.memorised()])
            random = few.with_random_labels(generator, self.classes)
            pairs = {"given": copied(self.module), "fresh": twin}
            for measure, (learned, evaluated) in {
                "test": (train, test),
                "random labels": (random, random),
            }.items():
                order = batches(len(learned), self.budget.batch, self.budget.steps, generator)
                noise = int(torch.randint(2**62, (1,), generator=generator).item())
                for name, network in pairs.items():
                    torch.manual_seed(noise)  # dropout's, the same for both
                    curve = learning_curve(
                        network, self.make_optimizer, learned, evaluated, order,
                        self.points, advance,
                    )  # fmt: skip
                    self.curves.setdefault((measure, name), []).append(curve)

    def memorised(self) -> int:
        """Return how many examples get random labels: what the budget passes over often enough."""
        return max(4 * self.budget.batch, self.budget.steps * self.budget.batch // EPOCHS)

    def estimate(self) -> float:
        """Return the seconds that `train` will take, from a few steps of a copy."""
        steps = min(10, self.budget.steps)
        order = batches(len(self.data), self.budget.batch, 2 * steps + 1, torch.Generator())
        generator = torch.Generator().manual_seed(self.budget.seed)
        test = self.split(generator)[1]
        taken = []
        for count in (1, steps, 2 * steps):  # the first warms up
            begun = time.perf_counter()
            learning_curve(
                copied(self.module), self.make_optimizer, self.data, test, order, (count,)
            )
            taken.append(time.perf_counter() - begun)
        step = max(taken[2] - taken[1], 0.0) / steps
        evaluation = max(taken[1] - steps * step, 0.0)
        return 4 * self.budget.pairs * (self.budget.steps * step + len(self.points) * evaluation)

    def gaps(self, margin: float) -> tuple[Gap, ...]:
        """Return both gaps, called by what they measure."""
        metric = "accuracy" if self.data.are_classes else "explained variance"
        return tuple(
            Gap(
                f"test {metric}" if measure == "test" else f"{metric} on random labels",
                margin if measure == "test" else RANDOM_LABELS * margin,
                self.points,
                np.array(self.curves[measure, "given"]),
                np.array(self.curves[measure, "fresh"]),
            )
            for measure in ("test", "random labels")
        )

    def symptoms(self) -> tuple[Any, ...]:
        """Return the symptoms of the given network beside its twins'."""
        return symptoms.compared(self.given_symptoms, self.seen)


def order_of(test: Examples, generator: torch.Generator) -> torch.Tensor:
    """Return which test examples a pair is evaluated on: all of them, or as many as allowed."""
    return torch.randperm(len(test), generator=generator)[:TEST_EXAMPLES]
