"""What methods that recycle hidden units share: watching them, and giving some fresh weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.moments import clear_entries
from ht_bench.networks.units import Units, columns, features_of, find_units, per_feature, rows

Observe = Callable[[Tensor, tuple[int, ...]], Tensor]
"""Activations [S?, ..., features, units] and the dimensions between → [S?, rows, units]."""


class Activity:
    """What one layer's units did in the last training batch: `value` [S?, rows, units].

    Seen after the non-linearity, in training mode with gradients on: evaluation and rollouts leave
    no trace. The value keeps its storage, for steps that are captured.
    """

    def __init__(self, value: Tensor, units: Units, observe: Observe) -> None:
        self.value, self._units, self._observe = value, units, observe

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        """Observe the output of the units' non-linearity: a forward hook."""
        if not (module.training and torch.is_grad_enabled()):
            return
        with torch.no_grad():
            stacked = self.value.dim() > 2
            features, between = features_of(self._units, output.detach(), stacked)
            if self.value.device != output.device:  # the module has moved
                self.value = self.value.to(output.device)
            self.value.copy_(self._observe(features, between))

    def __reduce__(self) -> tuple[Any, ...]:
        """Stay out of copies of the module, which has a method of its own or none."""
        return _Inert, ()


class _Inert:
    def __call__(self, *_: object) -> None:
        pass


@dataclass(eq=False)
class UnitMethod(Method):
    """A method that recycles hidden units, those that `networks.units.find_units` finds.

    attach raises UsageError for a module in which there are none. Subclasses say whether their
    hyperparameters let them recycle at all (`recycles`); where not, nothing is watched and training
    is bit-identical to `none`.
    """

    needs = frozenset({"activations"})
    capturable = True

    @property
    def recycles(self) -> bool:
        """Whether units can be recycled with these hyperparameters."""
        return True

    def setup(self) -> None:
        """Find the units and watch them."""
        self.groups = find_units(self.module)
        self._held = False
        self._handles: list[Any] = []
        self._activities: list[Activity] = []
        if self.recycles and self.needs:
            for units in self.groups:
                self._watch_units(units)

    def _watch_units(self, units: Units) -> None:
        value = self.zeros(units, self.rows_of(units))
        activation = self.module.get_submodule(units.activation)
        for key, hook in list(activation._forward_hooks.items()):
            if isinstance(hook, _Inert):
                del activation._forward_hooks[key]
        activity = Activity(value, units, self.observe)
        self._activities.append(activity)
        self._handles.append(activation.register_forward_hook(activity))

    def zeros(self, units: Units, rows: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return zeros [S?, rows, units] where the units' weights lie, at least of 32 bits."""
        weight = self.module.get_submodule(units.layer).get_parameter("weight")
        wide = torch.promote_types(weight.dtype, torch.float32) if dtype is None else dtype
        seeds = weight.shape[: int(self.stacked)]
        return torch.zeros(*seeds, rows, units.count, dtype=wide, device=weight.device)

    def rows_of(self, units: Units) -> int:
        """Return how many numbers of each unit `observe` returns."""
        return 1

    def observe(self, features: Tensor, between: tuple[int, ...]) -> Tensor:
        """Return E|h| of each unit over examples, positions and its features, [S?, 1, units]."""
        return mean(features.abs(), between).mean(-2, keepdim=True)

    @property
    def activity(self) -> list[Tensor]:
        """What `observe` returned for the last training batch, per group [S?, rows, units]."""
        return [activity.value for activity in self._activities]

    def detach(self) -> None:
        """Remove the hooks of the optimizer and of the units."""
        super().detach()
        self._stop_watching()

    def _stop_watching(self) -> None:
        for handle in self._handles:
            handle.remove()

    def resync(self) -> None:
        """Look for the units anew, and forget what was seen of them."""
        self._stop_watching()
        self.setup()
        super().resync()

    # ---- when ----

    def act(self) -> None:
        """Recycle, or note that this is held back."""
        self._held = self.holds_resets
        if not self._held:
            self.renew()

    @torch.no_grad()
    def release(self) -> None:
        """Recycle what was held back."""
        if self._held:
            self._held = False
            self.renew()

    def renew(self) -> None:
        """Choose units and recycle them."""
        raise NotImplementedError

    # ---- what ----

    def recycle(self, masks: Sequence[Tensor | None], fresh: Mapping[str, Tensor]) -> None:
        """Give the masked units of each group, [S?, units] (None: none), `fresh` incoming weights.

        Bias and what normalises the unit become fresh too, its outgoing weights zero, and the
        optimizer forgets its moments of exactly these entries. Outgoing weights come last, since
        they are incoming weights of the next layer. No value is read back to the host.
        """
        pairs = zip(self.groups, masks, strict=True)
        chosen = [(units, mask) for units, mask in pairs if mask is not None]
        for units, mask in chosen:
            self._renew_incoming(units, mask, fresh)
        for units, mask in chosen:
            self._cut_outgoing(units, mask)

    def _renew_incoming(self, units: Units, mask: Tensor, fresh: Mapping[str, Tensor]) -> None:
        for name, features in ((units.layer, 1), *units.per_unit):
            module = self.module.get_submodule(name)
            chosen = per_feature(mask, features)
            parameters = dict(module.named_parameters(recurse=False))
            for key, tensor in (*parameters.items(), *module.named_buffers(recurse=False)):
                if tensor.dim() < mask.dim():
                    continue  # a count of batches, or a seed's
                full = f"{name}.{key}" if name else key
                if full not in fresh:
                    raise UsageError(
                        f"initialize() returned no '{full}'; return every weight and buffer."
                    )
                mine = rows(chosen, tensor)
                tensor.copy_(torch.where(mine, fresh[full].to(tensor), tensor))
                if key in parameters:
                    self._forget(tensor, partial(_rows_of, chosen))

    def _cut_outgoing(self, units: Units, mask: Tensor) -> None:
        for outgoing in units.outgoing:
            weight = self.module.get_submodule(outgoing.layer).get_parameter("weight")
            # Into a view: w[mask] alone would be a copy, and the weights would stay.
            view, mine = columns(outgoing, mask, weight.detach())
            view.masked_fill_(mine, 0)
            self._forget(weight, partial(columns, outgoing, mask))

    def _forget(self, parameter: Tensor, part: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        def fill(moment: Tensor, value: float) -> None:
            view, mine = part(moment)
            view.masked_fill_(mine, value)

        for optimizer in self._hooks.optimizers:
            clear_entries(optimizer, parameter, fill)

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen of the units last, and whether recycling is held back."""
        seen = {str(place): value for place, value in enumerate(self.activity)}
        return {"held": self._held, "activity": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._held = state["held"]
        take(self.activity, state["activity"])


@dataclass(eq=False)
class PeriodicRecycling(UnitMethod):
    """Every `every` optimizer steps the units that `chosen` names are recycled.

    One fresh network is drawn each time, whether a unit needs it or not, so that what a seed draws
    does not depend on its mates.
    """

    every: int = 1_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.every, int) or isinstance(self.every, bool) or self.every < 1:
            raise UsageError(f"every = {self.every!r}: give 1 step or more.")

    def setup(self) -> None:
        """Start the clock at zero."""
        super().setup()
        self._steps = 0

    def due(self) -> int | None:
        """Return the steps until the interval is full."""
        return max(1, self.every - self._steps) if self.recycles else None

    def count_steps(self, steps: int) -> None:
        """Let the clock go on."""
        super().count_steps(steps)
        self._steps += steps

    def act(self) -> None:
        """Restart the clock, and recycle or hold that back."""
        self._steps = 0
        super().act()

    def renew(self) -> None:
        """Recycle the chosen units of every group."""
        self.recycle(self.chosen(), self.fresh())

    def chosen(self) -> list[Tensor]:
        """Return which units to recycle, per group a mask [S?, units]."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the clock too."""
        return {**super().state_dict(), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the clock too."""
        super().load_state_dict(state)
        self._steps = state["steps"]


def _rows_of(mask: Tensor, tensor: Tensor) -> tuple[Tensor, Tensor]:
    return tensor, rows(mask, tensor)


def mean(values: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """Return the mean over `dimensions`, computed and kept in at least 32 bits."""
    return values.mean(dimensions, dtype=torch.promote_types(values.dtype, torch.float32))


def shares(values: Tensor) -> Tensor:
    """Return each unit's value as a multiple of the mean over its layer, [..., units].

    A layer of zeros has shares of zero.
    """
    return values / values.mean(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)


def take(tensors: Sequence[Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy saved tensors, by their places, into `tensors`; raises KeyError where one is missing."""
    for place, tensor in enumerate(tensors):
        tensor.copy_(saved[str(place)])
