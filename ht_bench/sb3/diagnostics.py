"""Plasticity diagnostics of a stable-baselines3 policy's acting network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from ht_bench.networks.diagnostics import of_records, recorded
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import squared_norms


@torch.no_grad()
def diagnose_policy(
    policy: Any, observations: Any, initial: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return diagnostics of the network that acts, [1] by metric key, and norms of all weights.

    policy: a PlasticPolicy. observations: [n, ...] from training (or a dict of such arrays).
    initial: the policy's parameters at initialisation by name. Dormancy counts every non-linearity
    of the acting network; ranks are of the input of its last layer. The policy is left as it was.
    """
    acting = policy.parts[0].module
    inputs, _ = policy.obs_to_tensor(observations)
    with evaluation_mode(policy), recorded(acting, acting.chains[0][-1]) as records:
        _run(policy, acting, inputs)
    parameters = {n: p.detach() for n, p in policy.named_parameters() if "_target" not in n}
    away = [parameter - initial[name] for name, parameter in parameters.items()]
    values = {
        **of_records(records, stacked=False),
        "weights/norm": squared_norms(list(parameters.values()), False).sqrt(),
        "weights/distance_from_init": squared_norms(away, False).sqrt(),
    }
    # A network without a non-linearity has no unit that could be dormant.
    known = {key: value for key, value in values.items() if not bool(value.isnan().any())}
    return {key: value.cpu() for key, value in known.items()}


def keep(observations: Any) -> Any:
    """Return a step's observations to look at later: replay buffers reshape a dict's entries."""
    return dict(observations) if isinstance(observations, Mapping) else observations


def last_observations(steps: Sequence[Any], count: int) -> Any:
    """Return the last `count` observations of steps [copies, ...] (or dicts of such arrays)."""
    if isinstance(steps[0], Mapping):
        return {key: last_observations([step[key] for step in steps], count) for key in steps[0]}
    return np.concatenate(steps)[-count:]


def _run(policy: Any, acting: nn.Module, inputs: Any) -> None:
    """Pass observations through each layer once, without drawing a random number."""
    if isinstance(acting, ActorCriticPolicy):
        features = acting.extract_features(inputs)
        own, values = features if isinstance(features, tuple) else (features, features)
        acting.action_net(acting.mlp_extractor.forward_actor(own))
        acting.value_net(acting.mlp_extractor.forward_critic(values))
    elif hasattr(acting, "get_action_dist_params"):
        acting.get_action_dist_params(inputs)  # type: ignore[operator]
    else:
        acting(inputs)
