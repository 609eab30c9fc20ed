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
