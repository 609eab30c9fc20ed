"""The Method contract: hyperparameters in fields, behaviour in no-op hooks.

`attach` registers hooks on the optimizer, so the training loop is not touched: the same method
works in this package's loop and in any torch program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.fresh import redraw
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import is_stacked

Initialize = Callable[[], Mapping[str, Tensor]]
Generators = torch.Generator | list[torch.Generator]


@dataclass(eq=False)
class Method:
    """What keeps a network able to learn; this base does nothing, which is the method `none`.

    Subclass it as a dataclass, give it a `name`, and override the hooks it needs. A method
    instance serves one module: `attach` twice raises UsageError; `dataclasses.replace(method)`
    makes a fresh copy with the same hyperparameters.
    """

    name: ClassVar[str] = "none"
    network: ClassVar[Mapping[str, Any]] = {}
    """Changes to the task's `[net]` table, merged in before the network is built."""
    has_tortoise: ClassVar[bool] = False
    """Whether other weights than the trained ones are judged, so that both are logged."""

    module: nn.Module = field(init=False, repr=False)
    optimizer: torch.optim.Optimizer = field(init=False, repr=False)
    generator: Generators | None = field(init=False, default=None, repr=False)
    epoch_steps: int | None = field(init=False, default=None, repr=False)
    phases: int | None = field(init=False, default=None, repr=False)
    holds_resets: bool = field(init=False, default=False, repr=False)
    """Set by a loop in which weights must not jump between two updates on the same experience."""

    def attach(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        generator: Generators | None = None,
        initialize: Initialize | None = None,
    ) -> Self:
        """Bind to `module` and hook into `optimizer.step`; returns self.

        generator: the method's own randomness, one per seed of a stack. initialize: returns
        freshly drawn weights and buffers by name; without it they are redrawn by each layer's
        `reset_parameters`. Raises UsageError when attached already or when `optimizer` is no
        `torch.optim.Optimizer`.
        """
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UsageError(
                f"{type(self).__name__} needs a torch.optim.Optimizer, whose step it can hook "
                f"into; {type(optimizer).__name__} is not one."
            )
        if hasattr(self, "module"):
            raise UsageError(
                f"This {type(self).__name__} is attached already; attach a copy made with "
                "dataclasses.replace(method)."
            )
        self.module, self.optimizer, self.generator = module, optimizer, generator
        self._initialize = initialize or (lambda: redraw(module, generator))
        self._handles: list[Any] = []
        try:
            with torch.no_grad():
                self.setup()
        except BaseException:
            del self.module, self.optimizer  # a failed attach leaves nothing behind
            raise
        if type(self).before_step is not Method.before_step:
            hook = lambda *_: self._quietly(self.before_step)  # noqa: E731
            self._handles.append(optimizer.register_step_pre_hook(hook))
        if type(self).after_step is not Method.after_step:
            hook = lambda *_: self._quietly(self.after_step)  # noqa: E731
            self._handles.append(optimizer.register_step_post_hook(hook))
        return self

    def detach(self) -> None:
        """Remove the hooks; the module keeps the weights it has."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @staticmethod
    def _quietly(hook: Callable[[], None]) -> None:
        with torch.no_grad():
            hook()

    # ---- hooks to override ----

    def setup(self) -> None:
        """Run once, at attach: copies of weights, forward hooks."""

    def before_step(self) -> None:
        """Run when gradients are ready, after clipping: penalties."""

    def after_step(self) -> None:
        """Run when the weights have moved: averaging, clipping, resets."""

    def release(self) -> None:
        """Carry out what `holds_resets` held back; the loop is between experience and updates."""

    def phase_steps(self, index: int, steps: int) -> int:
        """Return how many of phase `index`'s steps to train; not more than `steps`."""
        return steps

    def on_phase(self, index: int) -> None:
        """The data changed (index ≥ 1); boundary-blind methods ignore it."""

    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        """Return a scalar to add to the loss, each seed's mean over samples summed; or None."""
        return None

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """Hold the weights to judge, in evaluation mode; weights and modes are restored after."""
        with evaluation_mode(self.module):
            yield self.module

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides module and optimizer: tensors, ints, lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; the method is attached to an equal module."""

    # ---- for loops ----

    def enter_phase(
        self, index: int, steps: int, epoch_steps: int | None, phases: int | None
    ) -> int:
        """Tell the method that phase `index` begins; returns how many steps to train in it.

        epoch_steps: optimizer steps of an epoch, None where there are none. phases: of the stream,
        None where that is not known.
        """
        self.epoch_steps, self.phases = epoch_steps, phases
        if index > 0:
            with torch.no_grad():
                self.on_phase(index)
        return max(0, min(steps, self.phase_steps(index, steps)))

    def checkpoint(self) -> dict[str, Any]:
        """Return `state_dict()` with the state of the method's own generators."""
        states = [generator.get_state() for generator in self._generators()]
        return {"state": self.state_dict(), "generators": states}

    def restore(
        self, saved: Mapping[str, Any], epoch_steps: int | None, phases: int | None
    ) -> None:
        """Take over a `checkpoint()` in the middle of a phase whose epoch has `epoch_steps`."""
        self.epoch_steps, self.phases = epoch_steps, phases
        with torch.no_grad():
            self.load_state_dict(saved["state"])
        for generator, state in zip(self._generators(), saved["generators"], strict=True):
            generator.set_state(state.cpu())

    def _generators(self) -> list[torch.Generator]:
        if self.generator is None:
            return []
        return self.generator if isinstance(self.generator, list) else [self.generator]

    # ---- for methods ----

    @property
    def stacked(self) -> bool:
        """Whether the module's tensors carry a leading seed dimension."""
        return is_stacked(self.module)

    def tensors(self) -> dict[str, Tensor]:
        """Return the module's parameters and buffers by name, sharing its storage."""
        named: dict[str, Tensor] = dict(self.module.named_parameters())
        named.update(self.module.named_buffers())
        return {name: tensor.detach() for name, tensor in named.items()}

    def fresh(self) -> Mapping[str, Tensor]:
        """Return freshly drawn weights and buffers by name; each call draws anew."""
        return self._initialize()

    def clear_optimizer_state(self, parameters: list[nn.Parameter] | None = None) -> None:
        """Forget the optimizer's moments of `parameters` (None: of all); the object stays."""
        if parameters is None:
            self.optimizer.state.clear()
            return
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)

    def interval(self, value: int | str | None) -> int | None:
        """Read an interval, "10 epochs" or optimizer steps, as steps of the present phase.

        Raises UsageError for anything else, or for epochs in a loop that does not tell them.
        """
        if not isinstance(value, str):
            return value
        epochs = read_epochs(value)
        if self.epoch_steps is None:
            raise UsageError(
                f"'{value}' needs a loop that tells the steps of an epoch; give steps instead."
            )
        return max(1, round(epochs * self.epoch_steps))


def read_epochs(interval: str) -> float:
    """Return the number in "10 epochs"; raises UsageError for any other text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s+epochs?\s*", interval)
    if match is None:
        raise UsageError(f"'{interval}' is no interval; write steps (1000) or '10 epochs'.")
    return float(match[1])
