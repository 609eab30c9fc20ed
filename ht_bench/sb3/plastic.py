"""A mixin over stable-baselines3's policies that attaches a Method to each trained network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.average import SlowCopy
from ht_bench.methods.base import Method
from ht_bench.methods.resolve import MethodSpec, find_class, resolve
from ht_bench.sb3.parts import Part, chains_of, check_supported, parts_of
from ht_bench.sb3.targets import TortoiseTarget

Which = Literal["hare", "tortoise"]
_ARGUMENTS = ("observation_space", "action_space", "lr_schedule")


class ForeignWeights(UsageError, RuntimeError):
    """Weights of another method; a RuntimeError too, as a ValueError ends up in SB3's own handling.

    `BaseAlgorithm.load` takes every ValueError for a file of an old version.
    """


class PlasticPolicy:
    """Adds plasticity to a stock policy; the stock class stands after it in the bases.

    policy_kwargs: `plasticity`, a Method or the name of one (so that YAML files work), with
    `plasticity_kwargs`, its hyperparameters; `tortoise_target` (True): where the method has a
    tortoise, TD targets come from it. Everything else goes to the stock policy. With an inert
    method training is bit-identical to the stock policy's.

    Acting uses the hare; `predict(deterministic=True)` the weights that the method evaluates, the
    tortoise where there is one; `acting_as` overrides both. Raises UsageError for a method or an
    optimizer that the agent's loop cannot serve.
    """

    default_plasticity: ClassVar[str] = "none"

    def __init__(
        self,
        *args: Any,
        plasticity: str | type[Method] | Method | None = None,
        plasticity_kwargs: Mapping[str, Any] | None = None,
        tortoise_target: bool = True,
        **kwargs: Any,
    ) -> None:
        method = self.default_plasticity if plasticity is None else plasticity
        self._plasticity = _specify(method, plasticity_kwargs or {})
        self._named = method if isinstance(method, str) else type(self._plasticity.build())
        self._tortoise_target = tortoise_target
        self._acting: Which | None = None
        given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        self._stock_arguments = {**given, "lr_schedule": _no_schedule}
        self._stock_positional = args[len(_ARGUMENTS) :]
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        self._attach()

    def _attach(self) -> None:
        self._parts = parts_of(self)  # type: ignore[arg-type]
        self._methods: dict[str, Method] = {}
        for index, part in enumerate(self._parts):
            method = self._plasticity.build()
            check_supported(method, self)  # type: ignore[arg-type]
            part.module.chains = chains_of(part.module)  # type: ignore[assignment]
            # A seed of its own: the agent's random numbers are as without the method.
            generator = torch.Generator().manual_seed((torch.initial_seed() + index) % 2**63)
            method.holds_resets = isinstance(self, ActorCriticPolicy)
            method.attach(
                part.module, part.optimizer, generator=generator, initialize=self._fresh(index)
            )
            self._methods[part.name] = method
            self._replace_target(part, method)
        self._evaluates_others = any(
            type(method).evaluating is not Method.evaluating for method in self._methods.values()
        )

    def _replace_target(self, part: Part, method: Method) -> None:
        slow = getattr(method, "tortoise", None)
        wanted = self._tortoise_target and part.target and method.has_tortoise
        if not (wanted and isinstance(slow, SlowCopy)):
            return
        target = getattr(self, part.target)
        if isinstance(target, TortoiseTarget):  # a copy's, to which the algorithm refers as well
            target.link(part.module, slow)
        else:
            setattr(self, part.target, TortoiseTarget(target, part.module, slow))

    def _fresh(self, index: int) -> Any:
        """Return a function that draws part `index`'s weights as its algorithm does."""

        def draw() -> dict[str, Tensor]:
            part = self._parts[index]
            generator = self._methods[part.name].generator
            assert isinstance(generator, torch.Generator)
            seed = int(torch.randint(2**62, (1,), generator=generator).item())
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                twin = parts_of(self._plain())[index].module
            twin.to(next(part.module.parameters()).device)
            named: dict[str, Tensor] = dict(twin.named_parameters())
            named.update(twin.named_buffers())
            return {name: tensor.detach() for name, tensor in named.items()}

        return draw

    def _plain(self) -> Any:
        """Return a stock policy of this one's shape, with weights of its own."""
        stock: Any = next(cls for cls in type(self).__mro__ if not issubclass(cls, PlasticPolicy))
        first = [self._stock_arguments[name] for name in _ARGUMENTS]
        others = {k: v for k, v in self._stock_arguments.items() if k not in _ARGUMENTS}
        return stock(*first, *self._stock_positional, **others)

    # ---- acting ----

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Act for a rollout, in which the weights stay: what was held back comes before it."""
        if isinstance(self, ActorCriticPolicy) and self._acting is None:
            for method in self._methods.values():
                method.release()
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        predict = super()._predict  # type: ignore[misc]
        if not deterministic or self._acting is not None or not self._evaluates_others:
            return predict(observation, deterministic=deterministic)
        with self._methods[self._parts[0].name].evaluating():
            return predict(observation, deterministic=deterministic)

    @contextmanager
    def acting_as(self, which: Which) -> Iterator[None]:
        """Act as the hare (trained weights) or the tortoise (evaluated ones), deterministic or not.

        The weights are exchanged once, so a whole evaluation costs no more than one of the stock
        policy; do not train inside. Raises UsageError for another word, or inside another one.
        """
        if which not in ("hare", "tortoise"):
            raise UsageError(f"acting_as({which!r}): choose 'hare' or 'tortoise'.")
        if self._acting is not None:
            raise UsageError(f"The policy acts as the {self._acting} already; leave that first.")
        self._acting = which
        try:
            with ExitStack() as stack:
                if which == "tortoise":
                    for method in self._methods.values():
                        stack.enter_context(method.evaluating())
                yield
        finally:
            self._acting = None

    # ---- for loops and callbacks ----

    @property
    def methods(self) -> Mapping[str, Method]:
        """The attached method of each trained network, by the network's name."""
        return self._methods

    @property
    def parts(self) -> Sequence[Part]:
        """The trained networks with their optimizers, the one that acts first."""
        return self._parts

    @property
    def has_tortoise(self) -> bool:
        """Whether other weights than the trained ones are evaluated."""
        return self._plasticity.build().has_tortoise

    def enter_phase(self, index: int, phases: int | None = None) -> None:
        """Tell the method that phase `index` of the stream begins (nothing happens at 0).

        Afterwards every target network holds the weights of its trained network.
        """
        for method in self._methods.values():
            method.enter_phase(index, 0, None, phases)
        for part in self._parts:
            if part.target and index > 0:
                target = getattr(self, part.target)
                decoy = target.decoy if isinstance(target, TortoiseTarget) else target
                decoy.load_state_dict(part.module.state_dict())

    def seed_plasticity(self, seed: int) -> None:
        """Start the methods' own random numbers anew: fresh weights are drawn from them."""
        for index, method in enumerate(self._methods.values()):
            assert isinstance(method.generator, torch.Generator)
            method.generator.manual_seed((seed + index) % 2**63)

    def export_plain(self, which: Which = "tortoise") -> Any:
        """Return a stock policy with the tortoise's (or hare's) weights, targets included.

        It needs nothing of this package to be saved, loaded and used. Raises UsageError for a
        tortoise where the method has none.
        """
        if which == "tortoise" and not self.has_tortoise:
            name = self._plasticity.name
            raise UsageError(f"'{name}' has no tortoise; use export_plain('hare').")
        with torch.random.fork_rng(devices=[]):  # the agent goes on with its random numbers
            plain = self._plain()
        plain.to(self._parts[0].module.device)
        with self.acting_as(which):
            for mine, theirs in zip(self._parts, parts_of(plain), strict=True):
                state = mine.module.state_dict()
                theirs.module.load_state_dict(
                    {k: v for k, v in state.items() if k != "_extra_state"}
                )
                if theirs.target:
                    getattr(plain, theirs.target).load_state_dict(theirs.module.state_dict())
        return plain

    # ---- saving ----

    def _get_constructor_parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = super()._get_constructor_parameters()  # type: ignore[misc]
        found.update(
            plasticity=self._named,
            plasticity_kwargs=dict(self._plasticity.hyperparameters),
            tortoise_target=self._tortoise_target,
        )
        return found

    def get_extra_state(self) -> dict[str, Any]:
        """Return the methods' state, which travels with every `state_dict`."""
        return {
            "method": self._plasticity.name,
            "hyperparameters": repr(sorted(self._plasticity.hyperparameters.items())),
            "tortoise_target": self._tortoise_target,
            "parts": {name: method.checkpoint() for name, method in self._methods.items()},
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take over `get_extra_state`; raises UsageError if another method wrote it."""
        mine = self.get_extra_state()
        for key in ("method", "hyperparameters", "tortoise_target"):
            if state.get(key, mine[key]) != mine[key]:
                saved = f"'{state['method']}' {state['hyperparameters']}"
                has = f"'{mine['method']}' {mine['hyperparameters']}"
                if key == "tortoise_target":
                    saved, has = f"{key}={state[key]}", f"{key}={mine[key]}"
                raise ForeignWeights(
                    f"This model was saved with {saved}, the policy has {has}; "
                    "load it with the policy_kwargs it was saved with."
                )
        for name, method in self._methods.items():
            method.restore(state["parts"][name], method.epoch_steps, method.phases)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights and the methods' state; raises UsageError for a stock policy's weights."""
        if "_extra_state" not in state_dict:
            raise ForeignWeights(
                "These weights were saved by a stock policy, without a method's state; load them "
                "into the stock policy, or train this one from the start."
            )
        return super().load_state_dict(state_dict, *args, **kwargs)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be pickled: hooks. `__setstate__` attaches the methods again."""
        state = dict(self.__dict__)
        saved = {name: method.checkpoint() for name, method in self._methods.items()}
        state["_methods"], state["_parts"] = saved, None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state["_methods"]
        super().__setstate__(state)  # type: ignore[misc]
        self._attach()
        for name, method in self._methods.items():
            method.restore(saved[name], None, None)


def _specify(method: str | type[Method] | Method, changes: Mapping[str, Any]) -> MethodSpec:
    if not isinstance(changes, Mapping):
        raise UsageError(
            f"plasticity_kwargs = {changes!r}; give hyperparameters by name: dict(decay=0.999)."
        )
    named = find_class(method) if isinstance(method, str) else method
    spec = resolve(named, overrides=changes)
    reference = method if isinstance(method, str) else spec.reference
    return dataclasses.replace(spec, reference=reference)


def _no_schedule(progress_remaining: float) -> float:
    return 0.0
