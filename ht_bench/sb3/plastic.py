"""A mixin over stable-baselines3's policies that attaches a Method to each trained network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.average import SlowCopy
from ht_bench.methods.base import Method
from ht_bench.methods.resolve import MethodSpec, resolve
from ht_bench.sb3.acting import (
    Acting,
    ActingNetwork,
    ActsAsTortoise,
    Which,
    check_acting,
    check_word,
)
from ht_bench.sb3.callers import calling_algorithm
from ht_bench.sb3.fast import check_flag, enlist, quicken, quicken_again
from ht_bench.sb3.follow import follow
from ht_bench.sb3.held import release_held
from ht_bench.sb3.joined import join
from ht_bench.sb3.loading import PREFIX, Loading
from ht_bench.sb3.parts import (
    Part,
    chains_of,
    check_supported,
    is_actor_critic,
    parts_of,
    unit_groups_of,
)
from ht_bench.sb3.refusals import check_observations, keywords_read
from ht_bench.sb3.saving import SavedPolicy, add_state
from ht_bench.sb3.second_batch import SecondBatches
from ht_bench.sb3.targets import TortoiseTarget
from ht_bench.sb3.watching import look_before_updates

_ARGUMENTS = ("observation_space", "action_space", "lr_schedule")


class PlasticPolicy(SavedPolicy, ActsAsTortoise):
    """Adds plasticity to a stock policy; the stock class stands after it in the bases.

    policy_kwargs: `plasticity`, a Method or the name of one (so that YAML files work), with
    `plasticity_kwargs`, its hyperparameters, by default those of the method's recipe for agents
    where it is named; intervals count gradient steps, of each trained network its own.
    `tortoise_target` (True): where the method has a tortoise, TD targets come from it.
    `evaluate_as` (None): "tortoise" or "hare", whose actions `predict` returns outside training,
    deterministic or not. `act_as` ("hare"): whose actions an off-policy agent gathers experience
    with. `fast` (False): train with less to do, equal within rounding (`ht_bench.sb3.fast`).
    Everything else goes to the stock policy. With an inert method, and `fast` off, training is
    bit-identical to the stock policy's.

    Training acts with the hare; where `deterministic=True` is said (`predict`, `forward`, those of
    the actor or value network) the weights act that the method evaluates, the tortoise where there
    is one. `acting_as` overrides all of it. Raises UsageError for a method or an optimizer that
    the agent's loop cannot serve.
    """

    default_plasticity: ClassVar[str] = "none"
    is_enlisted = False

    def __init__(
        self,
        *args: Any,
        plasticity: str | type[Method] | Method | None = None,
        plasticity_kwargs: Mapping[str, Any] | None = None,
        tortoise_target: bool = True,
        evaluate_as: Which | None = None,
        act_as: Which = "hare",
        fast: bool = False,
        **kwargs: Any,
    ) -> None:
        check_flag("fast", fast)
        check_flag("tortoise_target", tortoise_target)
        self._fast = fast
        method = self.default_plasticity if plasticity is None else plasticity
        self._plasticity = _specify(method, plasticity_kwargs or {})
        self._named = method if isinstance(method, str) else type(self._plasticity.build())
        self._tortoise_target = tortoise_target
        self._evaluate_as, self._act_as = evaluate_as, act_as
        self._lasting = evaluate_as is not None or act_as != "hare"
        given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        self._stock_arguments = {**given, "lr_schedule": _no_schedule}
        self._stock_positional = args[len(_ARGUMENTS) :]
        with keywords_read():
            super().__init__(*args, **kwargs)
        check_observations(self)
        check_acting(self, evaluate_as, act_as)
        if fast:  # before the methods copy the weights, whose memory order copies keep
            quicken(self)
        self._attach()  # here, as a recurrent policy makes its optimizer after `_build`
        algorithm = calling_algorithm("_setup_model", through="__init__") if fast else None
        if algorithm is not None:
            enlist(algorithm, self)

    def _attach(self) -> None:
        self._parts = parts_of(self)  # type: ignore[arg-type]
        # Asked for at every round of updates, where torch's own getattr is slow.
        own = [p.module if hasattr(p.module, "optimizer") else self for p in self._parts]
        self._owners: list[Any] = own
        # The objects, as an id may be given anew once its object is gone.
        self._weights = {p.name: list(p.module.parameters()) for p in self._parts}
        self._is_on_policy = is_actor_critic(self)
        self._methods: dict[str, Method] = {}
        self._second_batches = SecondBatches()
        for index, part in enumerate(self._parts):
            self._attach_to(index, part)
        acts: Any = self._parts[0].module
        self._acting = Acting(acts, self._methods[self._parts[0].name])
        if acts is not self and self._acting.differs:
            join(ActingNetwork, acts)._acting = self._acting
        self._loading = Loading(self)
        self.is_recording, self.recorded_for = False, getattr(self, "recorded_for", 0) + 1
        self.after_replay: list[Callable[[], None]] = getattr(self, "after_replay", [])
        if add_state not in self._state_dict_hooks.values():  # type: ignore[attr-defined]
            self.register_state_dict_post_hook(add_state)  # type: ignore[attr-defined]

    def _attach_to(self, index: int, part: Part) -> None:
        method = self._plasticity.build()
        # A seed of its own: the agent's random numbers are as without the method.
        generator = torch.Generator().manual_seed((torch.initial_seed() + index) % 2**63)
        loop = self._second_batches.loop(self, part, generator)
        check_supported(method, self, loop)  # type: ignore[arg-type]
        part.module.chains = chains_of(part.module)  # type: ignore[assignment]
        part.module.unit_groups = unit_groups_of(part.module)  # type: ignore[assignment]
        method.attach(
            part.module,
            part.optimizer,
            generator=generator,
            initialize=self._fresh(index),
            loop=loop,
        )
        self._methods[part.name] = method
        slow = getattr(method, "tortoise", None)
        if self._tortoise_target and part.target and isinstance(slow, SlowCopy):
            join(TortoiseTarget, getattr(self, part.target)).tie(method)

    def _fresh(self, index: int) -> Any:
        """Return a function that draws part `index`'s weights as its algorithm does."""

        def draw() -> dict[str, Tensor]:
            part = self._parts[index]
            generator = self._methods[part.name].generator
            assert isinstance(generator, torch.Generator)
            seed = int(torch.randint(2**62, (1,), generator=generator).item())
            # Not torch.manual_seed, which seeds every CUDA generator and brings none back.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                twin = parts_of(self._plain())[index].module
            twin.to(next(part.module.parameters()).device)
            named: dict[str, Tensor] = dict(twin.named_parameters())
            named.update(twin.named_buffers())
            return {name: tensor.detach() for name, tensor in named.items()}

        return draw

    def _plain(self) -> Any:
        """Return a stock policy of this one's shape, with weights of its own."""
        first = [self._stock_arguments[name] for name in _ARGUMENTS]
        others = {k: v for k, v in self._stock_arguments.items() if k not in _ARGUMENTS}
        return self._stock()(*first, *self._stock_positional, **others)

    def _stock(self) -> Any:
        """Return the first class that is the algorithm's own."""
        mro = type(self).__mro__
        return next(
            c for c in mro if issubclass(c, BasePolicy) and not issubclass(c, PlasticPolicy)
        )

    # ---- what the algorithm does with its policy ----

    def set_training_mode(self, mode: bool) -> None:
        """Set the mode; algorithms do so before each rollout and each round of updates."""
        algorithm = calling_algorithm("train") if mode else None
        if algorithm is not None:
            self._updates_begin()
            self._second_batches.follow(algorithm)
            if self._fast:
                quicken_again(self, algorithm)
        elif not mode and self._is_on_policy and calling_algorithm("collect_rollouts") is not None:
            release_held(self._methods.values())
        if mode or not _evaluates(self):  # acting asks for it anew at every step
            super().set_training_mode(mode)  # type: ignore[misc]

    def _updates_begin(self) -> None:
        """Hold resets back until the next rollout, and follow what was replaced or moved."""
        modules: Any = self._modules  # type: ignore[attr-defined]
        for index, (owner, old) in enumerate(zip(self._owners, self._parts, strict=True)):
            there = modules.get(old.name) is old.module or old.name == "policy"
            if owner.optimizer is not old.optimizer or not there:
                follow(self, parts_of(self)[index])  # type: ignore[arg-type]
                break
        look_before_updates(self._methods.values())
        for method in self._methods.values():
            method.holds_resets = self._is_on_policy

    # ---- acting ----

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Return actions and hidden states as the stock policy; the class says whose they are."""
        if self._lasting and self._acting.fixed is None:
            gathers = calling_algorithm("_sample_action", through="predict") is not None
            which = self._act_as if gathers else self._evaluate_as
            if which is not None:
                with self._acting.fixed_to(which):
                    return super().predict(*args, **kwargs)  # type: ignore[misc]
        return super().predict(*args, **kwargs)  # type: ignore[misc]

    @contextmanager
    def acting_as(self, which: Which) -> Iterator[None]:
        """Act as the hare (trained weights) or the tortoise (evaluated ones), deterministic or not.

        The weights are exchanged once, so a whole evaluation costs no more than one of the stock
        policy; do not train inside. Raises UsageError for another word, or inside another one.
        """
        check_word("acting_as", which)
        acting = self._acting
        if acting.fixed is not None:
            raise UsageError(f"The policy acts as the {acting.fixed} already; leave that first.")
        acting.fixed = which
        try:
            with ExitStack() as stack:
                if which == "tortoise":
                    for method in self._methods.values():
                        stack.enter_context(method.evaluating())
                yield
        finally:
            acting.fixed = None

    # ---- for loops and callbacks ----

    def stepped(self, replayed: bool) -> None:
        """Let the methods' clocks go on by a step that `FastDQN` took on a CUDA device."""
        for method in self._methods.values():
            method.advance(1)
        for hook in self.after_replay if replayed else ():
            hook()

    @property
    def methods(self) -> Mapping[str, Method]:
        """The attached method of each trained network, by the network's name."""
        return self._methods

    @property
    def parts(self) -> Sequence[Part]:
        """The trained networks with their optimizers, the one that acts first."""
        return self._parts

    @property
    def plasticity_name(self) -> str:
        """The method's name."""
        return self._plasticity.name

    @property
    def has_tortoise(self) -> bool:
        """Whether other weights than the trained ones are evaluated."""
        return self._plasticity.build().has_tortoise

    def enter_phase(self, index: int, phases: int | None = None) -> None:
        """Tell the method that phase `index` of the stream begins (nothing happens at 0).

        Afterwards every target network of the algorithm's own holds the weights of its trained
        network.
        """
        self.recorded_for += 1  # a decay may follow from the phase's length
        for method in self._methods.values():
            method.enter_phase(index, 0, None, phases)
        for part in self._parts:
            target = getattr(self, part.target) if part.target and index > 0 else None
            if target is not None and not isinstance(target, TortoiseTarget):
                target.load_state_dict(part.module.state_dict())

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
            raise UsageError(f"'{self.plasticity_name}' has no tortoise; use export_plain('hare').")
        with torch.random.fork_rng(devices=[]):  # the agent goes on with its random numbers
            plain = self._plain()
        plain.to(self._parts[0].module.device)
        with self.acting_as(which):
            for mine, theirs in zip(self._parts, parts_of(plain), strict=True):
                state = mine.module.state_dict()
                weights = {k: v for k, v in state.items() if not k.startswith(PREFIX)}
                theirs.module.load_state_dict(weights)
                if theirs.target:
                    getattr(plain, theirs.target).load_state_dict(theirs.module.state_dict())
        return plain


def _evaluates(module: Any) -> bool:
    """Whether a module and all in it are in evaluation mode."""
    if module.training:
        return False
    return all(child is None or _evaluates(child) for child in module._modules.values())


def _specify(method: str | type[Method] | Method, changes: Mapping[str, Any]) -> MethodSpec:
    if not isinstance(changes, Mapping):
        raise UsageError(
            f"plasticity_kwargs = {changes!r}; give hyperparameters by name: dict(decay=0.999)."
        )
    spec = resolve(method, overrides=changes, agent=True)
    reference = method if isinstance(method, str) else spec.reference
    return dataclasses.replace(spec, reference=reference)


def _no_schedule(progress_remaining: float) -> float:
    return 0.0
