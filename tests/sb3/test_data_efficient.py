"""Double Q-learning and dueling networks against hand-written computations, and the stock DQN."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.dqn.policies import QNetwork
from torch import Tensor, nn
from torch.nn import functional as F

from ht_bench.sb3.data_efficient import (
    DataEfficientPolicy,
    DoubleDuelingQNetwork,
    DoubleQNetwork,
    DuelingQNetwork,
)
from ht_bench.sb3.parts import chains_of

from .conftest import Sights, assert_equal, transitions, two_layers

SWITCHES = [(True, True), (True, False), (False, True), (False, False)]
VECTORS = spaces.Box(-1.0, 1.0, (4,), dtype=np.float32)
ACTIONS = spaces.Discrete(3)


def images() -> Sights:
    return Sights(images=True, continuous=False)


def policy(double: bool = True, dueling: bool = True, **kwargs: Any) -> DataEfficientPolicy:
    torch.manual_seed(1)
    kwargs = {"net_arch": [5], "features_extractor_class": FlattenExtractor, **kwargs}
    return DataEfficientPolicy(
        VECTORS, ACTIONS, lambda _: 1e-3, double=double, dueling=dueling, **kwargs
    )


def apart(made: DataEfficientPolicy) -> DataEfficientPolicy:
    """Give the target network weights of its own."""
    with torch.no_grad():
        for parameter in made.q_net_target.parameters():
            parameter.normal_()
    return made


def observations(count: int = 64) -> Tensor:
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1


def agent(policy_class: Any, env: Any, steps: int = 0, **kwargs: Any) -> DQN:
    settings = {"learning_starts": 20, "train_freq": 4, "buffer_size": 200, "batch_size": 8}
    settings |= {"target_update_interval": 40, "seed": 3, "device": "cpu", **kwargs}
    model = DQN(policy_class, env, **settings)
    return model.learn(steps) if steps else model


def values_of(network: nn.Module, dueling: bool, inputs: Tensor) -> Tensor:
    """What `network`, with net_arch=[5], says, from its weights alone."""
    state = dict(network.named_parameters())
    if not dueling:
        return two_layers(state, "q_net", inputs)
    value, advantages = (two_layers(state, name, inputs) for name in ("value", "advantage"))
    return value + advantages - advantages.sum(1, keepdim=True) / advantages.shape[1]


# ---- dueling ----


def test_dueling_values_by_hand() -> None:
    extractor = FlattenExtractor(spaces.Box(-1.0, 1.0, (2,), dtype=np.float32))
    network = DuelingQNetwork(extractor._observation_space, ACTIONS, extractor, 2, net_arch=[])
    with torch.no_grad():
        network.value[0].weight.copy_(torch.tensor([[1.0, 1.0]]))
        network.value[0].bias.fill_(0.5)
        network.advantage[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        network.advantage[0].bias.fill_(7.0)  # moves all advantages alike, and so nothing
    # V = 3.5; A − 7 = 1, 2, −1 with mean 2/3.
    expected = torch.tensor([[3.5 + 1 - 2 / 3, 3.5 + 2 - 2 / 3, 3.5 - 1 - 2 / 3]])
    torch.testing.assert_close(network(torch.tensor([[1.0, 2.0]])), expected)
    assert network._predict(torch.tensor([[1.0, 2.0]])).tolist() == [1]


def test_dueling_values_of_random_weights() -> None:
    network = policy().q_net
    torch.testing.assert_close(network(observations()), values_of(network, True, observations()))
    assert network(observations()).shape == (64, 3)


def test_each_stream_is_a_chain_of_weight_layers() -> None:
    trunk = "features_extractor"
    pixels = spaces.Box(0, 255, (1, 36, 36), dtype=np.uint8)
    network = DataEfficientPolicy(pixels, ACTIONS, lambda _: 1e-3).q_net
    shared = [f"{trunk}.cnn.0", f"{trunk}.cnn.2", f"{trunk}.cnn.4", f"{trunk}.linear.0"]
    assert chains_of(network) == [[*shared, "value.0"], [*shared, "advantage.0"]]
    assert chains_of(policy().q_net) == [["value.0", "value.2"], ["advantage.0", "advantage.2"]]


def test_without_dueling_the_network_is_the_stock_one() -> None:
    assert type(policy(dueling=False).q_net) is QNetwork
    assert type(policy(double=False).q_net_target) is DuelingQNetwork
    assert type(policy(dueling=False).q_net_target) is DoubleQNetwork
    assert type(policy().q_net_target) is DoubleDuelingQNetwork


# ---- double ----


@pytest.mark.parametrize("dueling", [True, False])
def test_target_answers_with_its_value_of_the_online_choice(dueling: bool) -> None:
    made = apart(policy(dueling=dueling))
    online = values_of(made.q_net, dueling, observations()).tolist()
    target = values_of(made.q_net_target, dueling, observations()).tolist()
    greedy = [row.index(max(row)) for row in online]
    expected = [row[action] for row, action in zip(target, greedy, strict=True)]
    found = made.q_net_target(observations())
    assert found.shape == (64, 1)
    torch.testing.assert_close(found[:, 0], torch.tensor(expected))
    # The two networks disagree somewhere: the stock's maximum would be another number.
    assert any(max(row) > value for row, value in zip(target, expected, strict=True))


def test_choose_takes_values_computed_elsewhere() -> None:
    made = policy()
    greedy = made.q_net(observations()).argmax(dim=1)
    values = torch.tensor([[10.0, 20.0, 30.0]]).expand(64, 3)
    chosen = made.q_net_target.choose(values, observations())
    assert chosen.tolist() == [[10.0 * (1 + action)] for action in greedy.tolist()]
    assert len(set(greedy.tolist())) > 1


@pytest.mark.parametrize(("double", "dueling"), SWITCHES)
def test_a_step_of_training_by_hand(double: bool, dueling: bool) -> None:
    kwargs = {"features_extractor_class": FlattenExtractor, "net_arch": [5], "double": double}
    kwargs |= {"dueling": dueling, "optimizer_class": torch.optim.SGD}
    model = agent(DataEfficientPolicy, "CartPole-v1", learning_rate=0.5, policy_kwargs=kwargs)
    apart(model.policy)
    batch = transitions(observations())
    model.replay_buffer.sample = lambda *args, **kwargs: batch
    online = copy.deepcopy(model.q_net)
    with torch.no_grad():
        target = values_of(model.q_net_target, dueling, batch.next_observations)
        judge = values_of(online, dueling, batch.next_observations) if double else target
        rows = torch.arange(64)
        bootstrap = target[rows, judge.argmax(dim=1)][:, None]
    goal = batch.rewards + (1 - batch.dones) * batch.discounts * bootstrap
    values = values_of(online, dueling, batch.observations)[rows, batch.actions[:, 0]][:, None]
    F.smooth_l1_loss(values, goal).backward()
    model._setup_learn(1)
    model.train(gradient_steps=1, batch_size=64)
    for (name, after), before in zip(
        model.q_net.named_parameters(), online.parameters(), strict=True
    ):
        torch.testing.assert_close(after, before - 0.5 * before.grad, msg=name)
        assert not torch.equal(after, before), name


def test_target_acts_by_its_own_values() -> None:
    made = apart(policy())
    own = values_of(made.q_net_target, True, observations()).argmax(dim=1)
    assert made.q_net_target._predict(observations()).tolist() == own.tolist()
    assert len(set(own.tolist())) > 1


# ---- the reference to the online network ----


def test_reference_is_not_registered() -> None:
    made = policy()
    target = made.q_net_target
    assert [id(p) for p in target.parameters()] == [
        id(p) for layer in (target.value, target.advantage) for p in layer.parameters()
    ]
    assert all(made.q_net is not module for module in target.modules())
    assert not {id(p) for p in target.parameters()} & {id(p) for p in made.q_net.parameters()}
    assert target.state_dict().keys() == made.q_net.state_dict().keys()
    assert not any("online" in name for name in made.state_dict())
    assert not target.training and made.q_net.training


@pytest.mark.parametrize(("double", "dueling"), SWITCHES)
def test_target_starts_equal_and_follows_as_the_stock_one(double: bool, dueling: bool) -> None:
    made = policy(double, dueling)
    parameters = made._get_constructor_parameters()
    assert (parameters["double"], parameters["dueling"]) == (double, dueling)
    assert_equal(made.q_net.state_dict(), made.q_net_target.state_dict())
    before = copy.deepcopy(apart(made).q_net_target.state_dict())
    polyak_update(made.q_net.parameters(), made.q_net_target.parameters(), 0.25)
    for name, tensor in made.q_net_target.state_dict().items():
        blend = 0.75 * before[name] + 0.25 * made.q_net.state_dict()[name]
        torch.testing.assert_close(tensor, blend)
    made.q_net_target.load_state_dict(made.q_net.state_dict())
    assert_equal(made.q_net.state_dict(), made.q_net_target.state_dict())


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "save"])
@pytest.mark.parametrize("dueling", [True, False])
def test_copies_refer_to_their_own_online_network(how: str, dueling: bool, tmp_path: Path) -> None:
    made = apart(policy(dueling=dueling))
    if how == "save":
        made.save(str(tmp_path / "policy.pt"))
        copied = DataEfficientPolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    else:
        copied = pickle.loads(pickle.dumps(made)) if how == "pickle" else copy.deepcopy(made)
    assert copied.q_net_target._online is copied.q_net
    assert copied.q_net is not made.q_net
    assert type(copied.q_net_target) is type(made.q_net_target)
    assert_equal(copied.state_dict(), made.state_dict())
    before = copied.q_net_target(observations())
    assert torch.equal(before, made.q_net_target(observations()))
    with torch.no_grad():
        list(copied.q_net.parameters())[-1].add_(torch.tensor([0.0, 0.0, 100.0]))
    values = values_of(copied.q_net_target, dueling, observations())
    torch.testing.assert_close(copied.q_net_target(observations())[:, 0], values[:, 2])
    assert torch.equal(before, made.q_net_target(observations()))


def test_networks_are_saved_alone(tmp_path: Path) -> None:
    made = apart(policy())
    for network in (made.q_net, made.q_net_target):
        network.save(str(tmp_path / "network.pt"))
        loaded = type(network).load(str(tmp_path / "network.pt"), device="cpu")
        assert torch.equal(loaded(observations()), network(observations()))


def test_cast_to_float64_is_left_alone() -> None:
    assert {p.dtype for p in policy().double().parameters()} == {torch.float64}


# ---- training ----


@pytest.mark.parametrize(("double", "dueling"), SWITCHES)
def test_training_moves_every_parameter(double: bool, dueling: bool) -> None:
    kwargs = {"policy_kwargs": {"double": double, "dueling": dueling}}
    before = agent(DataEfficientPolicy, images(), **kwargs).policy.state_dict()
    after = agent(DataEfficientPolicy, images(), 88, **kwargs).policy.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in after.items():  # the target's too: it was updated at steps 40 and 80
        assert not torch.equal(tensor, before[name]), name


OFF = {"double": False, "dueling": False}


def test_switched_off_it_is_the_stock_policy_on_vectors() -> None:
    off = {**OFF, "features_extractor_class": FlattenExtractor}
    settings = {"gradient_steps": 2, "learning_rate": 1e-3}
    stock = agent("MlpPolicy", "CartPole-v1", 300, **settings)
    mine = agent(DataEfficientPolicy, "CartPole-v1", 300, policy_kwargs=off, **settings)
    assert_equal(mine.policy.state_dict(), stock.policy.state_dict())
    off["double"] = True
    other = agent(DataEfficientPolicy, "CartPole-v1", 300, policy_kwargs=off, **settings)
    weight = "q_net.q_net.0.weight"
    assert not torch.equal(other.policy.state_dict()[weight], stock.policy.state_dict()[weight])


def test_switched_off_it_is_the_stock_policy_on_images() -> None:
    stock = agent("CnnPolicy", images(), 100)
    mine = agent(DataEfficientPolicy, images(), 100, policy_kwargs=dict(OFF))
    assert_equal(mine.policy.state_dict(), stock.policy.state_dict())


def test_model_is_saved_loaded_and_trained_on(tmp_path: Path) -> None:
    model = agent(DataEfficientPolicy, images(), 60, policy_kwargs={"net_arch": [8]})
    model.save(tmp_path / "model.zip")
    loaded = DQN.load(tmp_path / "model.zip", env=images(), device="cpu")
    assert isinstance(loaded.policy, DataEfficientPolicy)
    assert_equal(loaded.policy.state_dict(), model.policy.state_dict())
    assert loaded.q_net_target._online is loaded.q_net
    moments = [one.policy.optimizer.state.values() for one in (loaded, model)]
    for mine, theirs in zip(*moments, strict=True):
        assert torch.equal(mine["exp_avg"], theirs["exp_avg"])
    image = images().reset(seed=5)[0]
    acts = [one.predict(image, deterministic=True)[0] for one in (loaded, model)]
    assert acts[0] == acts[1]
    before = loaded.q_net.value[0].weight.clone()
    loaded.learn(40, reset_num_timesteps=False)
    assert not torch.equal(loaded.q_net.value[0].weight, before)
