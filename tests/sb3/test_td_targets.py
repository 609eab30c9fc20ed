"""The tortoise is what TD targets bootstrap from, whatever the algorithm does with its own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn
from torch.nn import functional as F

from .conftest import (
    HARE_TORTOISE,
    NEVER,
    OFF_POLICY,
    Tensors,
    apart,
    clone,
    equal,
    hare,
    observations,
    storages,
    tortoise,
    tortoise_of,
    transitions,
    two_layers,
)


def said_by(weights: dict[str, Tensors], seen: Tensor, actions: Tensor) -> list[Tensor]:
    """What target networks of these weights, by the online network's name, have to say."""
    said = []
    for name, named in weights.items():
        if name == "critic":
            both = torch.cat([seen, actions], dim=1)
            said += [two_layers(named, f"qf{k}", both) for k in (0, 1)]
        elif name == "actor":
            said.append(two_layers(named, "mu", seen).tanh())
        else:
            values = two_layers(named, name, seen)
            said.append(values.view(-1, 5, 2) if name == "quantile_net" else values)
    return said


def heard_by(model: Any, seen: Tensor, actions: Tensor) -> list[Tensor]:
    """What the algorithm hears from its target networks."""
    heard: list[Tensor] = []
    for part in model.policy.parts:
        if part.target:
            inputs = (seen, actions) if part.name == "critic" else (seen,)
            found = getattr(model, part.target)(*inputs)
            heard += found if isinstance(found, tuple) else [found]
    return heard


def weights_of(policy: Any, which: str) -> dict[str, Tensors]:
    """The hare's, the tortoise's or the algorithm's own target's weights of each such network."""

    def own(policy: Any, name: str) -> Tensors:
        target = getattr(policy, targets[name])
        return clone(target.named_parameters())

    targets = {part.name: part.target for part in policy.parts if part.target}
    get = {"hare": hare, "tortoise": tortoise, "own": own}[which]
    return {name: get(policy, name) for name in targets}


def batch(model: Any) -> tuple[Tensor, Tensor]:
    seen = torch.as_tensor(observations(model))
    return seen, torch.rand(len(seen), 1) * 2 - 1


def close(left: list[Tensor], right: list[Tensor]) -> bool:
    assert [t.shape for t in left] == [t.shape for t in right]
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(left, right, strict=True))


def moving(algorithm: str, tau: float, interval: int) -> dict[str, Any]:
    return {"tau": tau} | ({} if algorithm == "td3" else {"target_update_interval": interval})


MOVES = [(1.0, 1), (1.0, 10000), (0.005, 1), (0.005, 10000)]


@pytest.mark.parametrize("algorithm", OFF_POLICY)
def test_the_tortoise_is_the_target_whatever_the_algorithm_does_with_its_own(
    algorithm: str, make: Any
) -> None:
    trained = []
    for tau, interval in MOVES:
        settings = moving(algorithm, tau, interval)
        model = make(algorithm, HARE_TORTOISE, 36, policy_kwargs=NEVER, **settings)
        trained.append([hare(model.policy, part.name) for part in model.policy.parts])
        seen, actions = batch(model)
        for _ in range(2):  # the second time with other weights, filled in by value
            heard = heard_by(model, seen, actions)
            assert close(heard, said_by(weights_of(model.policy, "tortoise"), seen, actions))
            assert close(heard, said_by(weights_of(model.policy, "own"), seen, actions))
            assert not close(heard, said_by(weights_of(model.policy, "hare"), seen, actions))
            apart(model.policy)
    for other in trained[1:]:
        assert all(equal(mine, theirs) for mine, theirs in zip(trained[0], other, strict=True))


@pytest.mark.parametrize("algorithm", OFF_POLICY)
@pytest.mark.parametrize(("tau", "interval"), MOVES)
def test_the_algorithms_own_target_is_kept_on_demand(
    algorithm: str, tau: float, interval: int, make: Any
) -> None:
    own = {**NEVER, "tortoise_target": False}
    settings = moving(algorithm, tau, interval)
    model = make(algorithm, HARE_TORTOISE, 36, policy_kwargs=own, **settings)
    stock = make(algorithm, "MlpPolicy", 36, **settings)
    seen, actions = batch(model)
    heard = heard_by(model, seen, actions)
    assert not close(heard, said_by(weights_of(model.policy, "tortoise"), seen, actions))
    for part in model.policy.parts:
        if part.target:
            mine, theirs = getattr(model, part.target), getattr(stock, part.target)
            assert type(mine) is type(theirs)
            assert equal(clone(mine.named_parameters()), clone(theirs.named_parameters()))


@pytest.mark.parametrize("algorithm", OFF_POLICY)
@pytest.mark.parametrize("decay", [0.0, 0.75])
def test_training_is_the_stock_agents_with_a_target_that_moves_as_the_tortoise(
    algorithm: str, decay: float, make: Any
) -> None:
    """The stock target moves once a step of training here, by tau = 1 - decay."""
    settings = moving(algorithm, 1 - decay, 1)
    if algorithm == "td3":
        settings["policy_delay"] = 1
    if algorithm in ("dqn", "qrdqn"):  # theirs moves before the step, by the environment's clock
        settings["learning_starts"] = 0
    kwargs = {"plasticity_kwargs": {"decay": decay, "reset_every": None}}
    mine = make(algorithm, HARE_TORTOISE, 40, policy_kwargs=kwargs, **settings)
    stock = make(algorithm, "MlpPolicy", 40, **settings)
    other = make(algorithm, "MlpPolicy", 40, **{**settings, "tau": 0.5})
    for part in mine.policy.parts:
        found, wanted = hare(mine.policy, part.name), hare(stock.policy, part.name)
        assert not equal(found, hare(other.policy, part.name))
        if decay == 0:
            assert equal(found, wanted)
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-5)


def test_a_step_of_training_by_hand(make: Any) -> None:
    kwargs = {**NEVER, "optimizer_class": torch.optim.SGD}
    settings = {"learning_rate": 0.5, "max_grad_norm": 1e6}
    model = make("dqn", HARE_TORTOISE, policy_kwargs=kwargs, **settings)
    policy = apart(model.policy)
    seen = batch(model)[0].clamp(-3, 3)
    sampled = transitions(seen)
    model.replay_buffer.sample = lambda *args, **kwargs: sampled
    slow, fast = tortoise(policy, "q_net"), hare(policy, "q_net")
    best = two_layers(slow, "q_net", sampled.next_observations).max(dim=1, keepdim=True).values
    goal = sampled.rewards + (1 - sampled.dones) * sampled.discounts * best
    for tensor in fast.values():
        tensor.requires_grad_()
    values = two_layers(fast, "q_net", seen).gather(1, sampled.actions)
    F.smooth_l1_loss(values, goal).backward()
    model._setup_learn(1)
    model.train(gradient_steps=1, batch_size=100)
    after, averaged = hare(policy, "q_net"), tortoise(policy, "q_net")
    for name, tensor in fast.items():
        expected = (tensor - 0.5 * tensor.grad).detach()
        torch.testing.assert_close(after[name], expected, msg=name)
        torch.testing.assert_close(averaged[name], 0.9 * slow[name] + 0.1 * expected, msg=name)
        assert not torch.equal(after[name], tensor), name


class Moody(BaseFeaturesExtractor):
    """Features that differ between training and evaluation mode."""

    def __init__(self, space: Any, tracked: bool = True) -> None:
        super().__init__(space, 8)
        norm = nn.BatchNorm1d(8, track_running_stats=tracked)
        self.layers = nn.Sequential(nn.Linear(4, 8), norm, nn.Dropout(0.5))

    def forward(self, seen: Tensor) -> Tensor:
        return self.layers(seen)


@pytest.mark.parametrize("tracked", [True, False])
def test_the_tortoise_is_never_in_training_mode(tracked: bool, make: Any) -> None:
    kwargs = {**NEVER, "features_extractor_class": Moody}
    kwargs["features_extractor_kwargs"] = {"tracked": tracked}
    model = make("dqn", HARE_TORTOISE, 60 if tracked else 0, policy_kwargs=kwargs)
    if not tracked:  # nobody can train that on single observations
        apart(model.policy)
    policy, (seen, _) = model.policy, batch(model)
    twin = copy.deepcopy(policy.q_net).eval()
    twin.load_state_dict(tortoise(policy, "q_net"))
    for mode in (True, False):
        policy.train(mode)
        policy.set_training_mode(mode)
        model.q_net_target.set_training_mode(mode)
        assert torch.equal(model.q_net_target(seen), twin(seen))
        policy.to("cpu")  # it reads the tortoise's tensors anew
        assert torch.equal(model.q_net_target(seen), twin(seen))
    with policy.acting_as("tortoise"):
        assert torch.equal(policy.q_net(seen), twin(seen))
    if tracked:
        mean = "features_extractor.layers.1.running_mean"
        slow, fast = tortoise(policy, "q_net")[mean], hare(policy, "q_net")[mean]
        assert not torch.equal(slow, fast) and slow.abs().max() > 0


def test_the_tortoise_is_in_no_optimizer_and_no_trained_network(algorithm: str, make: Any) -> None:
    policy = make(algorithm, HARE_TORTOISE, 30, policy_kwargs=NEVER).policy
    groups = [group for part in policy.parts for group in part.optimizer.param_groups]
    optimized = [parameter for group in groups for parameter in group["params"]]
    slow = storages(tortoise_of(policy))
    for part in policy.parts:
        assert not slow & storages([*part.module.parameters(), *part.module.buffers()])
        if part.target:
            own = tortoise(policy, part.name).values()
            target = getattr(policy, part.target)
            assert storages(target.parameters()) <= slow and len(own) == len([*target.parameters()])
    assert not slow & storages(optimized)
    assert len(slow) == len(optimized) >= 4


def moved_by(model: Any, update: Any) -> bool:
    """Whether `update` moves what the target network computes."""
    seen = batch(model)[0]
    before = model.q_net_target(seen).clone()
    update()
    return not torch.equal(model.q_net_target(seen), before)


class OwnUpdate(DQN):
    """An algorithm of somebody else, whose own `train` moves the target as DQN does."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        super().train(gradient_steps, batch_size)
        polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), 1.0)


def test_the_algorithms_update_is_absorbed_and_a_users_is_not(make: Any) -> None:
    model = make("dqn", HARE_TORTOISE, policy_kwargs=NEVER, target_update_interval=1)
    apart(model.policy)
    model._setup_learn(1)
    assert not moved_by(model, model._on_step)
    both = model.q_net.parameters, model.q_net_target.parameters
    assert moved_by(model, lambda: polyak_update(both[0](), both[1](), 0.5))
    kwargs = {"net_arch": [8], **NEVER}
    own = OwnUpdate(HARE_TORTOISE, "CartPole-v1", learning_starts=8, policy_kwargs=kwargs)
    own.learn(40)
    seen = batch(own)[0]
    assert torch.allclose(
        own.q_net_target(seen), two_layers(tortoise(own.policy, "q_net"), "q_net", seen), atol=1e-5
    )
    assert not equal(tortoise(own.policy, "q_net"), hare(own.policy, "q_net"))
