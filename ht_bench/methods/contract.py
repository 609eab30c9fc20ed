"""What a method says of itself and what it overrides: every hook here does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ht_bench.methods.hooks import CAPTURED_HOOKS, says_so
from ht_bench.methods.loop import BY_HOOK
from ht_bench.networks import filled


class Contract:
    """The hooks of a method, all no-ops, and its class's words for what loops must know."""

    name: ClassVar[str]
    network: ClassVar[Mapping[str, Any]] = {}
    """Changes to the task's `[net]` table, merged in before the network is built; a text "$name"
    stands for the hyperparameter `name`."""
    has_tortoise: ClassVar[bool] = False
    """Whether other weights than the trained ones are judged, so that both are logged."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What it needs of a loop beyond gradients and weights, words of `loop.NEEDS`; needs that
    follow from a hook that it overrides go without saying."""
    capturable: ClassVar[bool] = True
    """Whether the hooks that run within a step (CAPTURED_HOOKS) are arithmetic on tensors whose
    storage stays: no count, no decision, no value read back on the host. Loops then run them inside
    a captured CUDA graph. A class that overrides one of them says so itself, or counts as not
    capturable."""

    may_rest: ClassVar[bool] = False
    """Whether the rule may hold all weights still for some steps, so that no test expects each of
    them to move."""

    steps_seen: int

    @classmethod
    def needed(cls) -> frozenset[str]:
        """Return all that the method needs: what it says and what its hooks imply."""
        implied = {need for hook, need in BY_HOOK.items() if cls.overrides(hook)}
        if cls.network:
            implied.add("network")
        return cls.needs | implied

    def network_changes(self) -> dict[str, Any]:
        """Return `network` with this instance's hyperparameters in it."""
        return filled(self.network, vars(self))

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Whether the class has a hook of its own."""
        return getattr(cls, hook) is not getattr(Contract, hook)

    @property
    def captures(self) -> bool:
        """Whether a loop may run the method's part of a step inside a captured graph."""
        return self.capturable and says_so(type(self), "capturable", CAPTURED_HOOKS)

    # ---- once, or between steps ----

    def setup(self) -> None:
        """Run once, at attach: copies of weights, forward hooks."""

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

    # ---- within a step, in this order ----

    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        """Return a scalar to add to the loss, each seed's mean over samples summed; or None."""
        return None

    def ascend(self) -> None:
        """Move the weights, gradients ready: those of a second pass there replace the first's.

        In a program of one's own the step is given a closure, which runs twice.
        """

    def descend(self) -> None:
        """Put the weights back after the second pass."""

    def before_step(self) -> None:
        """Run when gradients are ready, after clipping: penalties.

        Of a step that is given a closure it runs after each of the closure's backward passes.
        """

    def after_step(self) -> None:
        """Run when the weights have moved: averaging, clipping."""

    # ---- phases ----

    def phase_steps(self, index: int, steps: int) -> int:
        """Return how many of phase `index`'s steps to train; not more than `steps`."""
        return steps

    def on_phase(self, index: int) -> None:
        """The data changed (index ≥ 1); boundary-blind methods ignore it."""

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides module and optimizer: tensors, ints, lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; the method is attached to an equal module."""


def own_name(cls: type[Contract]) -> str:
    """Return the `name` that the class itself says, never one that it inherits; or its own."""
    own = vars(cls).get("name")
    return own if isinstance(own, str) else cls.__name__
