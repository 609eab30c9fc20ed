"""The hare acts, the tortoise is judged, and either may be asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ht_bench.errors import UsageError

from .conftest import HARE_TORTOISE, NEVER, apart, clone, equal, hare, observations, tortoise


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
