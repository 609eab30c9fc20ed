"""check_method: a sound method of one's own passes, each planted fault is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.ema import ExponentialMovingAverage
from ht_bench.methods.resolve import resolve
from ht_bench.networks.modes import evaluation_mode
from ht_bench.testing import check_method

pytestmark = pytest.mark.usefixtures("one_thread_and_own_random_state")


@dataclass(eq=False)
class Counting(Method):
    """Sound: it resets its first layer every three steps, and keeps its count in a checkpoint."""

    every: int = 3

    def setup(self) -> None:
        self.steps = 0

    def after_step(self) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            next(self.module.parameters()).mul_(0.5)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


def test_a_sound_method_of_ones_own_passes() -> None:
    check_method(Counting)


# ---- one planted fault each ----


@dataclass(eq=False)
class NotJson(Method):
    """A hyperparameter is a set."""

    layers: Any = field(default_factory=lambda: {1, 2})


@dataclass(eq=False)
class AttachesTwice(Method):
    def attach(self, module: nn.Module, optimizer: Any, **options: Any) -> AttachesTwice:
        self.__dict__.pop("module", None)
        return super().attach(module, optimizer, **options)


@dataclass(eq=False)
class Shares(Method):
    """Its copy of the weights is the weights."""

    def setup(self) -> None:
        self.kept = [parameter.detach() for parameter in self.module.parameters()]

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}


@dataclass(eq=False)
class GlobalDraws(Method):
    """Noise from torch's generator in place of its own."""

    def after_step(self) -> None:
        for parameter in self.module.parameters():
            parameter.add_(1e-3 * torch.randn_like(parameter))


@dataclass(eq=False)
class Unequal(Method):
    """A counter that all copies share: the second run differs."""

    steps: ClassVar[list[int]] = [0]

    def after_step(self) -> None:
        self.steps[0] += 1
        for parameter in self.module.parameters():
            parameter.mul_(1 - 0.01 / self.steps[0])


@dataclass(eq=False)
class Replaces(Method):
    """New parameter objects at a boundary: the optimizer goes on with the old ones."""

    def on_phase(self, index: int) -> None:
        for child in self.module.modules():
            for name, parameter in list(child._parameters.items()):
                if parameter is not None:
                    child._parameters[name] = nn.Parameter(parameter.detach().clone())


@dataclass(eq=False)
class Freezes(Method):
    def on_phase(self, index: int) -> None:
        next(self.module.parameters()).requires_grad_(False)


@dataclass(eq=False)
class Noisy(Method):
    """Judged in training mode."""

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        yield self.module


@dataclass(eq=False)
class KeepsTortoise(ExponentialMovingAverage):
    """The judged weights stay in the network."""

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        with evaluation_mode(self.module):
            with torch.no_grad():
                for parameter in self.module.parameters():
                    parameter.mul_(0.9)
            yield self.module


@dataclass(eq=False)
class StaysEvaluating(Method):
    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        yield self.module.eval()


@dataclass(eq=False)
class CountsEvaluations(Counting):
    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        self.steps += 1
        with super().evaluating() as module:
            yield module


@dataclass(eq=False)
class Forgets(Counting):
    """Its clock is not in its state."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


@dataclass(eq=False)
class MixesSeeds(Method):
    """Weights are pulled to their mean over the stack."""

    def after_step(self) -> None:
        for parameter in self.module.parameters() if self.stacked else ():
            parameter.lerp_(parameter.mean(0, keepdim=True), 0.1)


@dataclass(eq=False)
class MixesLoss(Method):
    """A penalty on the norm over all seeds at once."""

    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        return outputs.square().sum().sqrt()


@dataclass(eq=False)
class SaysItCanBeCaptured(Counting):
    """Its clock stands still when a capture is replayed."""

    capturable = True


@dataclass(eq=False)
class ReadsBack(Method):
    capturable = True

    def after_step(self) -> None:
        for parameter in self.module.parameters():
            if float(parameter.norm()) > 1:
                parameter.mul_(0.9)


@dataclass(eq=False)
class MixesAtBoundaries(Method):
    """A norm over the whole stack, when the data change."""

    def on_phase(self, index: int) -> None:
        for parameter in self.module.parameters():
            parameter.mul_(2 / (1 + parameter.norm()))


@dataclass(eq=False)
class MixesJudged(Method):
    """Only the weights that are judged are mixed."""

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        kept = {name: tensor.clone() for name, tensor in self.tensors().items()}
        with super().evaluating() as module, torch.no_grad():
            for parameter in module.parameters() if self.stacked else ():
                parameter.copy_(parameter.mean(0, keepdim=True).expand_as(parameter))
            yield module
        for name, tensor in self.tensors().items():
            tensor.copy_(kept[name])


@dataclass(eq=False)
class MatricesOfLoneNetworks(Method):
    """On a stack it never acts: its matrices have three dimensions."""

    def on_phase(self, index: int) -> None:
        for name, parameter in self.module.named_parameters():
            if name.endswith("weight") and parameter.dim() == 2:
                parameter.mul_(0.5)


@dataclass(eq=False)
class LastLayer(Method):
    """A stack has no nn.Linear."""

    def on_phase(self, index: int) -> None:
        layers = [child for child in self.module.modules() if isinstance(child, nn.Linear)]
        layers[-1].weight.mul_(0.5)


@dataclass(eq=False)
class MisspeltHook(Method):
    def on_phase_start(self, index: int) -> None:
        for parameter in self.module.parameters():
            parameter.mul_(0.5)


@dataclass(eq=False)
class WrongSignature(Method):
    def on_phase(self) -> None:  # type: ignore[override]
        pass


@dataclass(eq=False)
class NotFinite(Method):
    def after_step(self) -> None:
        next(self.module.parameters()).fill_(float("nan"))


@dataclass(eq=False)
class ForgetsSuper(Method):
    def enter_phase(
        self, index: int, steps: int, epoch_steps: int | None, phases: int | None
    ) -> int:
        return steps


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (MixesAtBoundaries, "mixes the seeds of a stack"),
        (MixesJudged, "mixes the seeds of a stack"),
        (MatricesOfLoneNetworks, "treats a seed of a stack otherwise than a lone network"),
        (
            LastLayer,
            r"LastLayer fails: IndexError: list index out of range \(.*faults.py, line",
        ),
        (MisspeltHook, "on_phase_start is no hook, and no loop calls it. Did you mean 'on_phase'?"),
        (WrongSignature, r"on_phase takes \(self\).*; a loop calls it as on_phase\(self, index"),
        (NotFinite, "NotFinite makes weights that are not finite within 12 steps"),
        (ForgetsSuper, "enter_phase does not call super"),
        (SaysItCanBeCaptured, "trains otherwise when its steps are captured"),
        (ReadsBack, "A step cannot be captured"),
        (NotJson, "NotJson's hyperparameters are not JSON"),
        (AttachesTwice, "lets itself be attached twice"),
        (Shares, "Shares shares storage with the network; clone instead"),
        (GlobalDraws, "draws from torch's own generator; draw from self.generator"),
        (Unequal, "two runs of Unequal with equal seeds differ"),
        (Replaces, "replaces parameters at a boundary; change them in place"),
        (Freezes, "Freezes: '.*' does not train after a boundary"),
        (Noisy, "Noisy.evaluating does not put the network in evaluation mode"),
        (KeepsTortoise, "evaluating does not restore weights and buffers exactly"),
        (StaysEvaluating, "evaluating does not restore training modes"),
        (CountsEvaluations, "evaluating changes the method's or the optimizer's state"),
        (Forgets, "saved at step .* does not go on alike; put what it keeps into state_dict"),
        (MixesSeeds, "mixes the seeds of a stack; reduce over trailing dimensions"),
        (MixesLoss, "mixes the seeds of a stack"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_planted_fault_is_named(method: type[Method], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_method(method)


class Undecorated(Method):
    """Its annotated name would be no hyperparameter."""

    factor: float = 0.5


class Undecided(Method):
    factor: float


def test_fields_of_a_class_without_decorator() -> None:
    """By its class or name it is made a dataclass, as registering it does; an instance is late."""
    with pytest.raises(AssertionError, match="no hyperparameters .factor., since it is no data"):
        check_method(Undecorated())
    spec = resolve(Undecorated, overrides={"factor": 0.25})
    assert spec.hyperparameters == {"factor": 0.25}
    assert vars(spec.build())["factor"] == 0.25
    check_method(Undecorated)
    with pytest.raises(UsageError, match="no value for 'factor'; give the field a default, or --s"):
        check_method(Undecided)
