"""Continual backprop: a small share of the least useful units is replaced all the time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.recycling import UnitMethod, mean, take
from ht_bench.networks.units import Units, columns

LOOK_AHEAD = 10_000
"""Steps for which it is worked out when the next unit is due."""


@dataclass(eq=False)
class ContinualBackprop(UnitMethod):
    """At each step a share ρ of a layer's mature units is replaced, the least useful first.

    Dohare et al. 2024 (Nature 632; 2306.13812, Algorithm 1), the contribution utility of its code:
    u ← η u + (1−η) Σ|w_out| E|h|, with η = `decay`, corrected for its age by 1 − η^age. A unit is
    mature when older than `maturity` steps; ρ = `replacement_rate` times the number of mature
    units adds up until a whole unit is due. How many that are follows from ages alone, which are
    the same for every seed; which ones, from each seed's utilities. ρ = 0 replaces none.

    A replaced unit gets incoming weights from Kaiming's uniform distribution, ±√(6/fan_in), bias 0
    and the normalisation that it had at attach (`initialization` "fresh": all as a network drawn
    anew has it), outgoing weights and moments 0.
    What it gave to a following linear layer on average goes into that layer's bias, as in the
    paper's code (not behind convolutions, as there).
    """

    name = "continual-backprop"
    capturable = True

    replacement_rate: float = 1e-4
    maturity: int = 100
    decay: float = 0.99
    initialization: Literal["kaiming", "fresh"] = "kaiming"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.replacement_rate <= 1:
            raise UsageError(
                f"replacement_rate = {self.replacement_rate}: a share lies between 0 and 1."
            )
        if (
            not isinstance(self.maturity, int)
            or isinstance(self.maturity, bool)
            or self.maturity < 0
        ):
            raise UsageError(f"maturity = {self.maturity!r}: give 0 steps or more.")
        if not 0 <= self.decay < 1:
            raise UsageError(f"decay = {self.decay}: a decay lies between 0 and 1, 1 left out.")
        if self.initialization not in ("kaiming", "fresh"):
            raise UsageError(f"initialization = {self.initialization!r}: 'kaiming' or 'fresh'.")

    @property
    def recycles(self) -> bool:
        """Whether a unit will ever be due."""
        return self.replacement_rate > 0

    def setup(self) -> None:
        """Begin with utilities and ages of zero."""
        super().setup()
        watched = self.groups if self.recycles else []
        self._utilities = [self.zeros(units, 1) for units in watched]
        self._means = [self.zeros(units, units.features) for units in watched]
        self._ages = [self.zeros(units, 1) for units in watched]
        self._clocks = [
            Clock(units.count, self.replacement_rate, self.maturity) for units in watched
        ]
        if not hasattr(self, "_at_first"):
            self._at_first = dict(self._normalisations())
        self._steps, self._waiting = 0, [0] * len(watched)
        self._plan()

    def _normalisations(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what normalises units, by name, as it is now: at attach, new."""
        for name in {name: None for units in self.groups for name, _ in units.per_unit}:
            child = self.module.get_submodule(name)
            for key, tensor in (*child.named_parameters(), *child.named_buffers()):
                yield f"{name}.{key}", tensor.detach().clone()

    def rows_of(self, units: Units) -> int:
        """Return 1 for E|h|, and one for the mean of each feature."""
        return 1 + units.features

    def observe(self, features: Tensor, between: tuple[int, ...]) -> Tensor:
        """Return E|h| of each unit and the mean of each of its features, [S?, rows, units]."""
        means = mean(features, between)
        return torch.cat((mean(features.abs(), between).mean(-2, keepdim=True), means), -2)

    @torch.no_grad()
    def after_step(self) -> None:
        """Let units age by a step, and utilities and means follow."""
        for place, value in enumerate(self.activity):
            self._ages[place].add_(1)
            contribution = value[..., :1, :] * self._outgoing_size(self.groups[place])
            self._utilities[place].lerp_(contribution, 1 - self.decay)
            self._means[place].lerp_(value[..., 1:, :], 1 - self.decay)

    def _outgoing_size(self, units: Units) -> Tensor:
        """Return Σ|w_out| of each unit, [S?, 1, units], over features and positions.

        Behind a flattened map the paper's code multiplies position by position; here a channel's
        mean is weighed by the sum over its positions.
        """
        sizes = []
        for outgoing in units.outgoing:
            weight = self.module.get_submodule(outgoing.layer).get_parameter("weight")
            lead = int(self.stacked)
            view = weight.detach().unflatten(
                lead + 1, (outgoing.features, units.count, outgoing.positions)
            )
            others = [d for d in range(lead, view.dim()) if d != lead + 2]
            sizes.append(view.abs().sum(others))
        return torch.stack(sizes).sum(0).unsqueeze(-2)

    # ---- when: on the host, from ages alone ----

    def _plan(self) -> None:
        """Work out after which step the next whole unit is due, in whatever layer."""
        dues = [clock.due(self._steps) for clock in self._clocks]
        self._next = min((due for due in dues if due is not None), default=None)

    def due(self) -> int | None:
        """Return the steps until the next unit is due."""
        return None if self._next is None else max(1, self._next - self._steps)

    def count_steps(self, steps: int) -> None:
        """Let the clock go on."""
        super().count_steps(steps)
        self._steps += steps

    def act(self) -> None:
        """Note how many units of each layer are due, and replace them or hold that back."""
        for place, clock in enumerate(self._clocks):
            self._waiting[place] += clock.take(self._steps)
        if any(self._waiting):
            super().act()
        self._plan()

    def renew(self) -> None:
        """Replace the units that are due."""
        counts = [
            clock.replaced(self._steps, count)
            for clock, count in zip(self._clocks, self._waiting, strict=True)
        ]
        self._waiting = [0] * len(counts)
        lowest = [self._least_useful(place, count) for place, count in enumerate(counts)]
        masks = [self._mask(place, units) for place, units in enumerate(lowest)]
        for place, mask in enumerate(masks):
            if mask is not None:
                self._move_into_bias(place, mask)
        self.recycle(masks, self._incoming(lowest))
        for place, mask in enumerate(masks):
            if mask is not None:
                for kept in (self._utilities, self._means, self._ages):
                    kept[place].masked_fill_(mask.unsqueeze(-2), 0)
        self._plan()

    # ---- which, and what they get ----

    def _corrected(self, place: int, values: Tensor) -> Tensor:
        """Return running means as if they had not begun at zero; units of age 0 have none."""
        # A Python number to a tensor's power would be computed in fp32 for a double's age too.
        kept = torch.exp(self._ages[place] * math.log(self.decay)) if self.decay else 0.0
        return values / (1 - kept + (self._ages[place] == 0))

    def _least_useful(self, place: int, count: int) -> Tensor | None:
        """Return each seed's `count` mature units of lowest utility, [S?, count]; None for none."""
        if not count:
            return None
        utilities = self._corrected(place, self._utilities[place])
        immature = self._ages[place] <= self.maturity
        worth = utilities.masked_fill(immature, math.inf).squeeze(-2)
        return worth.topk(count, dim=-1, largest=False).indices

    def _mask(self, place: int, units: Tensor | None) -> Tensor | None:
        if units is None:
            return None
        mask = torch.zeros_like(self._ages[place].squeeze(-2), dtype=torch.bool)
        return mask.scatter_(-1, units, True)

    def _move_into_bias(self, place: int, mask: Tensor) -> None:
        units = self.groups[place]
        if units.channel != -1:
            return
        means = self._corrected(place, self._means[place]) * mask.unsqueeze(-2)
        for outgoing in units.outgoing:
            layer = self.module.get_submodule(outgoing.layer)
            if layer._parameters.get("bias") is None:
                continue
            view, _ = columns(outgoing, mask, layer.get_parameter("weight").detach())
            given = view.squeeze(-1) * means.unsqueeze(int(self.stacked)).to(view.dtype)
            layer.get_parameter("bias").add_(given.sum((-2, -1)))

    def _incoming(self, lowest: Sequence[Tensor | None]) -> Mapping[str, Tensor]:
        if self.initialization == "fresh":
            return self.fresh()
        fresh = dict(self._at_first)
        for units, chosen in zip(self.groups, lowest, strict=True):
            layer = self.module.get_submodule(units.layer)
            for key, tensor in layer.named_parameters(recurse=False) if chosen is not None else ():
                fresh[f"{units.layer}.{key}"] = torch.zeros_like(tensor)
            if chosen is not None:
                self._draw_kaiming(fresh[f"{units.layer}.weight"], chosen)
        return fresh

    def _draw_kaiming(self, weight: Tensor, chosen: Tensor) -> None:
        """Draw the chosen rows from ±√(6/fan_in), each seed's from its own generator."""
        row = weight.shape[1 + int(self.stacked) :]
        bound = math.sqrt(6 / math.prod(row))
        slots = list(weight) if self.stacked else [weight]
        sources = itertools.cycle(self._generators() or [None])
        for slot, units, source in zip(slots, chosen.view(len(slots), -1), sources, strict=False):
            drawn = torch.rand(len(units), *row, generator=source) * (2 * bound) - bound
            slot[units] = drawn.to(slot)  # assigned by index: into the slot, not into a copy

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Return utilities, means, ages and clocks."""
        kept = (("utilities", self._utilities), ("means", self._means), ("ages", self._ages))
        tensors = {key: {str(i): t for i, t in enumerate(values)} for key, values in kept}
        clocks = [clock.state() for clock in self._clocks]
        own = {"steps": self._steps, "waiting": list(self._waiting), "clocks": clocks}
        return {**super().state_dict(), **tensors, **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over utilities, means, ages and clocks."""
        super().load_state_dict(state)
        for key, tensors in (
            ("utilities", self._utilities),
            ("means", self._means),
            ("ages", self._ages),
        ):
            take(tensors, state[key])
        for clock, saved in zip(self._clocks, state["clocks"], strict=True):
            clock.load(saved)
        self._steps, self._waiting = state["steps"], list(state["waiting"])
        self._plan()


class Clock:
    """When units of one layer are due: ρ times the number of mature ones, added up step by step.

    A unit's age is 1 after its first step, so that it is mature after `maturity` + 1 of them.
    """

    def __init__(self, count: int, rate: float, maturity: int) -> None:
        self._count, self._rate, self._maturity = count, rate, maturity
        self._sum, self._until = 0.0, 0
        self._young: list[list[int]] = [[0, count]]
        """When units were made new, and how many, of those that are not mature at `_until`."""

    def _mature(self, step: int) -> int:
        young = sum(count for made, count in self._young if step - made <= self._maturity)
        return self._count - young

    def due(self, now: int) -> int | None:
        """Return the first step after `now` at which the sum reaches 1, or where to look again."""
        total = self._sum
        for step in range(self._until + 1, now + LOOK_AHEAD + 1):
            total += self._rate * self._mature(step)
            if total >= 1 and step > now:
                return step
        return now + LOOK_AHEAD

    def take(self, now: int) -> int:
        """Return how many whole units are due up to step `now`, and take them off the sum."""
        for step in range(self._until + 1, now + 1):
            self._sum += self._rate * self._mature(step)
        self._until = now
        whole = int(self._sum)
        self._sum -= whole
        return whole

    def replaced(self, now: int, count: int) -> int:
        """Note that so many units, or as many as are mature, become new; returns the number."""
        number = min(count, self._mature(now))
        self._young = [entry for entry in self._young if now - entry[0] <= self._maturity]
        if number:
            self._young.append([now, number])
        return number

    def state(self) -> list[Any]:
        """Return what `load` takes."""
        return [self._sum, self._until, [list(entry) for entry in self._young]]

    def load(self, saved: list[Any]) -> None:
        """Take over another clock's state."""
        self._sum, self._until = float(saved[0]), int(saved[1])
        self._young = [[int(made), int(count)] for made, count in saved[2]]
