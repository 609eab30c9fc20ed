"""Acting as the hare or the tortoise: `deterministic=True` is the tortoise, wherever it is said."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.average import SlowCopy
from ht_bench.methods.base import Method
from ht_bench.networks.modes import evaluation_mode
from ht_bench.sb3.joined import Joined
from ht_bench.sb3.parts import is_actor_critic
from ht_bench.sb3.places import places_of, slow_tensors

Which = Literal["hare", "tortoise"]
WORDS = ("hare", "tortoise")


class Acting:
    """What a policy and the network that acts in it agree on: whose weights are used now.

    fixed: "hare" or "tortoise" while `PlasticPolicy.acting_as` holds, with the weights in place.
    lock: held by the thread that acts, where weights may be exchanged for a call.
    """

    def __init__(self, module: nn.Module, method: Method) -> None:
        self.fixed: Which | None = None
        self._module, self._method = module, method
        parts = getattr(method, "parts", [method])
        self.differs = any(type(part).evaluating is not Method.evaluating for part in parts)
        self.lock = threading.RLock()  # what is put into the module is there for all threads
        self._inside: int | None = None  # the thread that put them there
        self._find()
        self._values: list[Tensor] = []
        self._pairs: list[tuple[dict[str, Any], str, Tensor]] = []
        self._ids: list[int] = []

    def _find(self) -> None:
        self._places = places_of(self._module, "_parameters") + places_of(self._module, "_buffers")

    @property
    def settled(self) -> bool:
        """Whether nothing is left to decide: the weights to act with are in place."""
        if self.fixed is not None or not self.differs:
            return True
        return self._inside is not None and self._inside == threading.get_ident()

    def run(self, stock: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Call `stock` with the weights that the method evaluates, in evaluation mode."""
        slow = getattr(self._method, "tortoise", None)
        if self._module.training or not isinstance(slow, SlowCopy):
            with self.tortoise():
                return stock(*args, **kwargs)
        kept = self._exchange(slow)  # as `tortoise`, in less time: each step of an evaluation
        self._inside = threading.get_ident()
        try:
            return stock(*args, **kwargs)
        finally:
            for table, key, tensor in kept:
                table[key] = tensor
            self._inside = None

    @contextmanager
    def tortoise(self) -> Iterator[None]:
        """Hold the weights that the method evaluates, in evaluation mode."""
        slow = getattr(self._method, "tortoise", None)
        kept: list[tuple[dict[str, Any], str, Any]] = []
        self._inside = threading.get_ident()
        try:
            own = isinstance(slow, SlowCopy)
            with evaluation_mode(self._module) if own else self._method.evaluating():
                kept = self._exchange(slow) if isinstance(slow, SlowCopy) else kept
                yield
        finally:
            for table, key, tensor in kept:
                table[key] = tensor
            self._inside = None

    def _exchange(self, slow: SlowCopy) -> list[tuple[dict[str, Any], str, Any]]:
        """Put the slow tensors into the module's tables, which tracing and exporting follow.

        Returns what was there: table, key, tensor.
        """
        tensors = slow_tensors(slow)
        if slow.values is not self._values:  # as after `resync`, which tells of a replaced part
            self._values, self._ids = slow.values, []
            self._find()
        first = self._places[0]
        now, held = first.table[first.key], tensors[first.name]
        if held.device != now.device or held.dtype is not now.dtype:
            slow.follow()
            tensors = slow_tensors(slow)
        if [*map(id, tensors.values())] != self._ids:
            self._pair(tensors)
        kept = [(table, key, table[key]) for table, key, _ in self._pairs]
        for table, key, tensor in self._pairs:
            table[key] = tensor
        return kept

    def _pair(self, tensors: dict[str, Tensor]) -> None:
        """Note which tensor goes where; anew at each call where precisions differ."""
        own = [(t, k, t[k].dtype, tensors[n]) for t, k, n in self._places if n in tensors]
        same = all(tensor.dtype is dtype for _, _, dtype, tensor in own)
        self._ids = [*map(id, tensors.values())] if same else []
        self._pairs = [
            (table, key, tensor if tensor.dtype is dtype else tensor.to(dtype))
            for table, key, dtype, tensor in own
        ]

    @contextmanager
    def fixed_to(self, which: Which) -> Iterator[None]:
        """Be the hare or the tortoise for a call, whatever it says."""
        alone = which == "hare" or not self.differs
        with self.lock, contextlib.nullcontext() if alone else self.tortoise():
            self._inside = threading.get_ident()
            try:
                yield
            finally:
                self._inside = None

    @contextmanager
    def saved(self) -> Iterator[None]:
        """As `tortoise`, with parameters that stay the same objects: slower, fit to be pickled."""
        with self.lock:
            self._inside = threading.get_ident()
            try:
                with self._method.evaluating():
                    yield
            finally:
                self._inside = None


class ActsAsTortoise:
    """Mixin: `forward` and `_predict` compute with the tortoise where `deterministic=True`."""

    _acting: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute as the stock class; where that takes no flag, an export is the tortoise's."""
        return self._act(super().forward, args, kwargs)  # type: ignore[misc]

    def _predict(self, *args: Any, **kwargs: Any) -> Any:
        return self._act(super()._predict, args, kwargs)  # type: ignore[misc]

    def _act(self, stock: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        acting = self._acting
        if acting is None or acting.settled:
            return stock(*args, **kwargs)
        with acting.lock:
            if not _is_deterministic(stock, args, kwargs):
                return stock(*args, **kwargs)
            return acting.run(stock, args, kwargs)


class ActingNetwork(ActsAsTortoise, Joined):
    """The network that acts: SAC's or TD3's actor, a value network."""

    ties = ("_acting",)

    def save(self, path: str) -> None:
        """Save what is evaluated: the file is a network alone, without a method's state."""
        if self._acting is None or self._acting.settled:
            super().save(path)  # type: ignore[misc]
            return
        with self._acting.saved():
            super().save(path)  # type: ignore[misc]


def check_acting(policy: Any, evaluate_as: Any, act_as: Any) -> None:
    """Raise UsageError for settings of `PlasticPolicy` that are no words or cannot be served."""
    for name, word in (("evaluate_as", evaluate_as), ("act_as", act_as)):
        if word is not None or name == "act_as":
            check_word(name, word)
    if act_as == "tortoise" and is_actor_critic(policy):
        raise UsageError(
            "act_as='tortoise': on-policy agents learn from the actions of the network that they "
            "train; leave it out, or use an off-policy one (DQN, QR-DQN, SAC, TD3)."
        )


def check_word(name: str, word: Any) -> None:
    """Raise UsageError unless `word` is "hare" or "tortoise"."""
    if word not in WORDS:
        raise UsageError(f"{name}({word!r}): choose 'hare' or 'tortoise'.")


def _is_deterministic(stock: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> bool:
    position, default = _flag(getattr(stock, "__func__", stock))
    if position is None:  # torch records the call to be used elsewhere, as training never does
        return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if len(args) > position:
        return bool(args[position])
    return bool(kwargs.get("deterministic", default))


@functools.cache
def _flag(function: Callable[..., Any]) -> tuple[int | None, bool]:
    """Return where `deterministic` stands among the arguments (None: nowhere), and its default."""
    parameters = list(inspect.signature(function).parameters.values())[1:]  # without self
    for position, parameter in enumerate(parameters):
        if parameter.name == "deterministic":
            return position, parameter.default is True
    return None, False
