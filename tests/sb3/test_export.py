"""A stock policy made of the hare's or the tortoise's weights, which needs nothing of ht-bench."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from torch import nn

from ht_bench.errors import UsageError
from ht_bench.sb3 import policies as plastic

from .conftest import HARE_TORTOISE, apart, assert_equal, observations, state, storages, tortoise_of

METHOD = {"plasticity_kwargs": {"decay": 0.75, "reset_every": 7}}

ALONE = """
import sys
sys.modules["ht_bench"] = None  # importing it fails
import pickle
from pathlib import Path
import torch

for path in Path(sys.argv[1]).glob("*.pt"):
    cls, seen, expected = pickle.loads(path.with_suffix(".pkl").read_bytes())
    actions, _ = cls.load(str(path), device="cpu").predict(seen, deterministic=True)
    assert (actions == expected).all(), path
    print(path.stem, cls.__module__)
"""


@pytest.mark.parametrize("which", ["hare", "tortoise"])
def test_an_exported_policy_is_a_stock_one_that_acts_alike(
    algorithm: str, which: str, make: Any
) -> None:
    model = make(algorithm, HARE_TORTOISE, 40, policy_kwargs=METHOD)
    apart(model.policy)
    chance, before = torch.get_rng_state(), state(model.policy)
    exported = model.policy.export_plain(which)
    assert torch.equal(torch.get_rng_state(), chance)
    assert_equal(state(model.policy), before)
    assert type(exported) is type(make(algorithm, "MlpPolicy").policy)
    mine = [*model.policy.parameters(), *tortoise_of(model.policy)]
    assert not storages(exported.parameters()) & storages(mine)
    seen, actions = observations(model), {}
    for word in ("hare", "tortoise"):
        with model.policy.acting_as(word):
            actions[word] = model.policy.predict(seen, deterministic=True)[0].tolist()
    assert exported.predict(seen, deterministic=True)[0].tolist() == actions[which]
    assert actions["hare"] != actions["tortoise"]
    for part in model.policy.parts:
        hare = state(part.module)
        expected = hare if which == "hare" else model.policy.methods[part.name].tortoise.tensors()
        for name in [part.name, part.target] if part.target else [part.name]:
            assert_equal(state(getattr(exported, name, exported)), expected)


def test_exported_policies_need_nothing_of_this_package(make: Any, tmp_path: Path) -> None:
    names = ["ppo", "a2c", "dqn", "sac", "td3"]
    for name in names:
        model = make(name, HARE_TORTOISE, 30, policy_kwargs=METHOD)
        exported, seen = model.policy.export_plain(), observations(model)
        exported.save(str(tmp_path / f"{name}.pt"))
        told = type(exported), seen, model.predict(seen, deterministic=True)[0]
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(told))
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == sorted(names)


def test_a_policy_made_with_arguments_in_order_is_exported_too() -> None:
    env = gymnasium.make("CartPole-v1")
    spaces = env.observation_space, env.action_space
    policy = plastic.DQNHareTortoiseMlpPolicy(*spaces, lambda _: 1e-3, [5], nn.Tanh)
    exported = policy.export_plain()
    assert (exported.net_arch, exported.activation_fn) == ([5], nn.Tanh)
    assert_equal(state(exported.q_net), state(policy.q_net))


def test_a_method_without_a_tortoise_exports_the_hare(make: Any) -> None:
    model = make("ppo", "PlasticMlpPolicy", 40)
    with pytest.raises(UsageError, match=r"'none' has no tortoise; use export_plain\('hare'\)"):
        model.policy.export_plain()
    assert_equal(state(model.policy.export_plain("hare")), state(model.policy))
