"""Saved, loaded, pickled and copied: weights, tortoise and clock come back, and hooks live."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import SubprocVecEnv
from torch import Tensor

from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.sb3 import find_algorithm

from .conftest import HARE_TORTOISE, OFF_POLICY, storages, tortoise_of

DECAY, EVERY = 0.75, 7
METHOD = {"plasticity_kwargs": {"decay": DECAY, "reset_every": EVERY}}


def assert_same(left: Any, right: Any, name: str = "") -> None:
    if isinstance(left, Tensor):
        assert torch.equal(left, right), name
        return
    assert type(left) is type(right), name
    if isinstance(left, dict):
        assert left.keys() == right.keys(), name
        for key in left:
            assert_same(left[key], right[key], f"{name}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), name
        for index, (mine, theirs) in enumerate(zip(left, right, strict=True)):
            assert_same(mine, theirs, f"{name}.{index}")
    else:
        assert left == right, name


def hare_of(policy: Any) -> list[Tensor]:
    return [t for part in policy.parts for t in (*part.module.parameters(), *part.module.buffers())]


def saved_model(model: Any, folder: Path, **given: Any) -> Any:
    model.save(folder / "model.zip")
    return type(model).load(folder / "model.zip", device="cpu", **given)


def saved_policy(policy: Any, folder: Path) -> Any:
    policy.save(str(folder / "policy.pt"))
    return type(policy).load(str(folder / "policy.pt"), device="cpu")


COPIES: dict[str, Callable[[Any, Path], Any]] = {
    "save": saved_policy,
    "pickle": lambda policy, _: pickle.loads(pickle.dumps(policy)),
    "cloudpickle": lambda policy, _: cloudpickle.loads(cloudpickle.dumps(policy)),
    "deepcopy": lambda policy, _: copy.deepcopy(policy),
}


def trained_policy(make: Any, algorithm: str) -> Any:
    """A policy that has acted since its last update: SB3's own are not deep-copied before."""
    model = make(algorithm, HARE_TORTOISE, 36, policy_kwargs=METHOD)
    model.predict(model.observation_space.sample())
    return model.policy


def assert_steps_by_hand(policy: Any) -> None:
    """Take ten optimizer steps: the tortoise is the hare's average, every seventh step resets."""
    for part in policy.parts:
        method, module = policy.methods[part.name], part.module
        for group in part.optimizer.param_groups:
            group["lr"] = 0.01  # a policy loaded by itself has no learning rate
        method.release()  # as the next rollout does
        clock = method.state_dict()["steps"]
        for count in range(clock + 1, clock + 11):
            slow = [method.tortoise.tensors()[key].clone() for key, _ in module.named_parameters()]
            fast, twin = copy.deepcopy((list(module.parameters()), part.optimizer))  # no hooks
            for mine, theirs in zip(module.parameters(), fast, strict=True):
                theirs.grad = torch.randn_like(theirs)
                mine.grad = theirs.grad.clone()
            twin.step()
            part.optimizer.step()
            method.release()
            for (key, hare), before, after in zip(
                module.named_parameters(), slow, fast, strict=True
            ):
                average = before.lerp(after.detach(), 1 - DECAY)
                assert torch.equal(method.tortoise.tensors()[key], average), (key, count)
                assert torch.equal(hare, average if count % EVERY == 0 else after), (key, count)
                assert not torch.equal(average, after), (key, count)
            assert method.state_dict()["steps"] == count % EVERY


# ---- models ----


def test_a_loaded_model_has_the_same_weights_tortoise_and_clock(
    algorithm: str, make: Any, tmp_path: Path
) -> None:
    model = make(algorithm, HARE_TORTOISE, 36, policy_kwargs=METHOD)
    loaded = saved_model(model, tmp_path)
    assert type(loaded.policy) is type(model.policy)
    assert_same(dict(loaded.policy.state_dict()), dict(model.policy.state_dict()))
    clocks = [method.state_dict()["steps"] for method in loaded.policy.methods.values()]
    assert all(0 < clock < EVERY for clock in clocks)
    for mine, theirs in zip(loaded.policy.parts, model.policy.parts, strict=True):
        assert_same(mine.optimizer.state_dict(), theirs.optimizer.state_dict())
    assert not storages(tortoise_of(loaded.policy)) & storages(hare_of(loaded.policy))
    assert_steps_by_hand(loaded.policy)


def test_a_loaded_model_goes_on_as_if_never_interrupted(
    algorithm: str, make: Any, facts: Any, tmp_path: Path
) -> None:
    model = make(algorithm, HARE_TORTOISE, 36, policy_kwargs=METHOD)
    model.save(tmp_path / "model.zip")
    env, space = copy.deepcopy((model.get_env(), model.action_space))
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    replay = copy.deepcopy(getattr(model, "replay_buffer", None))
    model.learn(32, reset_num_timesteps=False)
    expected = facts(model)

    path = tmp_path / "model.zip"
    loaded = find_algorithm(algorithm).load(path, env=env, device="cpu", force_reset=False)
    loaded.action_space, loaded.replay_buffer = space, replay
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    loaded.learn(32, reset_num_timesteps=False)
    assert_same(facts(loaded), expected)
    assert any(".plasticity." in name and "clock" in name for name in expected)


@pytest.mark.parametrize("algorithm", OFF_POLICY)
@pytest.mark.parametrize("how", ["deepcopy", "cloudpickle"])
def test_a_copied_model_bootstraps_from_its_own_tortoise(
    algorithm: str, how: str, make: Any
) -> None:
    model = make(algorithm, HARE_TORTOISE, 40, policy_kwargs=METHOD)
    copied = COPIES[how](model, Path())
    before = [tensor.clone() for tensor in tortoise_of(model.policy)]
    copied.learn(20, reset_num_timesteps=False)
    for part in copied.policy.parts:
        if not part.target:
            continue
        target = getattr(copied, part.target)
        assert target is getattr(copied.policy, part.target)
        assert getattr(copied, part.name) is part.module
        own = copied.policy.methods[part.name].tortoise.tensors()
        assert target is not getattr(model, part.target)
        assert_same(dict(target.named_parameters()), own)
    assert_same([t.clone() for t in tortoise_of(model.policy)], before)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_environments_in_other_processes_change_nothing_about_it(algorithm: str, make: Any) -> None:
    env = SubprocVecEnv([lambda: gymnasium.make("CartPole-v1")] * 2, start_method="fork")
    try:
        model = make(algorithm, HARE_TORTOISE, 100, env, policy_kwargs=METHOD)
        (method,) = model.policy.methods.values()
        steps = int(model.policy.optimizer.state_dict()["state"][0]["step"])
        clock = method.state_dict()
        assert steps > 2 * EVERY
        assert (clock["steps"], clock["has_reset"]) == (steps % EVERY, True)
        assert all(np.isfinite(tensor.numpy()).all() for tensor in tortoise_of(model.policy))
    finally:
        env.close()


# ---- policies alone ----


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_policy_is_equal_shares_nothing_and_its_hooks_live(
    algorithm: str, how: str, make: Any, tmp_path: Path
) -> None:
    policy = trained_policy(make, algorithm)
    before = copy.deepcopy(dict(policy.state_dict()))
    copied = COPIES[how](policy, tmp_path)
    assert type(copied) is type(policy)
    assert_same(dict(copied.state_dict()), before)
    assert_no_storage_is_shared(policy, copied)
    assert_steps_by_hand(copied)
    assert_same(dict(policy.state_dict()), before)
    assert_steps_by_hand(policy)  # the original's hooks are untouched


def assert_no_storage_is_shared(policy: Any, copied: Any) -> None:
    for one in (policy, copied):
        assert not storages(hare_of(one)) & storages(tortoise_of(one))
        targets = [getattr(one, part.target) for part in one.parts if part.target]
        for target in targets:  # it reads the tortoise itself
            assert storages(target.parameters()) <= storages(tortoise_of(one))
    mine = storages(hare_of(policy)) | storages(tortoise_of(policy))
    theirs = storages(hare_of(copied)) | storages(tortoise_of(copied))
    assert len(mine) == len(theirs) >= 8 and not mine & theirs


@pytest.mark.parametrize(
    "given",
    [HareTortoise, HareTortoise(decay=DECAY, reset_every=EVERY), "hare-tortoise"],
    ids=["class", "instance", "name"],
)
def test_a_method_given_in_any_way_comes_back(given: Any, make: Any, tmp_path: Path) -> None:
    chosen = {"plasticity": given, **({} if isinstance(given, HareTortoise) else METHOD)}
    model = make("dqn", "PlasticMlpPolicy", 40, policy_kwargs=chosen)
    for found in (saved_model(model, tmp_path).policy, saved_policy(model.policy, tmp_path)):
        assert_same(dict(found.state_dict()), dict(model.policy.state_dict()))
        assert_steps_by_hand(found)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("method", ["full-reset", "shrink-perturb", "l2-init"])
def test_first_weights_and_random_numbers_come_back(
    method: str, how: str, make: Any, tmp_path: Path
) -> None:
    policy = make("sac", "PlasticMlpPolicy", 40, policy_kwargs={"plasticity": method}).policy
    policy.enter_phase(1)  # draws, where the method draws at all
    torch.manual_seed(8)
    copied = COPIES[how](policy, tmp_path)
    for one in (policy, copied):
        one.enter_phase(2)
    assert_same(dict(copied.state_dict()), dict(policy.state_dict()))
