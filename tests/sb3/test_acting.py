"""The hare acts, the tortoise is judged, and either may be asked for."""

from __future__ import annotations

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from ht_bench.errors import UsageError

from .conftest import (
    HARE_TORTOISE,
    NEVER,
    apart,
    assert_equal,
    clone,
    equal,
    hare,
    observations,
    tortoise,
)


def stock_of(make: Any, algorithm: str, policy: Any, which: str) -> Any:
    """A stock policy with the hare's or the tortoise's weights."""
    stock, get = make(algorithm, "MlpPolicy").policy, {"hare": hare, "tortoise": tortoise}[which]
    for part in policy.parts:
        getattr(stock, part.name, stock).load_state_dict(get(policy, part.name))
    return stock


def test_the_hare_acts_and_the_tortoise_is_judged(algorithm: str, make: Any) -> None:
    model = make(algorithm, HARE_TORTOISE, policy_kwargs=NEVER)
    policy, seen = apart(model.policy), observations(model)
    stocks = {which: stock_of(make, algorithm, policy, which) for which in ("hare", "tortoise")}

    def actions(of: Any, deterministic: bool) -> list[Any]:
        torch.manual_seed(7)
        return of.predict(seen, deterministic=deterministic)[0].tolist()

    acted = {(w, d): actions(stocks[w], d) for w in stocks for d in (False, True)}
    assert acted["hare", True] != acted["tortoise", True]
    assert acted["hare", False] != acted["tortoise", False]
    assert actions(policy, False) == acted["hare", False]
    assert actions(policy, True) == acted["tortoise", True]
    for which in stocks:
        with policy.acting_as(which):
            assert actions(policy, False) == acted[which, False]
            assert actions(policy, True) == acted[which, True]
    forwards = []
    for one in (policy, stocks["hare"]):
        torch.manual_seed(7)
        forwards.append(one(torch.as_tensor(seen), deterministic=False))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*forwards, strict=True))


def test_acting_leaves_weights_modes_and_chance_as_they_were(algorithm: str, make: Any) -> None:
    policy = apart(make(algorithm, HARE_TORTOISE, 40, policy_kwargs=NEVER).policy)
    seen, names = observations(policy), [part.name for part in policy.parts]
    policy.set_training_mode(True)
    chance, everything = torch.get_rng_state(), clone(policy.named_parameters())
    fast, slow = ({name: get(policy, name) for name in names} for get in (hare, tortoise))
    for which, expected in (("hare", fast), ("tortoise", slow)):
        with policy.acting_as(which):
            assert all(equal(hare(policy, name), expected[name]) for name in names)
    assert all(part.module.training for part in policy.parts)
    with pytest.raises(KeyError), policy.acting_as("tortoise"):
        raise KeyError
    with policy.acting_as("tortoise"):  # the failure left it free
        policy.predict(seen, deterministic=True)
    policy.predict(seen, deterministic=True)
    assert equal(clone(policy.named_parameters()), everything)
    assert all(equal(tortoise(policy, name), slow[name]) for name in names)
    assert torch.equal(torch.get_rng_state(), chance)


def test_acting_twice_or_as_something_else_is_refused(make: Any) -> None:
    policy = make("dqn", HARE_TORTOISE).policy
    for word in ("both", "", None):
        with pytest.raises(UsageError, match="choose 'hare' or 'tortoise'"), policy.acting_as(word):
            pass
    with policy.acting_as("hare"):
        for word in ("hare", "tortoise"):
            sentence = "acts as the hare already; leave that first"
            with pytest.raises(UsageError, match=sentence), policy.acting_as(word):
                pass
    with policy.acting_as("tortoise"), pytest.raises(UsageError, match="as the tortoise already"):
        policy.export_plain()


# ---- wherever deterministic=True is said ----


def test_every_network_that_is_told_so_acts_as_the_tortoise(algorithm: str, make: Any) -> None:
    model = make(algorithm, HARE_TORTOISE, policy_kwargs=NEVER)
    policy, seen = apart(model.policy), torch.as_tensor(observations(model))
    stocks = {which: stock_of(make, algorithm, policy, which) for which in ("hare", "tortoise")}
    name = policy.parts[0].name

    def said(of: Any, deterministic: bool) -> list[Any]:
        torch.manual_seed(7)
        acts = getattr(of, name, of)
        flag = {"deterministic": deterministic}
        found = [of(seen, **flag), acts._predict(seen, **flag)]
        found.append(torch.as_tensor(acts.predict(seen.numpy(), **flag)[0]))
        if name == "actor" and algorithm == "sac":
            found += [acts(seen, deterministic), acts(seen, **flag)]
        return [t for one in found for t in (one if isinstance(one, tuple) else (one,))]

    for deterministic, which in ((True, "tortoise"), (False, "hare")):
        mine, theirs = said(policy, deterministic), said(stocks[which], deterministic)
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not torch.equal(said(policy, True)[0], said(stocks["hare"], True)[0])


def test_training_reads_the_hare(make: Any) -> None:
    model = make("td3", HARE_TORTOISE, policy_kwargs=NEVER)
    policy, seen = apart(model.policy), torch.as_tensor(observations(model))
    assert torch.equal(policy.actor(seen), stock_of(make, "td3", policy, "hare").actor(seen))
    policy.actor(seen).sum().backward()
    assert all(parameter.grad is not None for parameter in policy.actor.parameters())


@pytest.mark.parametrize("algorithm", ["dqn", "qrdqn", "sac", "td3"])
def test_a_saved_network_is_what_is_evaluated(algorithm: str, make: Any, tmp_path: Any) -> None:
    policy = apart(make(algorithm, HARE_TORTOISE, policy_kwargs=NEVER).policy)
    network, seen = policy.parts[0].module, observations(policy)
    before = clone(network.named_parameters())
    network.save(tmp_path / "network.pt")
    assert equal(clone(network.named_parameters()), before)
    loaded = type(network).load(tmp_path / "network.pt", device="cpu")
    assert equal(clone(loaded.named_parameters()), tortoise(policy, policy.parts[0].name))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    for deterministic in (True, False):
        torch.manual_seed(1)
        found = loaded.predict(seen, deterministic=deterministic)[0]
        with policy.acting_as("tortoise"):
            torch.manual_seed(1)
            assert (network.predict(seen, deterministic=deterministic)[0] == found).all()


@pytest.mark.parametrize("algorithm", ["dqn", "sac"])
def test_a_copy_of_a_network_alone_is_the_hares(algorithm: str, make: Any) -> None:
    policy = apart(make(algorithm, HARE_TORTOISE, policy_kwargs=NEVER).policy)
    network, name = policy.parts[0].module, policy.parts[0].name
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert equal(clone(copied.named_parameters()), hare(policy, name))
        copied.load_state_dict(tortoise(policy, name))  # the policy hears nothing of it
        assert equal(clone(network.named_parameters()), hare(policy, name))


# ---- lasting settings ----


@pytest.mark.parametrize("which", ["hare", "tortoise"])
def test_evaluation_is_the_settings_deterministic_or_not(
    algorithm: str, which: str, make: Any, tmp_path: Any
) -> None:
    model = make(algorithm, HARE_TORTOISE, policy_kwargs={**NEVER, "evaluate_as": which})
    apart(model.policy)
    model.save(tmp_path / "model.zip")
    loaded = type(model).load(tmp_path / "model.zip", device="cpu")
    seen, stock = observations(model), stock_of(make, algorithm, model.policy, which)
    for deterministic in (True, False):
        found = []
        for of in (model.policy, loaded.policy, stock):
            torch.manual_seed(7)
            found.append(of.predict(seen, deterministic=deterministic)[0].tolist())
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("algorithm", ["dqn", "sac", "ppo"])
def test_evaluation_as_the_tortoise_leaves_training_alone(
    algorithm: str, make: Any, facts: Any
) -> None:
    kwargs = {"plasticity_kwargs": {"decay": 0.9, "reset_every": 7}}
    plain, judged = (
        facts(make(algorithm, HARE_TORTOISE, 60, policy_kwargs={**kwargs, **more}))
        for more in ({}, {"evaluate_as": "tortoise"})
    )
    assert_equal(plain, judged)


@pytest.mark.parametrize("algorithm", ["dqn", "qrdqn", "sac", "td3"])
def test_experience_is_gathered_as_the_setting_says(algorithm: str, make: Any) -> None:
    kwargs = {**NEVER, "act_as": "tortoise"}
    model = make(algorithm, HARE_TORTOISE, policy_kwargs=kwargs, learning_starts=0)
    apart(model.policy)
    model.exploration_rate = 0.0
    stock = stock_of(make, algorithm, model.policy, "tortoise")
    model._last_obs = observations(model, 1)
    torch.manual_seed(7)
    gathered, _ = model._sample_action(0, n_envs=1)
    torch.manual_seed(7)
    assert gathered.tolist() == stock.predict(model._last_obs)[0].tolist()


def test_settings_that_cannot_be_served_are_refused(make: Any) -> None:
    for name in ("evaluate_as", "act_as"):
        with pytest.raises(UsageError, match=f"{name}\\('both'\\): choose 'hare' or 'tortoise'"):
            make("dqn", HARE_TORTOISE, policy_kwargs={name: "both"})
    for algorithm in ("ppo", "a2c"):
        with pytest.raises(UsageError, match="act_as='tortoise': on-policy agents learn from"):
            make(algorithm, HARE_TORTOISE, policy_kwargs={"act_as": "tortoise"})


# ---- several threads ----


@pytest.mark.parametrize("evaluate_as", [None, "tortoise"])
@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_threads_get_the_answers_of_one(name: str, evaluate_as: Any, make: Any) -> None:
    kwargs = {**NEVER, "evaluate_as": evaluate_as}
    model = make(name, HARE_TORTOISE, policy_kwargs=kwargs)
    policy, seen = apart(model.policy), observations(model, 16)
    before = [*map(id, policy.parameters())]
    # The hare answers in between; SAC's hare draws its actions, which cannot be compared.
    flags = [True, name == "sac", True] * 100

    def answer(deterministic: bool) -> list[Any]:
        with torch.no_grad():
            if deterministic:
                return policy.predict(seen, deterministic=True)[0].tolist()  # type: ignore[no-any-return]
            return policy._predict(torch.as_tensor(seen), deterministic=False).tolist()  # type: ignore[no-any-return]

    alone = {flag: answer(flag) for flag in (True, False)}
    switched = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(answer, flags))
    finally:
        sys.setswitchinterval(switched)
    assert all(mine == alone[flag] for mine, flag in zip(found, flags, strict=True))
    assert [*map(id, policy.parameters())] == before
