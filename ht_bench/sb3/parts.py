"""What of a stable-baselines3 policy is trained by which optimizer, and its weight layers in order.

On-policy algorithms train the whole policy with one optimizer, DQN and QR-DQN their value network,
SAC, TD3, DDPG, TQC and CrossQ actor and critic with one each.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import nn

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.loop import NEEDS, Loop
from ht_bench.sb3.minatar import MinAtarCNN

ONLINE = ("q_net", "quantile_net", "critic", "actor")
"""Networks that may have a target beside them, `<name>_target`."""


SUPPORTED = (
    "PPO, A2C, DQN, SAC, TD3 and DDPG, and with sb3-contrib's QR-DQN, TQC, CrossQ, TRPO, "
    "MaskablePPO and RecurrentPPO"
)


@dataclass(frozen=True)
class Part:
    """A network with the optimizer that trains it; `target` names its target network, or ""."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    target: str = ""


def parts_of(policy: BasePolicy) -> list[Part]:
    """Return the trained parts, the one that acts first; raises UsageError for other policies."""
    if is_actor_critic(policy):
        return [Part("policy", policy, policy.optimizer)]
    parts = []
    for name in ("q_net", "quantile_net", "actor", "critic"):
        module = getattr(policy, name, None)
        if not isinstance(module, nn.Module):
            continue
        owner: Any = module if hasattr(module, "optimizer") else policy
        target = f"{name}_target" if hasattr(policy, f"{name}_target") else ""
        parts.append(Part(name, module, owner.optimizer, target))
    if not parts:
        raise UsageError(
            f"{type(policy).__name__} is of an algorithm that is not supported; plasticity works "
            f"with {SUPPORTED}."
        )
    return parts


def is_actor_critic(policy: Any) -> bool:
    """Whether this is the policy of an on-policy algorithm, masked actions included."""
    masked = hasattr(policy, "mlp_extractor") and hasattr(policy, "action_net")
    return isinstance(policy, ActorCriticPolicy) or (isinstance(policy, BasePolicy) and masked)


LOOP = Loop(name="stable-baselines3's loop", offers=frozenset({"activations"}))
"""What every policy's loop offers a method beyond gradients and weights."""


def check_supported(method: Method, policy: BasePolicy, loop: Loop = LOOP) -> None:
    """Raise UsageError for a method that an agent's own loop cannot serve."""
    lacking = loop.lacks(type(method).needed())
    if lacking:
        raise Unsuitable(
            f"'{method.name}' needs the supervised loop: it {NEEDS[lacking[0]]}"
            f"{_WHY.get(lacking[0], '')}; `ht-bench run` trains it on tasks of data."
        )
    _check_intervals(method)
    _check_sharing(method, policy)


_WHY = {
    "auxiliary loss": ", which stable-baselines3 owns",
    "phase length": ", whose steps only the supervised loop counts",
    "network": ", which an SB3 policy has not",
    "second pass": ", and stable-baselines3 steps without a closure",
    "outputs": ", and a policy has many forward passes",
    "old data": ", which an agent's buffer no longer holds",
}


def _check_intervals(method: Method) -> None:
    for field in dataclasses.fields(method):
        value = getattr(method, field.name) if field.init else None
        if isinstance(value, str) and re.search(r"\bepochs?\b", value):
            raise UsageError(
                f"{field.name} = '{value}': an agent has no epochs; give optimizer steps, "
                f"e.g. plasticity_kwargs=dict({field.name}=1000)."
            )


def _check_sharing(method: Method, policy: BasePolicy) -> None:
    actor = getattr(policy, "actor", None)
    if type(method) is Method or actor is None:
        return
    shared = getattr(policy, "share_features_extractor", False)
    if shared and next(actor.features_extractor.parameters(), None) is not None:
        raise UsageError(
            "share_features_extractor=True: actor and critic would both move the shared weights; "
            "leave it at False with a plasticity method."
        )


def chains_of(module: nn.Module) -> list[list[str]]:
    """Return the weight layers from input to each output, one list of names per output.

    An actor-critic policy has one for the actions and one for the values, an ensemble of critics
    one per critic, a dueling network one per stream, any other network a single one.
    """
    weighted = [
        name
        for name, child in module.named_modules()
        if name and any(p.dim() >= 2 for p in child.parameters(recurse=False))
    ]
    heads = [h for h in _heads(module) if any(_within(name, h) for name in weighted)]
    apart = [name for name in weighted if any(_within(name, head) for head in heads)]
    trunk = [name for name in weighted if name not in apart]
    # In the order of the prefixes: a recurrent policy makes its first layers last.
    branches = [[n for prefix in head for n in apart if _within(n, (prefix,))] for head in heads]
    return [trunk + branch for branch in branches] or [trunk]


def unit_groups_of(module: nn.Module) -> list[list[str]]:
    """Return, per chain, the modules that are applied one after the other, for `networks.units`.

    An extractor of features that is not stable-baselines3's own, nor MinAtar's, may join what it
    reads in any way: its layers are left out, and so are those of one that several inputs go
    through.
    """
    foreign = tuple(
        name
        for name, child in module.named_modules()
        if isinstance(child, BaseFeaturesExtractor)
        and type(child) not in (FlattenExtractor, NatureCNN, MinAtarCNN)
    )
    modules = dict(module.named_modules())
    runs = []
    for chain in chains_of(module):
        run: list[str] = []
        for name in chain:
            if not _within(name, foreign):
                run += [name, *_followers(modules, name)]
        runs.append(run)
    return runs


def _followers(modules: dict[str, nn.Module], name: str) -> list[str]:
    """Return what comes after a layer in its nn.Sequential, before the next weight layer."""
    prefix, _, own = name.rpartition(".")
    if not isinstance(modules[prefix], nn.Sequential):
        return []
    siblings = list(modules[prefix]._modules)
    found: list[str] = []
    for sibling in siblings[siblings.index(own) + 1 :]:
        full = f"{prefix}.{sibling}"
        if any(p.dim() >= 2 for p in modules.get(full, nn.Identity()).parameters()):
            break
        found.append(full)
    return found


def _heads(module: nn.Module) -> list[tuple[str, ...]]:
    """Return, per output, the prefixes of what leads to this output alone."""
    if is_actor_critic(module):
        own: list[tuple[str, ...]] = [
            ("lstm_actor", "mlp_extractor.policy_net", "action_net"),
            ("lstm_critic", "critic", "mlp_extractor.value_net", "value_net"),
        ]
        if not module.share_features_extractor:
            extractors = ("pi_features_extractor", "features_extractor"), ("vf_features_extractor",)
            return [(*extractors[i], *own[i]) for i in range(2)]
        return own
    names = [name for name, _ in module.named_children()]
    critics: list[tuple[str, ...]] = [(name,) for name in names if re.fullmatch(r"qf\d+", name)]
    streams: list[tuple[str, ...]] = [(name,) for name in names if name in ("value", "advantage")]
    outputs: list[tuple[str, ...]] = [(name,) for name in names if name in ("mu", "log_std")]
    return critics or streams or (outputs if len(outputs) > 1 else [])


def _within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
