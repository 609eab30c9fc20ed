"""Plasticity diagnostics of a stable-baselines3 policy's acting network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from ht_bench.networks.change import Seen, effective_learning_rate
from ht_bench.networks.diagnostics import Records, of_records, recorded
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.probe import trainability
from ht_bench.networks.stacking import squared_norms
from ht_bench.sb3.parts import is_actor_critic


def diagnose_policy(
    policy: Any, observations: Any, initial: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return diagnostics of the network that acts, [1] by metric key, and norms of all weights.

    policy: a PlasticPolicy. observations: [n, ...] from training (or a dict of such arrays).
    initial: the policy's parameters at initialisation by name. Units count after every
    non-linearity of the acting network; ranks are of the input of its last layer. What cannot be
    measured is left out. A recurrent policy sees each observation as an episode's first. The policy
    is left as it was.
    """
    records, _ = _look(policy, observations)
    acting = policy.parts[0]
    parameters = {n: p.detach() for n, p in policy.named_parameters() if "_target" not in n}
    away = [parameter - initial[name] for name, parameter in parameters.items()]
    values = {
        **of_records(records, stacked=False),
        "weights/norm": squared_norms(list(parameters.values()), False).sqrt(),
        "weights/distance_from_init": squared_norms(away, False).sqrt(),
        "weights/effective_learning_rate": effective_learning_rate(acting.module, acting.optimizer),
    }
    known = {key: value for key, value in values.items() if not bool(value.isnan().any())}
    return {key: value.cpu() for key, value in known.items()}


def see_policy(policy: Any, observations: Any) -> Seen:
    """Return what the acting network makes of observations, to be compared with later."""
    records, outputs = _look(policy, observations)
    features = outputs if records.features is None else records.features
    return Seen(features.detach().flatten(1)[None].clone(), outputs.argmax(-1)[None])


def churn_of_policy(policy: Any, observations: Any, before: Seen) -> dict[str, Tensor]:
    """Return the churn since `before` on the same observations, [1] by metric key.

    `plasticity/output_churn` is policy churn: it is left out where actions are not discrete.
    """
    churn = before.churn(see_policy(policy, observations))
    if not isinstance(policy.action_space, gymnasium.spaces.Discrete):
        churn.pop("plasticity/output_churn")
    return {key: value.cpu() for key, value in churn.items()}


def probe_policy(policy: Any, observations: Any, **options: Any) -> dict[str, Tensor]:
    """Return the acting network's trainability, [1] by metric key; see `probe.trainability`.

    As many labels as it has outputs, two where it has one. options: its budget, say.
    """
    acting = policy.parts[0]
    inputs, _ = policy.obs_to_tensor(observations)

    def forward(module: nn.Module, inputs: Any) -> Tensor:
        outputs = _outputs(module, inputs)
        return outputs if outputs.shape[-1] > 1 else torch.cat((-outputs, outputs), -1)

    return trainability(acting.module, inputs, acting.optimizer, forward=forward, **options)


@torch.no_grad()
def _look(policy: Any, observations: Any) -> tuple[Records, Tensor]:
    """Pass observations through the acting network, recorded; it is left as it was."""
    acting = policy.parts[0].module
    inputs, _ = policy.obs_to_tensor(observations)
    with evaluation_mode(policy), recorded(acting, acting.chains[0][-1]) as records:
        return records, _outputs(acting, inputs)


def keep(observations: Any) -> Any:
    """Return a step's observations to look at later: replay buffers reshape a dict's entries."""
    return dict(observations) if isinstance(observations, Mapping) else observations


def last_observations(steps: Sequence[Any], count: int) -> Any:
    """Return the last `count` observations of steps [copies, ...] (or dicts of such arrays)."""
    if isinstance(steps[0], Mapping):
        return {key: last_observations([step[key] for step in steps], count) for key in steps[0]}
    return np.concatenate(steps)[-count:]


def _outputs(acting: Any, inputs: Any) -> Tensor:
    """Pass observations through each layer once, without drawing a random number.

    Returns what actions are read from: values, logits or means, [n, actions].
    """
    if is_actor_critic(acting):
        features = acting.extract_features(inputs)
        own, values = features if isinstance(features, tuple) else (features, features)
        own, values = _remembered(acting, own, values)
        outputs = acting.action_net(acting.mlp_extractor.forward_actor(own))
        acting.value_net(acting.mlp_extractor.forward_critic(values))
    elif hasattr(acting, "get_action_dist_params"):
        outputs = acting.get_action_dist_params(inputs)
    else:
        outputs = acting(inputs)
    first: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return first.flatten(1)


def _remembered(acting: Any, own: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Pass features through a recurrent policy's LSTMs, each as if it were an episode's first."""
    if not hasattr(acting, "lstm_actor"):
        return own, values
    mine = acting.lstm_actor(own[None])[0][0]  # without states given they are zero
    if acting.lstm_critic is not None:
        return mine, acting.lstm_critic(values[None])[0][0]
    return mine, mine if acting.shared_lstm else acting.critic(values)
