"""Resets that were held back during updates, and the watch for steps that no hook saw."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from .conftest import HARE_TORTOISE

RESETTING = {"plasticity_kwargs": {"decay": 0.9, "reset_every": 3}}
"""As many steps as a round of the small PPO has."""


class Evaluates(BaseCallback):
    """Evaluates before the first update after a reset, as callbacks do."""

    def _on_step(self) -> bool:
        with self.model.policy.acting_as("tortoise"):
            return True


def unseen(caught: Any) -> list[str]:
    return [str(w.message) for w in caught if "no step of the optimizer" in str(w.message)]


@pytest.mark.parametrize("method", ["", "redo+hare-tortoise"])
def test_a_reset_that_was_held_back_is_no_unseen_step(method: str, make: Any, recwarn: Any) -> None:
    kwargs: dict[str, Any] = RESETTING
    if method:
        values = {"redo__every": 3, "hare_tortoise__decay": 0.9, "hare_tortoise__reset_every": 3}
        kwargs = {"plasticity": method, "plasticity_kwargs": values}
    model = make("ppo", "PlasticMlpPolicy" if method else HARE_TORTOISE, policy_kwargs=kwargs)
    for _ in range(4):  # evaluated after the updates and again before the next ones, as phases are
        model.learn(16, callback=Evaluates(), reset_num_timesteps=False)
        with model.policy.acting_as("tortoise"):
            pass
    assert not unseen(recwarn)
    assert all(part._watch._hooks.fired == 12 for part in model.policy.methods.values())


def test_weights_written_before_a_held_reset_are_told(make: Any, recwarn: Any) -> None:
    model = make("ppo", HARE_TORTOISE, policy_kwargs=RESETTING)
    model.learn(16, callback=Evaluates())
    with model.policy.acting_as("tortoise"):
        pass
    with torch.no_grad():
        model.policy.action_net.weight.add_(1)
    assert not unseen(recwarn)
    model.learn(16, reset_num_timesteps=False)
    assert len(unseen(recwarn)) == 1


# ---- weights that another optimizer moved before the updates ----

TOGETHER = {
    "plasticity": "redo+hare-tortoise",
    "plasticity_kwargs": {"redo__every": 3, "hare_tortoise__decay": 0.9},
}


def clone_behaviour(model: Any) -> torch.optim.Optimizer:
    """Take a step with an optimizer of one's own."""
    module = model.policy.parts[0].module
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kwargs", [RESETTING, TOGETHER, {**RESETTING, "fast": True}])
@pytest.mark.parametrize("name", ["dqn", "sac", "ppo"])
def test_a_cloned_behaviour_is_told_as_updates_begin(
    name: str, kwargs: dict[str, Any], make: Any, recwarn: Any
) -> None:
    policy = "PlasticMlpPolicy" if "plasticity" in kwargs else HARE_TORTOISE
    model = make(name, policy, policy_kwargs=kwargs)
    clone_behaviour(model)
    model.learn(40)
    told = unseen(recwarn)
    parts = {part.split(":")[0] for part in told}
    assert parts == ({"ReDo", "HareTortoise"} if kwargs is TOGETHER else {"HareTortoise"})
    assert len(told) == len(parts)  # of two networks the one that moved, and once
    assert all("call resync() after" in sentence for sentence in told)


@pytest.mark.parametrize("name", ["dqn", "td3"])
def test_a_cloned_behaviour_after_resync_is_not_told(name: str, make: Any, recwarn: Any) -> None:
    model = make(name, HARE_TORTOISE, policy_kwargs=RESETTING)
    clone_behaviour(model)
    for method in model.policy.methods.values():
        method.resync()
    model.learn(40)
    with model.policy.acting_as("tortoise"):
        pass
    model.learn(10, reset_num_timesteps=False)
    assert not unseen(recwarn)
    with model.policy.acting_as("tortoise"):
        pass
    clone_behaviour(model)
    model.learn(10, reset_num_timesteps=False)
    assert len(unseen(recwarn)) == 1


def test_an_optimizer_that_was_put_in_after_cloning_is_told(make: Any, recwarn: Any) -> None:
    model = make("dqn", HARE_TORTOISE, policy_kwargs=RESETTING)
    model.policy.optimizer = clone_behaviour(model)
    model.learn(40)
    assert len(unseen(recwarn)) == 1


def test_networks_that_move_at_different_times_are_not_told(make: Any, recwarn: Any) -> None:
    make("td3", HARE_TORTOISE, 40, policy_kwargs=RESETTING, policy_delay=6)
    assert not unseen(recwarn)
