"""A task's settings of its agent: what is read, and what is refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.streams.reinforcement import parse_reinforcement
from ht_bench.training.reinforcement import ReinforcementRun

from .test_reinforcement import spec, table


def build(algorithm: str = "ppo", settings: Any = None, network: Any = None) -> ReinforcementRun:
    asked = table(algorithm)
    asked["agent"]["settings"] = {**asked["agent"]["settings"], **(settings or {})}
    asked["agent"]["network"] = {"net_arch": [16]} if network is None else network
    return ReinforcementRun(parse_reinforcement(asked, "tiny"), spec("hare-tortoise"), 0)


def widths(run: ReinforcementRun) -> list[int]:
    return [len(p) for name, p in run.policy.named_parameters() if "policy_net" in name][::2]


def test_the_policys_arguments_may_stand_among_the_settings() -> None:
    given = {"net_arch": {"pi": [3], "vf": [2]}, "activation_fn": "relu"}
    run = build(settings={"policy_kwargs": given}, network={})
    assert widths(run) == [3] and type(run.policy.mlp_extractor.policy_net[1]).__name__ == "ReLU"
    assert run.policy.has_tortoise  # the method's own arguments are kept
    both = build(settings={"policy_kwargs": {"activation_fn": "elu", "net_arch": [16]}})
    assert widths(both) == [16]


def test_fast_is_part_of_what_fixes_a_number_only_where_it_is_set() -> None:
    asked = table("dqn")
    plain = parse_reinforcement(asked, "tiny")
    hashes = []
    for fast in (False, True):
        asked["agent"] = {**asked["agent"], "fast": fast}
        hashes.append(parse_reinforcement(asked, "tiny").sha256)
    assert hashes[0] == plain.sha256 != hashes[1]
    run = ReinforcementRun(parse_reinforcement(asked, "tiny"), spec("none"), 0)
    assert run.policy.optimizer.param_groups[0]["fused"]
    before = ReinforcementRun(plain, spec("none"), 0)
    assert not before.policy.optimizer.param_groups[0]["fused"]
    asked["agent"]["fast"] = "yes"
    with pytest.raises(UsageError, match="fast"):
        parse_reinforcement(asked, "tiny")


@pytest.mark.parametrize(
    ("algorithm", "settings", "sentence"),
    [
        ("dqn", {"learning_rat": 1e-3}, r"DQN refuses its settings .*learning_rat"),
        ("ppo", {"n_steps": 50, "batch_size": 25}, "160 steps are no multiple of the 50"),
        ("ppo", {"n_steps": 0}, "'n_steps' is 0; it must be a whole number of 1 or more"),
        ("ppo", {"n_steps": 40.0}, "'n_steps' is 40.0; it must be a whole number"),
        ("ppo", {"n_steps": "40"}, "'n_steps' is '40'; it must be a whole number"),
        ("dqn", {"train_freq": -4}, "'train_freq' is -4; it must be a whole number"),
        ("dqn", {"train_freq": [1, "episode"]}, "'train_freq' is .*; write the number of steps"),
        ("dqn", {"batch_size": True}, "'batch_size' is True; it must be a whole number"),
        ("dqn", {"buffer_size": 10**12}, "'buffer_size' is 10+; at most 100,000,000 is read"),
        ("dqn", {"gamma": "0.9"}, "gamma = '0.9'; it must be of type float"),
        ("dqn", {"learning_starts": 1.5}, "learning_starts = 1.5; it must be of type int"),
        ("ppo", {"normalize_advantage": 1}, "normalize_advantage = 1; it must be of type bool"),
        ("ppo", {"gamma": float("nan")}, "settings.gamma' is nan; .* finite"),
        ("ppo", {"learning_rate": {"linear": [1e-3]}}, r"write { linear = \[start, end\] }"),
        ("ppo", {"clip_range": {"linear": [1, "x"]}}, r"clip_range = .*write { linear"),
        ("td3", {"action_noise": 0.1}, "'action_noise' is 0.1; write { size"),
        ("td3", {"action_noise": {"normal": 0.1}}, "write { size"),
        ("td3", {"action_noise": {"normal": 0.1, "size": 0}}, "'size': 0}; write { size"),
        ("td3", {"action_noise": {"normal": -1, "size": 1}}, "write { size"),
        ("td3", {"action_noise": {"normal": float("inf"), "size": 1}}, "normal' is inf; "),
        ("dqn", {"replay_buffer_class": "random-shif"}, "Did you mean 'random-shift'"),
        ("dqn", {"replay_buffer_class": ["random-shift"]}, "there is no replay buffer"),
        ("ppo", {"rollout_buffer_class": "mine"}, "would be a Python class"),
        ("ppo", {"seed": 3}, "'seed' is given by the command's --seeds"),
        ("ppo", {"env": "CartPole-v1"}, r"'env' is given by \[environment\]"),
        ("ppo", {"policy_kwargs": [3]}, r"policy_kwargs = \[3\]; give the policy's arguments by"),
        ("ppo", {"policy_kwargs": {"net_arch": [3]}}, "'net_arch' is in network and in settings"),
        ("ppo", {"policy_kwargs": {"plasticity": "l2"}}, "'plasticity' belongs to the method"),
        ("dqn", {"policy_kwargs": {"fast": True}}, r"'fast' stands in \[agent\] itself"),
        ("ppo", {"policy_kwargs": {"optimizer_class": "Adam"}}, "would be a Python class"),
        ("ppo", {"policy_kwargs": {"activation_fn": "rel"}}, "there is no activation 'rel'"),
        ("ppo", {"policy_kwargs": {"net_arch": [10**9]}}, "'policy_kwargs': 'net_arch' is"),
        ("ppo", {"policy_kwargs": {"features_dim": 10**9}}, "'features_dim' is 10+; at most"),
        ("ppo", {"policy_kwargs": {"net_arc": [3]}}, r"PPO refuses its settings .*net_arc"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    algorithm: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(algorithm, settings)


def test_a_buffer_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 5 TiB")

    monkeypatch.setattr("stable_baselines3.common.buffers.ReplayBuffer.__init__", full)
    with pytest.raises(UsageError, match=r"DQN refuses its settings \(.*Unable to allocate"):
        build("dqn")


@pytest.mark.parametrize(
    ("width", "said"),
    [
        ([-1], "a layer has 1 unit or more"),
        (["a"], "PPO refuses its settings"),
        ([1.5], "PPO refuses its settings"),
        ("x", "PPO refuses its settings"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(width: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build(network={"net_arch": width})
