"""stable-baselines3's policies with Hare & Tortoise on a device."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import DQN, PPO

import ht_bench.sb3
from ht_bench.sb3 import plastic

PLASTICITY = {"decay": 0.9, "reset_every": 20}
DQN_SETTINGS: dict[str, Any] = {
    "learning_starts": 50,
    "train_freq": 1,
    "batch_size": 32,
    "buffer_size": 500,
    "target_update_interval": 20,
    "seed": 0,
}
PPO_SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 0}


def learned(kind: Any, policy: str, device: str, **kwargs: Any) -> Any:
    values = DQN_SETTINGS if kind is DQN else PPO_SETTINGS
    more = {"policy_kwargs": kwargs} if kwargs else {}
    return kind(policy, "CartPole-v1", device=device, **values, **more).learn(128)


def weights(model: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = model.policy.state_dict()
    return state


@pytest.mark.parametrize("kind", [DQN, PPO])
def test_an_inert_policy_is_the_stock_one_bit_for_bit(kind: Any, device: str) -> None:
    stock = weights(learned(kind, "MlpPolicy", device))
    inert = weights(learned(kind, "PlasticMlpPolicy", device))
    for name, tensor in stock.items():
        assert torch.equal(tensor, inert[name]), name


@pytest.mark.parametrize("kind", [DQN, PPO])
def test_hare_and_tortoise_train_on_the_device_and_are_loaded_again(
    kind: Any, device: str, tmp_path: Path
) -> None:
    model = learned(kind, "HareTortoiseMlpPolicy", device, plasticity_kwargs=PLASTICITY)
    for method in model.policy.methods.values():
        places = {tensor.device.type for tensor in method.tortoise.named().values()}
        assert places == {device}
    model.save(tmp_path / "agent.zip")
    again = kind.load(tmp_path / "agent.zip", device=device)
    seen = model.observation_space.sample()
    assert model.predict(seen, deterministic=True)[0] == again.predict(seen, deterministic=True)[0]


def test_a_full_reset_leaves_the_devices_random_numbers_alone(device: str) -> None:
    """Exploration goes on as it does without the reset."""
    model = learned(PPO, "PlasticMlpPolicy", device, plasticity="full-reset")
    state = torch.cuda.get_rng_state if device == "cuda" else torch.get_rng_state
    before = state()
    for method in model.policy.methods.values():
        method.fresh()
    assert torch.equal(state(), before)


def has_fast() -> bool:
    """Whether policies offer `fast` in this version."""
    return "fast" in inspect.getsource(plastic) and hasattr(ht_bench.sb3, "__all__")


@pytest.mark.parametrize("policy", ["PlasticMlpPolicy", "HareTortoiseMlpPolicy"])
def test_fast_steps_are_alike(policy: str, device: str) -> None:
    """Fused and captured: the same arithmetic, rounded otherwise; so few steps keep them close."""
    if not has_fast():
        pytest.skip("policies offer no fast=True in this version")
    own = {"plasticity_kwargs": PLASTICITY} if policy.startswith("Hare") else {}
    quick = learned(DQN, policy, device, fast=True, **own)
    stock = learned(DQN, policy, device, **own)
    assert quick.num_timesteps == stock.num_timesteps
    assert quick._n_updates == stock._n_updates
    for name, tensor in quick.policy.named_parameters():
        assert torch.isfinite(tensor).all(), name
