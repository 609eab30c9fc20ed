"""`fast=True` of a plastic policy: what it does to the policy, its optimizers and its algorithm.

On: fused optimizers, convolutions with their channels last, replay buffers that sample with torch
(`device_replay`), and DQN's updates in one piece (`fast_dqn`), on CUDA as a graph. Off, as by
default, nothing of this is touched, and training is bit-identical to the stock policy's.

stable-baselines3 gives a policy no part in `train`, and makes the replay buffer before it. So the
policy finds the algorithm that constructs it (`callers`) and gives it a class with `FastDQN` before
its own: nothing is stored on it, and saving, loading and copying go on as they were.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from typing import Any

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.sb3.device_replay import move_to_device
from ht_bench.sb3.fast_dqn import FastDQN
from ht_bench.sb3.parts import parts_of

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


def check_flag(name: str, given: Any) -> None:
    """Raise UsageError unless a switch of `policy_kwargs` is a truth value."""
    if not isinstance(given, bool):
        raise UsageError(f"{name} = {given!r}: write True or False.")


def quicken(policy: Any) -> None:
    """Lay convolutions out with their channels last, and fuse the optimizers."""
    policy.to(memory_format=torch.channels_last)
    for part in parts_of(policy):
        fuse(part.optimizer)


def fuse(optimizer: torch.optim.Optimizer) -> bool:
    """Let an optimizer step in one kernel, all its settings kept; returns whether it does."""
    if type(optimizer) not in _FUSED:
        return False
    for group in optimizer.param_groups:
        if group.get("differentiable"):
            return False
        group["foreach"], group["fused"] = False, True
        for parameter in group["params"]:
            step = optimizer.state.get(parameter, {}).get("step")
            if isinstance(step, Tensor) and step.device != parameter.device:
                optimizer.state[parameter]["step"] = step.to(parameter.device, torch.float32)
    optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]
    return True


def quicken_again(policy: Any, algorithm: Any) -> None:
    """Do as a fast policy's algorithm begins to train what loading or replacing may have undone."""
    for part in policy.parts:
        groups = part.optimizer.param_groups
        if type(part.optimizer) in _FUSED and not all(group.get("fused") for group in groups):
            fuse(part.optimizer)
    if not policy.is_enlisted:  # the algorithm was made without this policy
        enlist(algorithm, policy)


def enlist(algorithm: Any, policy: Any) -> None:
    """Let `algorithm` train `policy` fast as far as it can, and say once what stays as it is."""
    policy.is_enlisted = True
    left = [] if all(type(part.optimizer) in _FUSED for part in policy.parts) else ["optimizer"]
    if isinstance(algorithm, OffPolicyAlgorithm):
        if getattr(algorithm, "_vec_normalize_env", None) is not None or not move_to_device(
            algorithm.replay_buffer
        ):
            left.append("replay buffer")
        if type(algorithm).train is DQN.train and "replay buffer" not in left:
            with contextlib.suppress(TypeError):  # a class that instances cannot leave
                algorithm.__class__ = _fast(type(algorithm))
    if not isinstance(algorithm, FastDQN):
        left.append("updates")
    if left:
        warnings.warn(
            f"fast=True: {type(algorithm).__name__} keeps stable-baselines3's own "
            f"{' and '.join(left)}; the rest is fast.",
            UserWarning,
            stacklevel=2,
        )


@functools.cache
def _fast(stock: type) -> type:
    names = {"__module__": stock.__module__, "__qualname__": stock.__qualname__}
    return type(stock.__name__, (FastDQN, stock), {**names, "__reduce_ex__": _reduce})


def _reduce(algorithm: Any, protocol: Any) -> Any:
    """Name the class it was: the fast one cannot be imported."""
    cls = type(algorithm)
    if cls.__bases__[0] is not FastDQN:  # in a warm-up, whose class is made anew too
        return object.__reduce_ex__(algorithm, protocol)
    return _revive, (cls.__bases__[1],), vars(algorithm)


def _revive(stock: type) -> Any:
    cls: Any = _fast(stock)
    return cls.__new__(cls)
