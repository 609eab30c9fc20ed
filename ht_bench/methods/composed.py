"""Several methods at once: `hare-tortoise+redo` attaches both, in that order."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Generators, Initialize, Method
from ht_bench.methods.contract import own_name
from ht_bench.methods.hooks import Optimizers
from ht_bench.methods.loop import Loop
from ht_bench.networks import filled

BETWEEN = "__"
"""Stands between a part's name and its hyperparameter: `redo__every`, also written redo.every."""
SHARED = (
    "epoch_steps",
    "phases",
    "phase_length",
    "holds_resets",
    "is_advanced_by_loop",
    "clears_in_place",
)
"""What a loop sets on a method, and is passed on to its parts."""


class Composed(Method):
    """Methods attached to one network in order; `compose` makes the class of each combination.

    Every hook of a step runs in that order, the weights judged are the last one's that judges
    others than the trained, the shortest phase counts, and auxiliary losses add up. Fresh weights
    and random numbers come from one generator, in order.
    """

    classes: ClassVar[tuple[type[Method], ...]] = ()

    def __post_init__(self) -> None:
        self.parts = [
            cls(**{f.name: getattr(self, _key(cls, f.name)) for f in _fields(cls)})
            for cls in self.classes
        ]
        for cls, part in zip(self.classes, self.parts, strict=True):
            for f in _fields(cls):  # a part makes plain numbers of NumPy's
                object.__setattr__(self, _key(cls, f.name), getattr(part, f.name))

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in SHARED:
            for part in vars(self).get("parts", ()):
                setattr(part, name, value)

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Whether one of the parts has a hook of its own."""
        return any(part.overrides(hook) for part in cls.classes)

    @classmethod
    def needed(cls) -> frozenset[str]:
        """Return what the parts need."""
        return frozenset().union(*(part.needed() for part in cls.classes))

    @property
    def captures(self) -> bool:
        """Whether all of the parts can be captured."""
        return all(part.captures for part in self.parts)

    def attach(
        self,
        module: nn.Module,
        optimizer: Optimizers,
        *,
        generator: Generators | None = None,
        initialize: Initialize | None = None,
        loop: Loop | None = None,
    ) -> Composed:
        """Attach every part, in order; if one refuses, the ones before it are detached."""
        attached: list[Method] = []
        for part in self.parts:
            try:
                part.attach(
                    module, optimizer, generator=generator, initialize=initialize, loop=loop
                )
            except BaseException:
                for other in attached:
                    other.detach()
                    del other.module, other.optimizer
                raise
            attached.append(part)
        self.module, self.optimizer = module, self.parts[0].optimizer
        self.generator, self.loop = generator, self.parts[0].loop
        self._watch = self.parts[0]._watch
        return self

    def detach(self) -> None:
        """Detach every part."""
        for part in self.parts:
            part.detach()

    def resync(self) -> None:
        """Take the present weights for the start, in every part."""
        for part in self.parts:
            part.resync()

    def release(self) -> None:
        """Carry out what was held back, in order."""
        for part in self.parts:
            part.release()

    def due(self) -> int | None:
        """Return the steps until the first part has to act."""
        due = [steps for part in self.parts if (steps := part.due()) is not None]
        return min(due, default=None)

    def advance(self, steps: int) -> bool:
        """Let every part's clock go on, in order; returns whether one acted."""
        acted = [part.advance(steps) for part in self.parts]
        self.steps_seen += steps
        return any(acted)

    def enter_phase(
        self, index: int, steps: int, epoch_steps: int | None, phases: int | None
    ) -> int:
        """Tell every part, in order; returns the shortest of what they train."""
        self.epoch_steps, self.phases, self.phase_length = epoch_steps, phases, steps or None
        if index > 0:
            for part in self.parts:  # before one of them moves weights
                part._watch.look()
        allowed = []
        for part in self.parts:
            allowed.append(part.enter_phase(index, steps, epoch_steps, phases))
            for other in self.parts:  # what a part did is no step that the others missed
                other._watch.note()
        return min(allowed)

    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        """Return the sum of the parts' losses."""
        losses = [part.auxiliary_loss(inputs, outputs) for part in self.parts]
        given = [loss for loss in losses if loss is not None]
        return functools.reduce(Tensor.add, given) if given else None

    def ascend(self) -> None:
        """Move the weights as the part that passes twice does."""
        for part in self.parts:
            part.ascend()

    def descend(self) -> None:
        """Put the weights back."""
        for part in reversed(self.parts):
            part.descend()

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """Hold the weights that the last part judges, over those of the parts before it."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.evaluating())
            yield self.module

    @property
    def tortoise(self) -> Any:
        """The slow copy of the last part that has one."""
        for part in reversed(self.parts):
            if hasattr(part, "tortoise"):
                return part.tortoise
        raise AttributeError("none of the parts keeps a slow copy")

    def state_dict(self) -> dict[str, Any]:
        """Return every part's state and clocks by its name."""
        kept = ("state", "steps_seen", "phase_length")
        saved = {own_name(type(part)): part.checkpoint() for part in self.parts}
        return {name: {key: each[key] for key in kept} for name, each in saved.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over every part's state."""
        for part in self.parts:
            saved = state[own_name(type(part))]
            part.phase_length = saved["phase_length"]
            part.load_state_dict(saved["state"])
            part.steps_seen = saved["steps_seen"]
            part._watch.note()

    def restore(
        self, saved: Mapping[str, Any], epoch_steps: int | None, phases: int | None
    ) -> None:
        """Take over a checkpoint in the middle of a phase."""
        for part in self.parts:
            part.epoch_steps, part.phases = epoch_steps, phases
        super().restore(saved, epoch_steps, phases)


@functools.cache
def compose(classes: tuple[type[Method], ...]) -> type[Composed]:
    """Return the class of these methods together.

    Its name is theirs joined by "+", its fields are theirs, each behind the method's name:
    `redo__every`. Raises UsageError for a method named twice, two that take the gradient twice, or
    two that change the same thing in the network.
    """
    names = [own_name(cls) for cls in classes]
    name = "+".join(names)
    for double in {each for each in names if names.count(each) > 1}:
        raise UsageError(f"'{name}' names '{double}' twice; name each method once.")
    twice = [own_name(cls) for cls in classes if cls.overrides("ascend")]
    if len(twice) > 1:
        raise UsageError(f"'{name}': {' and '.join(twice)} both take the gradient twice; keep one.")
    fields: list[tuple[str, Any, Any]] = []
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for f in _fields(cls):
            fields.append((_key(cls, f.name), hints[f.name], dataclasses.field(default=f.default)))
    made = dataclasses.make_dataclass(
        "".join(cls.__name__ for cls in classes),
        fields,
        bases=(Composed,),
        eq=False,
        namespace={
            "classes": classes,
            "name": name,
            "network": _merged(name, classes),
            "has_tortoise": any(cls.has_tortoise for cls in classes),
            "__doc__": f"{' and '.join(names)}, attached in this order.",
        },
    )
    made.__module__ = __name__
    return typing.cast(type[Composed], made)


def _merged(name: str, classes: Sequence[type[Method]]) -> dict[str, Any]:
    network: dict[str, Any] = {}
    for cls in classes:
        own = {f.name: f"${_key(cls, f.name)}" for f in _fields(cls)}
        for key, value in filled(cls.network, own).items():
            if network.get(key, value) != value:
                raise UsageError(
                    f"'{name}' asks for [net] {key} = {network[key]!r} and {value!r}; the two "
                    "methods cannot go together."
                )
            network[key] = value
    return network


def _fields(cls: type[Method]) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.init]


def _key(cls: type[Method], hyperparameter: str) -> str:
    return prefixed(own_name(cls), hyperparameter)


def prefixed(method: str, hyperparameter: str) -> str:
    """Return the field of a combination that holds a method's hyperparameter."""
    return method.replace("-", "_").replace(".", "_") + BETWEEN + hyperparameter


def parts_in(named: str) -> list[str]:
    """Return the methods that "a+b" names; a name or "file.py:Class" without a plus is one."""
    words = [word.strip() for word in named.split("+")]
    return words if len(words) > 1 and all(words) else [named]


def spread(cls: type[Composed], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under the names of a combination's fields.

    "redo.every" is redo's; a bare "every" belongs to the one part that has it. What belongs to none
    or to several is left for the caller to refuse.
    """
    fields = [f.name for f in _fields(cls)]
    found: dict[str, Any] = {}
    for key, value in settings.items():
        method, dot, bare = key.partition(".")
        name = prefixed(method, bare) if dot else key
        if name not in fields:
            owners = [f for f in fields if f.endswith(BETWEEN + key)]
            name = owners[0] if len(owners) == 1 else name
        found[name] = value
    return found
