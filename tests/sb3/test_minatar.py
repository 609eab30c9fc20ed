"""MinAtar's network as its authors have it, under every algorithm that plays its games."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from torch.nn import functional as F

from ht_bench.errors import UsageError
from ht_bench.networks.units import find_units
from ht_bench.sb3 import find_algorithm
from ht_bench.sb3.minatar import DQNMinAtarPolicy, MinAtarCNN
from ht_bench.sb3.parts import chains_of

from .conftest import assert_equal

BOARDS = spaces.Box(0, 1, (4, 10, 10), np.uint8)
TRUNK = ["features_extractor.cnn.0", "features_extractor.linear.0"]
HEADS = {
    "dqn": ["q_net.0"],
    "qrdqn": ["quantile_net.0"],
    "ppo": ["action_net", "value_net"],
    "a2c": ["action_net", "value_net"],
}


class Noise(gymnasium.Env[Any, Any]):
    """Boards of noise; the reward is the action; 7 steps an episode."""

    observation_space, action_space = BOARDS, spaces.Discrete(6)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.integers(0, 2, BOARDS.shape, np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        board = self.np_random.integers(0, 2, BOARDS.shape, np.uint8)
        return board, float(action), self.steps == 7, False, {}


def agent(algorithm: str, policy: str, **kwargs: Any) -> Any:
    if algorithm == "qrdqn":
        pytest.importorskip("sb3_contrib")
    small: dict[str, Any] = {"n_steps": 20}
    if algorithm == "ppo":
        small |= {"batch_size": 10, "n_epochs": 1}
    if algorithm in ("dqn", "qrdqn"):
        small = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100}
    make = find_algorithm(algorithm)
    return make(policy, Noise(), seed=0, device="cpu", policy_kwargs=kwargs, **small)  # type: ignore[arg-type]


def test_values_by_hand() -> None:
    policy = DQNMinAtarPolicy(BOARDS, spaces.Discrete(6), lambda _: 1e-3)
    convolution, hidden = policy.q_net.features_extractor.cnn[0], policy.q_net.q_net[0]
    assert convolution.weight.shape == (16, 4, 3, 3) and convolution.stride == (1, 1)
    assert hidden.weight.shape == (6, 128)
    state = dict(policy.q_net.named_parameters())
    assert sum(p.numel() for p in state.values()) == 592 + 131_200 + 774
    boards = torch.randint(0, 2, (5, *BOARDS.shape), dtype=torch.uint8)
    maps = F.conv2d(boards.float(), state[f"{TRUNK[0]}.weight"], state[f"{TRUNK[0]}.bias"])
    linear = (state[f"{TRUNK[1]}.{name}"] for name in ("weight", "bias"))
    features = F.linear(maps.relu().flatten(1), *linear).relu()
    expected = F.linear(features, state["q_net.0.weight"], state["q_net.0.bias"])
    torch.testing.assert_close(policy.q_net(boards), expected)


def test_other_sizes_and_heads_can_be_asked_for() -> None:
    network = {"features_extractor_kwargs": {"features_dim": 8}, "net_arch": [5]}
    policy = DQNMinAtarPolicy(BOARDS, spaces.Discrete(6), lambda _: 1e-3, **network)
    assert chains_of(policy.q_net) == [[*TRUNK, "q_net.0", "q_net.2"]]
    assert policy.q_net.q_net[0].weight.shape == (5, 8)
    assert policy._get_constructor_parameters()["net_arch"] == [5]


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 1, (4,)), spaces.Box(0, 1, (9, 10, 2)), spaces.Discrete(3)]
)
def test_what_is_no_board_is_refused(space: Any) -> None:
    with pytest.raises(UsageError, match=r"reads boards .* wrap the game with \"minatar\""):
        MinAtarCNN(space)


@pytest.mark.parametrize("algorithm", HEADS)
def test_units_go_on_into_every_head(algorithm: str) -> None:
    model = agent(algorithm, "PlasticMinAtarPolicy", plasticity="redo")
    module = model.policy.parts[0].module
    first, second = find_units(module)
    assert [first.layer, second.layer] == TRUNK
    assert (first.count, second.count) == (16, 128)
    assert [(o.layer, o.positions) for o in first.outgoing] == [(TRUNK[1], 64)]
    assert [outgoing.layer for outgoing in second.outgoing] == HEADS[algorithm]


@pytest.mark.parametrize("algorithm", HEADS)
@pytest.mark.parametrize("method", ["hare-tortoise", "redo", "continual-backprop"])
def test_agents_train_and_are_saved(algorithm: str, method: str, tmp_path: Path) -> None:
    model = agent(algorithm, "PlasticMinAtarPolicy", plasticity=method)
    before = {name: tensor.clone() for name, tensor in model.policy.named_parameters()}
    model.learn(60)
    for name, tensor in model.policy.named_parameters():
        assert torch.isfinite(tensor).all()
        assert "target" in name or not torch.equal(tensor, before[name]), name
    model.save(tmp_path / "model.zip")
    loaded = type(model).load(tmp_path / "model.zip", env=Noise(), device="cpu")
    assert_equal(loaded.policy.state_dict(), model.policy.state_dict())
    loaded.learn(20, reset_num_timesteps=False)


def test_the_tortoise_has_a_policy_by_name_and_leaves_a_stock_one() -> None:
    model = agent("dqn", "HareTortoiseMinAtarPolicy", plasticity_kwargs={"reset_every": 5}).learn(
        60
    )
    stock = model.policy.export_plain("hare")
    assert type(stock) is DQNMinAtarPolicy
    board = Noise().reset(seed=1)[0]
    with model.policy.acting_as("hare"):
        assert stock.predict(board, True)[0] == model.predict(board, deterministic=True)[0]
    assert "HareTortoiseMinAtarPolicy" in DQN.policy_aliases
    assert "HareTortoiseMinAtarPolicy" not in SAC.policy_aliases
