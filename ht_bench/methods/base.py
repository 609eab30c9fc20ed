"""The Method contract: hyperparameters in fields, behaviour in no-op hooks.

`attach` registers hooks on the optimizer, so the training loop is not touched: the same method
works in this package's loop and in any torch program.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.copies import check_materialized
from ht_bench.methods.fresh import redraw
from ht_bench.methods.hooks import (
    CAPTURED_HOOKS,
    Optimizers,
    StepHooks,
    check_parameters,
    hookable,
    quietly,
    says_so,
)
from ht_bench.methods.hyperparameters import check_numbers, plain
from ht_bench.methods.moments import clear_moments
from ht_bench.methods.watch import Watch
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
    capturable: ClassVar[bool] = True
    """Whether `before_step`, `after_step` and `auxiliary_loss` are arithmetic on tensors whose
    storage stays: no count, no decision, no value read back on the host. Loops then run them inside
    a captured CUDA graph. A class that overrides one of them says so itself, or counts as not
    capturable."""

    module: nn.Module = field(init=False, repr=False)
    optimizer: torch.optim.Optimizer = field(init=False, repr=False)
    generator: Generators | None = field(init=False, default=None, repr=False)
    epoch_steps: int | None = field(init=False, default=None, repr=False)
    phases: int | None = field(init=False, default=None, repr=False)
    steps_seen: int = field(init=False, default=0, repr=False)
    """Optimizer steps seen since attach or `resync`, of a method that has a hook for steps."""
    holds_resets: bool = field(init=False, default=False, repr=False)
    """Set by a loop in which weights must not jump between two updates on the same experience."""
    is_advanced_by_loop: bool = field(init=False, default=False, repr=False)
    """Set by a loop that replays captured steps: it calls `advance`, which hooks then leave out."""
    clears_in_place: bool = field(init=False, default=False, repr=False)
    """Set by the same loop: moments are zeroed in their storage, which a graph holds."""

    def __post_init__(self) -> None:
        """Make plain Python numbers of NumPy's; raises UsageError for what is no finite number."""
        fields = [f.name for f in dataclasses.fields(self) if f.init]
        for name, value in plain(type(self), {f: getattr(self, f) for f in fields}).items():
            setattr(self, name, value)
        check_numbers(type(self), {f: getattr(self, f) for f in fields})

    def attach(
        self,
        module: nn.Module,
        optimizer: Optimizers,
        *,
        generator: Generators | None = None,
        initialize: Initialize | None = None,
    ) -> Self:
        """Bind to `module` and hook into `optimizer.step`; returns self.

        Args:
            module: the network, as it is at the start of training: copies of its weights are
                taken now. Load weights before, or call `resync` after.
            optimizer: what trains it; where several share the work, a list of all of them, in the
                order in which they step. A wrapper that holds the real one as `.optimizer`
                (accelerate, Lightning) is opened.
            generator: the method's own randomness, one per seed of a stack.
            initialize: returns freshly drawn weights and buffers by name; without it they are
                redrawn by each layer's `reset_parameters`.

        Raises:
            UsageError: attached already; no `torch.optim.Optimizer`; an optimizer of another
                module, or none for some trainable parameter; lazy layers without a shape. Nothing
                has changed then.

        """
        optimizers = hookable(type(self).__name__, optimizer)
        if hasattr(self, "module"):
            raise UsageError(
                f"This {type(self).__name__} is attached already; attach a copy made with "
                "dataclasses.replace(method)."
            )
        if self._acts:
            check_materialized(module)
            check_parameters(type(self).__name__, module, optimizers)
        self.module, self.optimizer, self.generator = module, optimizers[0], generator
        self._initialize = initialize
        try:
            quietly(self.setup)
            self._hooks = StepHooks(
                optimizers if self._acts else [],
                self.before_step if self._overrides("before_step") else None,
                self._stepped if any(map(self._overrides, _STEP_HOOKS)) else None,
            )
        except BaseException:
            del self.module, self.optimizer  # a failed attach leaves nothing behind
            raise
        self._watch = Watch(type(self).__name__, module, self._hooks)
        return self

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Method, name)

    @property
    def _acts(self) -> bool:
        """Whether weights, gradients or moments are touched at all."""
        return any(map(self._overrides, (*_STEP_HOOKS, "on_phase", "evaluating")))

    @property
    def captures(self) -> bool:
        """Whether a loop may run the method's part of a step inside a captured graph."""
        return self.capturable and says_so(type(self), "capturable", CAPTURED_HOOKS)

    def _stepped(self) -> None:
        self.after_step()
        if not self.is_advanced_by_loop:
            self.advance(1)

    def detach(self) -> None:
        """Remove the hooks; the module keeps the weights it has."""
        self._hooks.remove()

    def resync(self) -> None:
        """Take the module's present weights for the start: say so after loading or replacing some.

        What the method keeps of earlier weights (tortoise, θ0) becomes a copy of the present
        ones, parts replaced, added or resized since included, and its clock restarts. The
        optimizer is left alone. A method that keeps nothing has nothing to do.
        """
        self.steps_seen = 0
        self._watch.note()

    # ---- hooks to override ----

    def setup(self) -> None:
        """Run once, at attach: copies of weights, forward hooks."""

    def before_step(self) -> None:
        """Run when gradients are ready, after clipping: penalties.

        Of a step that is given a closure it runs after each of the closure's backward passes.
        """

    def after_step(self) -> None:
        """Run when the weights have moved: averaging, clipping."""

    def due(self) -> int | None:
        """Return after how many more steps, 1 or more, `act` is to run; None: after none."""
        return None

    def act(self) -> None:
        """Run between two steps, after the one that `due` names: resets, recycling."""

    def count_steps(self, steps: int) -> None:
        """Let host clocks go on by so many steps; `act` has not run for them yet."""
        self.steps_seen += steps

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
        if self._overrides("before_step") or self._overrides("after_step"):
            self._watch.look()
        with evaluation_mode(self.module):
            yield self.module

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides module and optimizer: tensors, ints, lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; the method is attached to an equal module."""

    # ---- for loops ----

    def advance(self, steps: int) -> bool:
        """Count `steps`, not more than are `due`, and act if that is due; returns whether it was.

        Optimizers' hooks do so after each step; a loop that replays captured steps does it itself.
        """
        due = self.due()
        self.count_steps(steps)
        if self.is_advanced_by_loop:
            self._hooks.fired += steps  # a replayed step calls no hook
        acts = due is not None and due <= steps
        if acts:
            with torch.no_grad():
                self.act()
        return acts

    def enter_phase(
        self, index: int, steps: int, epoch_steps: int | None, phases: int | None
    ) -> int:
        """Tell the method that phase `index` begins; returns how many steps to train in it.

        epoch_steps: optimizer steps of an epoch, None where there are none. phases: of the stream,
        None where that is not known.
        """
        self.epoch_steps, self.phases = epoch_steps, phases
        if index > 0:
            self._watch.look()
            with torch.no_grad():
                self.on_phase(index)
        self._watch.note()
        return max(0, min(steps, self.phase_steps(index, steps)))

    def checkpoint(self) -> dict[str, Any]:
        """Return `state_dict()` with the state of the method's own generators."""
        states = [generator.get_state() for generator in self._generators()]
        return {"state": self.state_dict(), "generators": states, "steps_seen": self.steps_seen}

    def restore(
        self, saved: Mapping[str, Any], epoch_steps: int | None, phases: int | None
    ) -> None:
        """Take over a `checkpoint()` in the middle of a phase whose epoch has `epoch_steps`.

        Raises UsageError, before anything is taken over, for a checkpoint of another network or
        method.
        """
        generators = self._generators()
        if not {"state", "generators"} <= set(saved) or len(saved["generators"]) != len(generators):
            raise UsageError(
                f"This is no checkpoint of this {type(self).__name__}: it needs 'state' and "
                f"{len(generators)} state(s) under 'generators'; pass what checkpoint() returned."
            )
        with torch.no_grad():
            try:
                self.load_state_dict(saved["state"])
            except KeyError as error:
                raise UsageError(
                    f"The checkpoint has no {error}: another method than "
                    f"{type(self).__name__} wrote it; restore it into that one."
                ) from error
        self.epoch_steps, self.phases = epoch_steps, phases
        self.steps_seen = saved.get("steps_seen", 0)
        for generator, state in zip(generators, saved["generators"], strict=True):
            generator.set_state(state.cpu())
        self._watch.note()

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

    def fresh(self, within: tuple[str, ...] = ("",)) -> Mapping[str, Tensor]:
        """Return freshly drawn weights and buffers by name; each call draws anew.

        within: prefixes of the names that are needed; a layer outside that cannot be redrawn is
        left as it is.
        """
        if self._initialize is not None:
            return self._initialize()
        return redraw(self.module, self.generator, within)

    def clear_optimizer_state(self, parameters: list[nn.Parameter] | None = None) -> None:
        """Forget the optimizer's moments of `parameters` (None: of the whole module).

        The optimizer objects stay, and the moments of other modules that they train too.
        """
        own = {id(p) for p in self.module.parameters()}
        for optimizer in self._hooks.optimizers or [self.optimizer]:
            given = (p for group in optimizer.param_groups for p in group["params"])
            if parameters is None and all(id(p) in own for p in given):
                clear_moments(optimizer, None, in_place=self.clears_in_place)
                continue
            chosen = list(self.module.parameters()) if parameters is None else parameters
            clear_moments(optimizer, chosen, in_place=self.clears_in_place)

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


_STEP_HOOKS = ("before_step", "after_step", "due", "act", "count_steps")


def read_epochs(interval: str) -> float:
    """Return the number in "10 epochs"; raises UsageError for any other text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s+epochs?\s*", interval)
    if match is None:
        raise UsageError(f"'{interval}' is no interval; write steps (1000) or '10 epochs'.")
    return float(match[1])
