"""A method that does nothing leaves training as it is, bit for bit, on all six algorithms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from .conftest import assert_equal

STEPS = {"Mlp": 200, "MultiInput": 60, "Cnn": 56}
RARELY = {"dqn": {"train_freq": 4}, "qrdqn": {"train_freq": 4}}
RARELY |= {"sac": {"train_freq": 6}, "td3": {"train_freq": 6}, "ppo": {"n_epochs": 1}}
WITHOUT_RESETS = {"decay": 0.9, "reset_every": None}
AVERAGED = {"plasticity_kwargs": WITHOUT_RESETS, "tortoise_target": False}
INERT: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("Plastic", {}),
    "averaging": ("HareTortoise", AVERAGED),
    "no-penalty": ("Plastic", {"plasticity": "l2-init", "plasticity_kwargs": {"strength": 0}}),
    "no-shrinking": (
        "Plastic",
        {"plasticity": "shrink-perturb", "plasticity_kwargs": {"amount": 0}},
    ),
}
RESETS = {"plasticity_kwargs": {"decay": 0.9, "reset_every": 2}, "tortoise_target": False}
ACTIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "resets": ("HareTortoise", RESETS),
    "penalty": ("Plastic", {"plasticity": "l2-init", "plasticity_kwargs": {"strength": 0.1}}),
}

Agent = Callable[..., dict[str, Tensor]]


@pytest.fixture(scope="module")
def agent(make: Any, facts: Any) -> Agent:
    """Return agent(algorithm, policy, policy_kwargs): a trained agent's facts and its actions."""
    kept: dict[tuple[str, str, str], dict[str, Tensor]] = {}

    def trained(
        algorithm: str, policy: str, policy_kwargs: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        key = (algorithm, policy, repr(policy_kwargs))
        if key not in kept:
            kind = policy.removeprefix("HareTortoise").removeprefix("Plastic")
            steps = STEPS[kind.removesuffix("Policy")]
            model = make(
                algorithm, policy, steps, policy_kwargs=policy_kwargs, **RARELY.get(algorithm, {})
            )
            found = facts(model)
            kept[key] = {k: v for k, v in found.items() if ".plasticity." not in k}
            kept[key] |= actions(model)
        return kept[key]

    return trained


def actions(model: Any) -> dict[str, Tensor]:
    """What the hare does on 64 observations, with and without chance."""
    space = model.observation_space
    space.seed(5)
    samples = [space.sample() for _ in range(64)]
    seen: Any = np.stack(samples) if not isinstance(samples[0], dict) else None
    if seen is None:
        seen = {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    torch.manual_seed(6)
    by_chance = model.policy.predict(seen, deterministic=False)[0]
    if hasattr(model.policy, "acting_as"):
        with model.policy.acting_as("hare"):
            best = model.policy.predict(seen, deterministic=True)[0]
    else:
        best = model.policy.predict(seen, deterministic=True)[0]
    return {"by chance": torch.as_tensor(by_chance), "best": torch.as_tensor(best)}


def weights(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in found.items() if k.startswith(".policy.") and "target" not in k}


def assert_all_differ(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert not torch.equal(tensor, right[name]), name


@pytest.mark.parametrize("name", INERT)
def test_an_inert_method_trains_as_the_stock_policy(
    algorithm: str, name: str, agent: Agent
) -> None:
    prefix, policy_kwargs = INERT[name]
    stock = agent(algorithm, "MlpPolicy")
    assert_equal(agent(algorithm, f"{prefix}MlpPolicy", policy_kwargs), stock)
    assert any("random" in fact for fact in stock)
    assert any("experience" in fact for fact in stock)
    assert any("optimizers.0.state" in fact for fact in stock)


@pytest.mark.parametrize("name", ACTIVE)
def test_a_method_that_does_something_changes_every_weight(
    algorithm: str, name: str, agent: Agent
) -> None:
    prefix, policy_kwargs = ACTIVE[name]
    stock, other = (
        agent(algorithm, "MlpPolicy"),
        agent(algorithm, f"{prefix}MlpPolicy", policy_kwargs),
    )
    assert_all_differ(weights(other), weights(stock))


@pytest.mark.parametrize("algorithm", ["dqn", "qrdqn", "sac", "td3"])
def test_a_tortoise_that_is_the_target_changes_every_weight(algorithm: str, agent: Agent) -> None:
    kwargs = {"plasticity_kwargs": WITHOUT_RESETS}
    other = agent(algorithm, "HareTortoiseMlpPolicy", kwargs)
    assert_all_differ(weights(other), weights(agent(algorithm, "MlpPolicy")))


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_without_targets_averaging_changes_nothing_at_all(algorithm: str, agent: Agent) -> None:
    averaged = agent(algorithm, "HareTortoiseMlpPolicy", {"plasticity_kwargs": WITHOUT_RESETS})
    assert_equal(averaged, agent(algorithm, "MlpPolicy"))


@pytest.mark.parametrize("kind", ["MultiInput", "Cnn"])
def test_images_and_dicts_are_served_alike(algorithm: str, kind: str, agent: Agent) -> None:
    stock = agent(algorithm, f"{kind}Policy")
    for name in ("none", "averaging") if algorithm in ("ppo", "dqn") else ("averaging",):
        prefix, policy_kwargs = INERT[name]
        assert_equal(agent(algorithm, f"{prefix}{kind}Policy", policy_kwargs), stock)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
@pytest.mark.parametrize("kind", ["MultiInput", "Cnn"])
def test_images_and_dicts_feel_a_method_that_does_something(
    algorithm: str, kind: str, agent: Agent
) -> None:
    stock, other = (
        agent(algorithm, f"{kind}Policy"),
        agent(algorithm, f"HareTortoise{kind}Policy", RESETS),
    )
    assert_all_differ(weights(other), weights(stock))


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_shared_features_are_left_alone_without_a_method(algorithm: str, agent: Agent) -> None:
    shared = {"share_features_extractor": True}
    shared["features_extractor_kwargs"] = {"features_dim": 8}
    stock = agent(algorithm, "CnnPolicy", dict(shared))
    assert_equal(agent(algorithm, "PlasticCnnPolicy", dict(shared)), stock)


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "sac"])
def test_exploration_by_the_state_is_served_alike(algorithm: str, make: Any, facts: Any) -> None:
    stock, mine = (
        facts(make(algorithm, policy, 40, "Pendulum-v1", policy_kwargs=kwargs, use_sde=True))
        for policy, kwargs in (("MlpPolicy", None), ("HareTortoiseMlpPolicy", dict(AVERAGED)))
    )
    assert_equal({k: v for k, v in mine.items() if ".plasticity." not in k}, stock)
