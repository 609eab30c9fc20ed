"""How a plastic policy is saved, loaded and copied: weights, and the methods' state as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.methods.resolve import MethodSpec
from ht_bench.sb3.acting import Which
from ht_bench.sb3.loading import PREFIX, Loading, state_tensors
from ht_bench.sb3.signature import SIGNED, signature_of

_OLD_TARGET = "_target.decoy."  # how earlier versions called a target network's weights
_TIES = (
    "_acting",
    "_loading",
    "_parts",
    "_owners",
    "_weights",
    "_second_batches",
    "after_replay",
    "is_enlisted",
)


class SavedPolicy:
    """Mixin: what travels with `state_dict`, `save`, pickle and copy."""

    _plasticity: MethodSpec
    _methods: dict[str, Method]
    _loading: Loading
    _named: Any
    _tortoise_target: bool
    _evaluate_as: Which | None
    _act_as: Which
    _fast: bool
    recorded_for: int

    def _get_constructor_parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = super()._get_constructor_parameters()  # type: ignore[misc]
        found.update(
            plasticity=self._named,
            plasticity_kwargs=dict(self._plasticity.hyperparameters),
            tortoise_target=self._tortoise_target,
            evaluate_as=self._evaluate_as,
            act_as=self._act_as,
            **({"fast": True} if self._fast else {}),
        )
        return found

    def _method_tensors(self) -> dict[str, dict[str, Tensor]]:
        device = self.device  # type: ignore[attr-defined]
        return {name: state_tensors(method, device) for name, method in self._methods.items()}

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        self.recorded_for += 1
        own = f"{prefix}{PREFIX}"
        state = {k[len(own) :]: state_dict.pop(k) for k in list(state_dict) if k.startswith(own)}
        old = state_dict.pop(f"{prefix}_extra_state", None)
        for key in [key for key in state_dict if _OLD_TARGET in key]:
            state_dict[key.replace(_OLD_TARGET, "_target.")] = state_dict.pop(key)
        super()._load_from_state_dict(  # type: ignore[misc]
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )  # fmt: skip
        if state:
            signed = (local_metadata or {}).get(SIGNED, {})
            error_msgs += self._loading.take(state, missing_keys, prefix, signed)
        elif isinstance(old, Mapping):
            self._loading.take_old(old)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be pickled: hooks. `__setstate__` attaches the methods again."""
        state = {key: value for key, value in self.__dict__.items() if key not in _TIES}
        state["_methods"] = {name: method.checkpoint() for name, method in self._methods.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state["_methods"]
        super().__setstate__({"_fast": False, **state})  # type: ignore[misc]
        self._attach()  # type: ignore[attr-defined]
        for name, method in self._methods.items():
            method.restore(saved[name], None, None)


def add_state(policy: Any, state_dict: Any, prefix: str, local_metadata: Any) -> None:
    """Add the methods' state after all weights, signed: a hook of `state_dict`."""
    signed = local_metadata.setdefault(SIGNED, {})
    for name, tensors in policy._method_tensors().items():
        signed[name] = signature_of(policy.methods[name], tensors)
        for key, tensor in tensors.items():
            state_dict[f"{prefix}{PREFIX}{name}.{key}"] = tensor
