"""What a policy does when weights are loaded into it, or into a network of it.

With the state of its method it goes on from there. Weights without it (a stock checkpoint's, a
pretrained extractor's) are taken by hare and tortoise alike, and the method starts from them.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.methods.base import Method
from ht_bench.sb3.signature import GENERATOR, OTHER_METHOD, misfit
from ht_bench.sb3.state_tensors import STRUCTURE, from_tensors, to_tensors
from ht_bench.sb3.targets import TortoiseTarget

PREFIX = "plasticity."


def state_tensors(method: Method, device: torch.device) -> dict[str, Tensor]:
    """Return a method's state by name; its random numbers only once it has drawn any."""
    saved = method.checkpoint()
    tensors = to_tensors(saved["state"], device)
    generator = method.generator
    if isinstance(generator, torch.Generator):
        unused = torch.Generator().manual_seed(generator.initial_seed()).get_state()
        if not torch.equal(saved["generators"][0], unused):
            tensors[GENERATOR] = saved["generators"][0].to(device)
    return tensors


class Loading:
    """Follows one `load_state_dict`, of the policy or of a module in it, from root to leaves."""

    def __init__(self, policy: Any) -> None:
        self._policy = weakref.ref(policy)
        self._root: nn.Module | None = None
        self._parts: set[str] = set()
        self._targets: set[str] = set()
        self._states: dict[str, dict[str, Any]] = {}
        self._refused: set[str] = set()
        self._left_out = ""
        _watch(policy, self)

    def begin(self, module: nn.Module, prefix: str) -> None:
        """Note the module that is loaded; its submodules follow in the same call."""
        if self._root is None or prefix == "":
            self._root = module
            self._parts, self._targets, self._states = set(), set(), {}
            self._refused, self._left_out = set(), ""

    def see(self, part: str, target: str) -> None:
        """Note that weights of a part, or of a target network, are among the loaded ones."""
        self._parts.add(part)
        self._targets.add(target)

    def take(
        self, tensors: Mapping[str, Any], missing: list[str], prefix: str, signed: Mapping[str, Any]
    ) -> list[str]:
        """Take over the state of the policy's methods; returns what does not fit, in words.

        tensors: without the prefix. missing: of torch, to which names of absent ones are added.
        signed: who wrote each part's state (`signature`), empty where the tensors do not say.
        """
        policy: Any = self._policy()
        errors: list[str] = []
        left = set(tensors)
        for name, method in policy.methods.items():
            start = f"{name}."
            own = {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}
            template = method.checkpoint()
            expected = to_tensors(template["state"], torch.device("cpu"))
            if not own:
                continue
            left -= {start + key for key in own}
            why = misfit(method, signed.get(name), own, expected, template["state"])
            if why:
                self._left_out = why
                continue
            full = f"{prefix}{PREFIX}{name}."
            lacking = [key for key in expected if key not in own and STRUCTURE not in own]
            missing += [full + key for key in lacking]  # where that is allowed, they stay
            own |= {key: expected[key] for key in lacking}
            wrong = [
                f"size mismatch for {full}{key}: copying a param with shape {own[key].shape} from "
                f"checkpoint, the shape in current model is {tensor.shape}."
                for key, tensor in expected.items()
                if key in own and key != STRUCTURE and own[key].shape != tensor.shape
            ]
            errors += wrong
            if wrong:  # torch refuses it; the method stays as it is
                self._refused.add(name)
            else:
                generators = [own.pop(GENERATOR)] if GENERATOR in own else []
                state = from_tensors(own, template["state"])
                self._states[name] = {"state": state, "generators": generators}
        if left:  # of a network that this policy does not have
            self._left_out = OTHER_METHOD
        return errors

    def take_old(self, old: Mapping[str, Any]) -> None:
        """Take over the state as version 0.1 and earlier saved it, under "_extra_state"."""
        policy: Any = self._policy()
        if old.get("method") == policy.plasticity_name:
            self._states = dict(old["parts"])
        else:
            self._left_out = OTHER_METHOD

    def end(self, module: nn.Module) -> None:
        """Bring the methods in line with what was loaded, once all of it is."""
        if self._root is not module:
            return
        self._root = None
        policy: Any = self._policy()
        for target in self._targets - {""}:
            network = getattr(policy, target)
            if isinstance(network, TortoiseTarget):
                network.take_loaded()
        begun = self._states.keys() | self._refused
        without = [n for n in policy.methods if n in self._parts and n not in begun]
        with torch.no_grad():
            for name in self._parts - self._refused - {""}:
                policy.methods[name].resync()
            for name, saved in self._states.items():
                _restore(policy.methods[name], saved)
        stateful = [n for n in without if policy.methods[n].state_dict()]
        if module is policy and (stateful or self._left_out):
            _say(policy, self._left_out)


def _restore(method: Method, saved: Mapping[str, Any]) -> None:
    if saved["generators"]:
        method.restore(saved, method.epoch_steps, method.phases)
    else:
        method.load_state_dict(saved["state"])


def _say(policy: Any, left_out: str) -> None:
    held = (left_out or "no state of '{}'").format(policy.plasticity_name)
    start = "hare and tortoise both start" if policy.has_tortoise else "the method starts"
    warnings.warn(
        f"The loaded weights hold {held}: {start} from these weights, and its clock from 0.",
        UserWarning,
        stacklevel=2,
    )


# ---- hooks on every module of a policy ----


class _Hook:
    """A hook that does not follow its module into copies: a copied policy hangs up its own."""

    def __init__(self, loading: Loading, part: str = "", target: str = "") -> None:
        self.loading, self.part, self.target = loading, part, target

    def __reduce__(self) -> tuple[Any, ...]:
        return _Inert, ()


class _Before(_Hook):
    def __call__(self, module: nn.Module, state: Any, prefix: str, *_: Any) -> None:
        self.loading.begin(module, prefix)
        own = (*module._parameters, *module._buffers)
        if (self.part or self.target) and any(f"{prefix}{key}" in state for key in own):
            self.loading.see(self.part, self.target)


class _After(_Hook):
    def __call__(self, module: nn.Module, incompatible: Any) -> None:
        self.loading.end(module)


class _Inert:
    def __call__(self, *_: Any) -> None:
        pass


def _watch(policy: Any, loading: Loading) -> None:
    parts = {id(m): part.name for part in policy.parts for m in part.module.modules()}
    targets = {
        id(module): part.target
        for part in policy.parts
        if part.target
        for module in getattr(policy, part.target).modules()
    }
    for module in policy.modules():
        _forget_inert(module)
        names = parts.get(id(module), ""), targets.get(id(module), "")
        module.register_load_state_dict_pre_hook(_Before(loading, *names))
        module.register_load_state_dict_post_hook(_After(loading))


def _forget_inert(module: nn.Module) -> None:
    for hooks in (module._load_state_dict_pre_hooks, module._load_state_dict_post_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(getattr(hook, "hook", hook), _Inert | _Hook):
                del hooks[key]
