"""A part that is replaced: with a new optimizer, or with `resync`, as a transfer needs it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from .conftest import HARE_TORTOISE, clone, equal, hare, observations, tortoise

RESETTING = {"plasticity_kwargs": {"decay": 0.99, "reset_every": 9}}
STILL = {"learning_rate": 0.0}
"""Weights that training does not move: what else moves them shows."""


def layers(width: int) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def optimize(owner: Any, module: nn.Module) -> None:
    owner.optimizer = torch.optim.SGD(module.parameters(), lr=0.0)


# ---- with the optimizer that it needs ----


@pytest.mark.parametrize("width", [8, 12])
def test_a_replaced_network_starts_from_its_weights(width: int, make: Any) -> None:
    model = make("dqn", HARE_TORTOISE, 40, policy_kwargs=RESETTING)
    policy = model.policy
    policy.methods["q_net"].generator.manual_seed(11)
    drawn = policy.methods["q_net"].generator.get_state()
    policy.q_net.q_net = layers(width)
    optimize(policy, policy.q_net)
    model.lr_schedule = lambda _: 0.0
    given = hare(policy, "q_net")
    with pytest.warns(UserWarning, match=r"new one's steps and starts from .* weights of 'q_net'"):
        model.learn(2, reset_num_timesteps=False)
    assert equal(tortoise(policy, "q_net"), given)
    assert policy.methods["q_net"].steps_seen == 2
    assert torch.equal(policy.methods["q_net"].generator.get_state(), drawn)
    model.learn(20, reset_num_timesteps=False)  # past two resets
    assert equal(hare(policy, "q_net"), given)
    assert equal(clone(policy.q_net_target.named_parameters()), given)


def test_a_replaced_actor_leaves_the_critic_its_tortoise(make: Any) -> None:
    pretrained = make("sac", "MlpPolicy", seed=8).policy.actor
    model = make("sac", HARE_TORTOISE, 40, policy_kwargs=RESETTING)
    policy, critic = model.policy, tortoise(model.policy, "critic")
    model.lr_schedule = lambda _: 0.0
    policy.actor = model.actor = copy.deepcopy(pretrained)
    given = clone(pretrained.named_parameters())
    with pytest.warns(UserWarning, match="weights of 'actor', whose parameters are others"):
        model.learn(1, reset_num_timesteps=False)
    assert equal(tortoise(policy, "actor"), given)
    moved = tortoise(policy, "critic")  # by one step of the average
    fast = hare(policy, "critic")
    for name, before in critic.items():
        assert torch.allclose(moved[name], before.lerp(fast[name], 0.01), atol=1e-6)
    model.learn(20, reset_num_timesteps=False)
    assert equal(hare(policy, "actor"), given)


def test_a_new_optimizer_alone_is_said_without_a_start(make: Any, recwarn: Any) -> None:
    model = make("ppo", HARE_TORTOISE, 16, policy_kwargs=RESETTING)
    optimize(model.policy, model.policy)
    model.learn(16, reset_num_timesteps=False)
    said = [str(w.message) for w in recwarn if "was replaced" in str(w.message)]
    assert len(said) == 1 and said[0].endswith("goes on with the new one's steps.")


# ---- with `resync` ----


@pytest.mark.parametrize("name", ["dqn", "ppo", "sac"])
def test_a_resync_lets_a_replaced_part_act(name: str, make: Any) -> None:
    model = make(name, HARE_TORTOISE, 20, policy_kwargs=RESETTING)
    policy, seen = model.policy, torch.as_tensor(observations(model))
    part = policy.parts[0]
    policy.predict(seen.numpy(), deterministic=True)  # where tensors lie is known by now
    owner = policy.q_net if name == "dqn" else policy if name == "ppo" else policy.actor
    last = {"dqn": "q_net", "ppo": "action_net", "sac": "mu"}[name]
    if name == "dqn":
        owner, last = owner.q_net, "2"
    old = getattr(owner, last)
    setattr(owner, last, nn.Linear(old.in_features, old.out_features))
    part.optimizer.add_param_group({"params": getattr(owner, last).parameters()})
    policy.methods[part.name].resync()
    replaced = getattr(owner, last).weight
    for _ in range(2):  # taken anew, and kept
        with torch.no_grad():
            replaced.mul_(-50)
        acting = policy._acting
        with acting.tortoise():
            now = {k: v.detach().clone() for k, v in part.module.named_parameters()}
        assert equal(now, tortoise(policy, part.name))
        with policy.acting_as("tortoise"):
            expected = policy.predict(seen.numpy(), deterministic=True)[0].tolist()
        assert policy.predict(seen.numpy(), deterministic=True)[0].tolist() == expected
        assert getattr(owner, last).weight is replaced
