"""A fast agent is saved, loaded, copied and restarted; what cannot be fast is said or refused."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from ht_bench.errors import UsageError
from ht_bench.sb3.boundary import restart, warm_up
from ht_bench.sb3.device_replay import DeviceStorage
from ht_bench.sb3.fast_dqn import FastDQN

from .conftest import assert_equal
from .test_fast import CASES, agent, assert_close, weights

# ---- saved, copied, restarted ----


@pytest.mark.parametrize("case", ["a tortoise that resets", "shifts and n steps"])
def test_saved_and_loaded_it_goes_on_as_the_original(case: str, tmp_path: Path) -> None:
    policy, settings = CASES[case]
    model = agent(policy, True, 50, **copy.copy(settings))
    model.save(tmp_path / "model.zip")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    loaded = DQN.load(tmp_path / "model.zip", env=model.get_env(), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer.pkl")
    assert isinstance(loaded, FastDQN) and isinstance(loaded.replay_buffer, DeviceStorage)
    assert "_graph" not in vars(loaded)
    for each in (model, loaded):
        np.random.seed(7)
        if hasattr(each.replay_buffer, "_shifts"):
            each.replay_buffer._shifts.manual_seed(1)
        each.set_logger(model.logger)
        each.train(3, 8)
    assert_close(weights(loaded), weights(model), 0.0)


def test_a_stock_buffer_that_is_loaded_is_taken_over(tmp_path: Path) -> None:
    stock, fast = (agent("PlasticCnnPolicy", on, 50) for on in (False, True))
    stock.save_replay_buffer(tmp_path / "buffer.pkl")
    fast.load_replay_buffer(tmp_path / "buffer.pkl")
    for model in (stock, fast):
        np.random.seed(7)
        model.train(3, 8)
    assert isinstance(fast.replay_buffer, DeviceStorage)
    assert_close(weights(fast), weights(stock))


def test_copies_and_pickles_train_alike() -> None:
    model = agent("HareTortoiseMlpPolicy", True, 40)
    again = [copy.deepcopy(model), pickle.loads(pickle.dumps(model.replay_buffer))]
    assert isinstance(again[0], FastDQN)
    for each in (model, again[0]):
        np.random.seed(7)
        each.train(3, 8)
    assert_equal(weights(again[0]), weights(model))
    assert np.array_equal(again[1].observations, model.replay_buffer.observations)
    assert again[1].sample(4).rewards.shape == (4, 1)


def test_a_boundary_empties_and_a_warm_up_waits() -> None:
    model = agent("PlasticCnnPolicy", True, 50)
    buffer, updates = model.replay_buffer, model._n_updates
    warm_up(model)
    model.learn(10, reset_num_timesteps=False)
    assert model._n_updates == updates
    model.learn(20, reset_num_timesteps=False)
    assert model._n_updates > updates and isinstance(model, FastDQN)
    restart(model, 1)
    assert model.replay_buffer is buffer and buffer.size() == 0
    assert isinstance(buffer, DeviceStorage)
    model.learn(30)


# ---- refused, or said ----


def said_at(make: Any, *args: Any, **kwargs: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = make(*args, **kwargs)
    return model, [str(w.message) for w in caught if "fast=True" in str(w.message)]


def test_dicts_and_hindsight_keep_their_buffers_and_say_so_once(make: Any) -> None:
    kwargs = {"fast": True}
    model, said = said_at(make, "dqn", "PlasticMultiInputPolicy", 60, policy_kwargs=kwargs)
    assert said == [
        "fast=True: DQN keeps stable-baselines3's own replay buffer and updates; the rest is fast."
    ]
    assert not isinstance(model, FastDQN) and not isinstance(model.replay_buffer, DeviceStorage)
    assert model.policy.optimizer.param_groups[0]["fused"]
    assert not issubclass(HerReplayBuffer, DeviceStorage)


def test_normalised_environments_train_with_the_algorithms_own_updates() -> None:
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]))
    model, said = said_at(agent, "PlasticMlpPolicy", True, 40, env=env)
    assert len(said) == 1 and model._n_updates > 0
    assert not isinstance(model, FastDQN)


def test_an_algorithm_with_updates_of_its_own_keeps_them() -> None:
    class Own(DQN):
        def train(self, gradient_steps: int, batch_size: int = 100) -> None:
            self.called = True

    kwargs = {"fast": True}
    model, said = said_at(Own, "PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs)
    model.learn(120)
    assert model.called and len(said) == 1 and not isinstance(model, FastDQN)


@pytest.mark.parametrize("switch", ["fast", "tortoise_target"])
@pytest.mark.parametrize("value", ["yes", 1, None])
def test_another_value_than_true_or_false_is_refused(switch: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{switch} = {value!r}: write True or False"):
        DQN("PlasticMlpPolicy", "CartPole-v1", policy_kwargs={switch: value})


def test_fresh_weights_seed_no_generator_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    model = agent("PlasticMlpPolicy", False)
    initial = torch.initial_seed()
    monkeypatch.setattr(torch, "manual_seed", lambda _: pytest.fail("seeds every CUDA generator"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("seeds CUDA"))
    state = torch.get_rng_state()
    first, second = (model.policy.methods["q_net"].fresh() for _ in range(2))
    model.policy.export_plain("hare")
    assert torch.equal(torch.get_rng_state(), state) and torch.initial_seed() == initial
    assert not torch.equal(first["q_net.0.weight"], second["q_net.0.weight"])
