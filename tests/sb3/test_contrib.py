"""The algorithms beside the six: an inert method changes nothing, Hare & Tortoise does its work."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from ht_bench.errors import UsageError
from ht_bench.sb3 import DiagnosticsCallback, EvaluationCallback, find_algorithm
from ht_bench.sb3.diagnostics import see_policy

from .conftest import REPLAY, assert_equal, equal, hare, tortoise
from .test_callbacks import Kept
from .test_resets import Masked

pytest.importorskip("sb3_contrib")

ROLLOUT = {"n_steps": 16, "batch_size": 16}
OTHERS: dict[str, dict[str, Any]] = {
    "ddpg": REPLAY,
    "tqc": REPLAY,
    "crossq": REPLAY,
    "trpo": ROLLOUT,
    "maskableppo": ROLLOUT,
    "recurrentppo": ROLLOUT,
}
AVERAGED = {"plasticity_kwargs": {"decay": 0.9, "reset_every": None}, "tortoise_target": False}


def build(name: str, prefix: str, steps: int, **policy_kwargs: Any) -> Any:
    lstm = "Lstm" if name == "recurrentppo" else ""
    env: Any = "Pendulum-v1" if OTHERS[name] is REPLAY else "CartPole-v1"
    if name == "maskableppo":
        env = Masked(gymnasium.make("CartPole-v1"))
    algorithm: Any = find_algorithm(name)
    policy_kwargs["net_arch"] = [8]
    if lstm:
        policy_kwargs["lstm_hidden_size"] = 8
    model = algorithm(
        f"{prefix}Mlp{lstm}Policy", env, seed=3, device="cpu", policy_kwargs=policy_kwargs,
        **OTHERS[name],
    )  # fmt: skip
    return model.learn(steps)


@pytest.mark.parametrize("name", OTHERS)
def test_an_inert_method_trains_as_the_stock_policy(name: str, facts: Any) -> None:
    stock = facts(build(name, "", 48))
    assert_equal(facts(build(name, "Plastic", 48)), stock)
    averaged = facts(build(name, "HareTortoise", 48, **AVERAGED))
    assert_equal({k: v for k, v in averaged.items() if ".plasticity." not in k}, stock)


@pytest.mark.parametrize("name", OTHERS)
def test_the_clock_runs_the_hare_resets_and_the_tortoise_acts(name: str, tmp_path: Any) -> None:
    """CrossQ's and TD3's actors step once in so many steps of the critic."""
    kwargs = {"plasticity_kwargs": {"decay": 0.9, "reset_every": 5}}
    model = build(name, "HareTortoise", 64, **kwargs)
    policy = model.policy
    for part in policy.parts:
        assert policy.methods[part.name].state_dict()["has_reset"], part.name
    with torch.no_grad():
        for parameter in policy.parts[0].module.parameters():
            parameter.add_(torch.randn_like(parameter))
    policy.observation_space.seed(1)
    seen = [policy.observation_space.sample() for _ in range(30)]

    def acts(of: Any) -> list[Any]:
        return [of.predict(one, deterministic=True)[0].tolist() for one in seen]

    found = acts(policy)
    with policy.acting_as("tortoise"):
        assert acts(policy) == found
    with policy.acting_as("hare"):
        assert acts(policy) != found
    assert acts(policy.export_plain()) == found
    model.save(tmp_path / "model.zip")
    loaded = type(model).load(tmp_path / "model.zip", device="cpu")
    assert acts(loaded.policy) == found
    assert_equal(dict(loaded.policy.state_dict()), dict(policy.state_dict()))


def test_a_recurrent_policys_layers_are_in_order() -> None:
    chains = build("recurrentppo", "Plastic", 0).policy.chains
    assert chains[0] == ["lstm_actor", "mlp_extractor.policy_net.0", "action_net"]
    assert chains[1] == ["lstm_critic", "mlp_extractor.value_net.0", "value_net"]


# ---- callbacks: masks and memories ----


class OneWay(gymnasium.Env[Any, Any]):
    """Four actions, of which the last alone is allowed and pays 1, each other -10; 5 steps."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        reward = 1.0 if action == 3 else -10.0
        return self.observation_space.sample(), reward, self.steps == 5, False, {}


class OneWayMasked(OneWay):
    """Tells its masks."""

    def action_masks(self) -> Any:
        return np.array([False, False, False, True])


@pytest.mark.parametrize("subclass", [False, True])
def test_masked_policies_are_evaluated_with_their_masks(subclass: bool) -> None:
    algorithm: Any = find_algorithm("maskableppo")
    if subclass:
        algorithm = type("Mine", (algorithm,), {})
    model = algorithm("HareTortoiseMlpPolicy", OneWayMasked(), seed=0, **ROLLOUT)
    callback = EvaluationCallback(OneWayMasked(), every=16, episodes=2)
    model.learn(32, callback=callback)
    assert len(callback.returns) == 6 and {value for *_, value in callback.returns} == {5.0}
    with pytest.raises(UsageError, match="no action_masks; wrap it as the one in training"):
        model.learn(16, callback=EvaluationCallback(OneWay(), every=16))
    unmasked = EvaluationCallback(OneWay(), every=16, episodes=2)
    model.learn(16, callback=unmasked, use_masking=False)
    assert len(unmasked.returns) == 3


@pytest.mark.parametrize("name", ["maskableppo", "recurrentppo"])
def test_diagnostics_read_what_the_policy_acts_by(name: str) -> None:
    model = build(name, "HareTortoise", 16)
    series = Kept(model).series
    model.learn(48, callback=DiagnosticsCallback(every=16, observations=16, probe_every=16))
    for key in ("weights/norm", *(f"plasticity/{k}" for k in ("srank", "output_churn"))):
        assert key in series and np.isfinite(series[key]).all()
    assert len(series["plasticity/probe_steps"]) == 3
    model.observation_space.seed(0)
    seen = np.stack([model.observation_space.sample() for _ in range(20)])
    with model.policy.acting_as("hare"):
        acts = [model.predict(one, deterministic=True)[0] for one in seen]
    assert see_policy(model.policy, seen).answers[0].tolist() == [int(act) for act in acts]


@pytest.mark.parametrize("critic", ["of its own", "shared", "none"])
def test_diagnostics_of_every_recurrent_critic(critic: str) -> None:
    chosen = {"enable_critic_lstm": critic == "of its own", "shared_lstm": critic == "shared"}
    model = build("recurrentppo", "HareTortoise", 16, **chosen)
    model.learn(32, callback=DiagnosticsCallback(every=16, observations=16))


# ---- optimizers made or replaced after the policy ----


@pytest.mark.parametrize("name", ["ppo", "sac", "dqn"])
def test_an_optimizer_that_is_replaced_is_followed_and_said(name: str, make: Any) -> None:
    kwargs = {"plasticity_kwargs": {"decay": 0.9, "reset_every": 7}}
    model = make(name, "HareTortoiseMlpPolicy", 40, policy_kwargs=kwargs)
    owner = model.actor if name == "sac" else model.policy
    part = model.policy.parts[0]
    slow, clock = tortoise(model.policy, part.name), model.policy.methods[part.name].state_dict()
    old = owner.optimizer
    owner.optimizer = torch.optim.SGD(part.module.parameters(), lr=1e-3)
    with pytest.warns(UserWarning, match=f"optimizer of '{part.name}' was replaced.*new one's"):
        model.learn(32, reset_num_timesteps=False)
    method = model.policy.methods[part.name]
    assert method.optimizer is owner.optimizer and not old._optimizer_step_post_hooks
    assert not equal(tortoise(model.policy, part.name), slow)
    assert method.state_dict()["steps"] != clock["steps"] or method.state_dict()["has_reset"]
    assert hare(model.policy, part.name)


# ---- the advice to use the CPU ----


@pytest.mark.parametrize("name", ["ppo", "a2c", "trpo"])
def test_on_policy_agents_without_images_are_advised_the_cpu(name: str) -> None:
    algorithm: Any = find_algorithm(name)
    for policy in ("MlpPolicy", "HareTortoiseMlpPolicy", "PlasticMlpPolicy"):
        with pytest.warns(UserWarning, match="You are trying to run .* on the GPU"):
            algorithm(policy, "CartPole-v1", n_steps=128, device="meta")
