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
from ht_bench.methods.contract import Contract
from ht_bench.methods.copies import check_materialized
from ht_bench.methods.fresh import redraw
from ht_bench.methods.hooks import Optimizers, StepHooks, check_parameters, hookable, quietly
from ht_bench.methods.hyperparameters import check_numbers, plain
from ht_bench.methods.loop import Loop
from ht_bench.methods.moments import clear_moments
from ht_bench.methods.watch import Watch
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import is_stacked

Initialize = Callable[[], Mapping[str, Tensor]]
Generators = torch.Generator | list[torch.Generator]


@dataclass(eq=False)
class Method(Contract):
    """What keeps a network able to learn; this base does nothing, which is the method `none`.

    Subclass it as a dataclass, give it a `name`, and override the hooks of `Contract` that it
    needs, or `evaluating`. A method instance serves one module: `attach` twice raises UsageError;
    `dataclasses.replace(method)` makes a fresh copy with the same hyperparameters.
    """

    name: ClassVar[str] = "none"

    module: nn.Module = field(init=False, repr=False)
    optimizer: torch.optim.Optimizer = field(init=False, repr=False)
    generator: Generators | None = field(init=False, default=None, repr=False)
    epoch_steps: int | None = field(init=False, default=None, repr=False)
    phases: int | None = field(init=False, default=None, repr=False)
    phase_length: int | None = field(init=False, default=None, repr=False)
    """Steps of the open phase; None in a loop that does not tell them."""
    loop: Loop = field(init=False, default_factory=Loop, repr=False)
    """What the loop offers beyond gradients and weights."""
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
        loop: Loop | None = None,
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
            loop: what the training program offers beyond gradients and weights.

        Raises:
            Unsuitable: the method needs what the loop does not offer.
            UsageError: attached already; no `torch.optim.Optimizer`; an optimizer of another
                module, or none for some trainable parameter; lazy layers without a shape. Nothing
                has changed then.

        """
        loop = loop or Loop()
        loop.check(self.name, self.needed())
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
        self._initialize, self.loop = initialize, loop
        try:
            quietly(self.setup)
            self._hooks = StepHooks(
                optimizers if self._acts else [],
                self.before_step if self._overrides("before_step") else None,
                self._stepped if any(map(self._overrides, _STEP_HOOKS)) else None,
                (self.ascend, self.descend) if self._overrides("ascend") else None,
                second_pass_by_loop=loop.second_pass,
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
        return any(map(self._overrides, (*_STEP_HOOKS, "ascend", "on_phase", "evaluating")))

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

    # ---- for loops ----

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """Hold the weights to judge, in evaluation mode; weights and modes are restored after."""
        if self._overrides("before_step") or self._overrides("after_step"):
            self._watch.look()
        with evaluation_mode(self.module):
            yield self.module

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
        self.epoch_steps, self.phases, self.phase_length = epoch_steps, phases, steps or None
        if index > 0:
            self._watch.look()
            with torch.no_grad():
                self.on_phase(index)
        self._watch.note()
        return max(0, min(steps, self.phase_steps(index, steps)))

    def checkpoint(self) -> dict[str, Any]:
        """Return `state_dict()` with the state of the method's own generators."""
        states = [generator.get_state() for generator in self._generators()]
        return {
            "state": self.state_dict(),
            "generators": states,
            "steps_seen": self.steps_seen,
            "phase_length": self.phase_length,
        }

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
        self.phase_length = saved.get("phase_length")
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
