"""Unit-wise methods in agents: which units, when, and what rollouts and copies leave."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

import ht_bench.sb3  # noqa: F401
from ht_bench.errors import UsageError
from ht_bench.networks.units import find_units
from ht_bench.sb3.parts import parts_of

UNITWISE: dict[str, dict[str, Any]] = {
    "redo": {"threshold": 0.5, "every": 3},
    "grama": {"threshold": 0.5, "every": 3},
    "continual-backprop": {"replacement_rate": 0.05, "maturity": 1},
    "self-normalized-resets": {"percentile": 0.5, "minimum": 1, "every": 1},
}
IMAGES = spaces.Box(0, 255, (4, 36, 36), np.uint8)


def agent(
    algorithm: Any, name: str = "redo", policy: str = "PlasticMlpPolicy", **kwargs: Any
) -> Any:
    continuous = algorithm in (SAC, TD3)
    small = {"buffer_size": 500, "learning_starts": 10} if algorithm in (DQN, SAC, TD3) else {}
    if algorithm is PPO:
        small = {"n_steps": 32, "batch_size": 16, "n_epochs": 2}
    settings = {"plasticity": name, "plasticity_kwargs": UNITWISE[name], **kwargs}
    if continuous:
        settings["net_arch"] = [16, 12]
    environment = "Pendulum-v1" if continuous else "CartPole-v1"
    return algorithm(policy, environment, seed=0, device="cpu", policy_kwargs=settings, **small)


def watched(policy: nn.Module) -> int:
    return sum(len(child._forward_hooks) for child in policy.modules())


def test_units_lead_to_every_output_that_reads_them() -> None:
    model = agent(PPO)
    found = {group.layer: group for group in find_units(model.policy)}
    tower = "mlp_extractor.{}_net.{}"
    assert list(found) == [tower.format(n, i) for n in ("policy", "value") for i in (0, 2)]
    assert found[tower.format("value", 2)].outgoing[0].layer == "value_net"
    actor, critic = (part.module for part in agent(SAC).policy.parts)
    last = find_units(actor)[-1]
    assert [outgoing.layer for outgoing in last.outgoing] == ["mu", "log_std"]
    assert [g.layer for g in find_units(critic)] == ["qf0.0", "qf0.2", "qf1.0", "qf1.2"]


def image_policy(algorithm: Any, **kwargs: Any) -> nn.Module:
    from ht_bench.sb3 import policies

    name = "DQNPlasticCnnPolicy" if algorithm is DQN else "ActorCriticPlasticCnnPolicy"
    cls = getattr(policies, name)
    policy = cls(IMAGES, spaces.Discrete(3), lambda _: 1e-3, plasticity="redo", **kwargs)
    module: nn.Module = policy.parts[0].module
    return module


@pytest.mark.parametrize(
    ("algorithm", "readers"), [(DQN, ["q_net.0"]), (PPO, ["action_net", "value_net"])]
)
def test_units_of_an_image_network_go_on_into_its_heads(algorithm: Any, readers: list[str]) -> None:
    module = image_policy(algorithm, normalize_images=True)
    groups = find_units(module)
    assert [g.layer.removeprefix("features_extractor.") for g in groups] == [
        *("cnn.0", "cnn.2", "cnn.4", "linear.0"),
    ]
    flattened = groups[2].outgoing[0]
    weight = module.get_submodule(flattened.layer).get_parameter("weight")
    assert flattened.positions * groups[2].count == weight.shape[1]
    assert [outgoing.layer for outgoing in groups[3].outgoing] == readers


class TwoViews(BaseFeaturesExtractor):
    """Two networks side by side: what follows one in the order of modules is not what reads it."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 8)
        self.left = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
        self.right = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        return torch.cat((self.left(observations), self.right(observations)), 1)


def test_the_units_of_an_extractor_of_ones_own_are_left_out() -> None:
    model = agent(PPO, features_extractor_class=TwoViews, net_arch=[6])
    assert [g.layer for g in find_units(model.policy)] == [
        *("mlp_extractor.policy_net.0", "mlp_extractor.value_net.0"),
    ]


def test_a_policy_without_hidden_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="has no hidden units that could be recycled"):
        agent(PPO, net_arch=[])


@pytest.mark.parametrize("name", UNITWISE)
@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_agents_train_and_go_on_after_saving(algorithm: Any, name: str, tmp_path: Path) -> None:
    model = agent(algorithm, name)
    model.learn(64)
    (method,) = model.policy.methods.values()
    assert method.steps_seen > 0
    assert all(bool(torch.isfinite(p).all()) for p in model.policy.parameters())
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip")
    (theirs,) = loaded.policy.methods.values()
    state = method.checkpoint()["state"]
    saved = theirs.checkpoint()["state"]
    assert state.keys() == saved.keys()
    for mine, other in zip(method.activity, theirs.activity, strict=True):
        assert torch.equal(mine, other)
    assert watched(loaded.policy) == watched(model.policy)


def test_copies_are_watched_by_their_own_method() -> None:
    model = agent(DQN)
    for policy in (copy.deepcopy(model.policy), pickle.loads(pickle.dumps(model.policy))):
        assert watched(policy) == watched(model.policy) == 2
        (mine,), (theirs,) = model.policy.methods.values(), policy.methods.values()
        policy.set_training_mode(True)
        policy.q_net(torch.ones(2, 4))
        assert theirs.activity[0].any() and not mine.activity[0].any()


def test_gathering_experience_leaves_no_trace() -> None:
    model = agent(PPO)
    (method,) = model.policy.methods.values()
    before = [value.clone() for value in method.activity]
    _, callback = model._setup_learn(64)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    assert all(torch.equal(a, b) for a, b in zip(before, method.activity, strict=True))
    model.train()
    assert all(value.any() for value in method.activity)


def test_weights_do_not_jump_between_updates_on_one_rollout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = agent(PPO)
    (method,) = model.policy.methods.values()
    updating, inside = [False], list[bool]()
    recycle, train = method.recycle, model.train

    def noted(*args: Any) -> None:
        inside.append(updating[0])
        recycle(*args)

    def updates() -> None:
        updating[0] = True
        train()
        updating[0] = False

    monkeypatch.setattr(method, "recycle", noted)
    monkeypatch.setattr(model, "train", updates)
    model.learn(96)
    assert inside == [False, False]  # once for each rollout that follows updates


@pytest.mark.parametrize("algorithm", [A2C, SAC, TD3])
def test_other_algorithms_train_with_it(algorithm: Any) -> None:
    model = agent(algorithm)
    model.learn(24)
    for part in parts_of(model.policy):
        assert all(bool(torch.isfinite(p).all()) for p in part.module.parameters())
    assert all(method.steps_seen for method in model.policy.methods.values())


@pytest.mark.parametrize(
    ("name", "inert"),
    [
        ("redo", {"threshold": -1.0, "every": 1}),
        ("grama", {"threshold": -1.0, "every": 1}),
        ("continual-backprop", {"replacement_rate": 0.0}),
        ("self-normalized-resets", {"percentile": 1.0}),
    ],
)
def test_that_recycles_nothing_an_agent_is_the_stock_one(name: str, inert: dict[str, Any]) -> None:
    settings = {"seed": 0, "n_steps": 32, "batch_size": 16, "n_epochs": 2}
    stock = PPO("MlpPolicy", "CartPole-v1", **settings).learn(64)
    kwargs = {"plasticity": name, "plasticity_kwargs": inert}
    plastic = PPO("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **settings).learn(64)
    theirs = dict(plastic.policy.named_parameters())
    assert all(torch.equal(p, theirs[n]) for n, p in stock.policy.named_parameters())
