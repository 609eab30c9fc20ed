"""When the hare goes back to the tortoise, and what resets at a boundary redraw."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from ht_bench.sb3 import find_algorithm

from .conftest import (
    HARE_TORTOISE,
    OFF_POLICY,
    Tensors,
    assert_equal,
    clone,
    equal,
    state,
    storages,
)

HEADS = {
    "ppo": {"policy": ["action_net", "value_net"]},
    "a2c": {"policy": ["action_net", "value_net"]},
    "dqn": {"q_net": ["q_net.2"]},
    "qrdqn": {"quantile_net": ["quantile_net.2"]},
    "sac": {"actor": ["mu", "log_std"], "critic": ["qf0.2", "qf1.2"]},
    "td3": {"actor": ["mu.2"], "critic": ["qf0.2", "qf1.2"]},
}


def resetting(every: int, **others: Any) -> dict[str, Any]:
    return {"plasticity_kwargs": {"decay": 0.9, "reset_every": every, **others}}


def weights(module: Any) -> Tensors:
    return clone(module.named_parameters())


def slow(method: Any) -> Tensors:
    return clone(method.tortoise.tensors())


class Masked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Allows every action, as MaskablePPO wants to be told."""

    def action_masks(self) -> Any:
        return np.ones(2, dtype=bool)


class Watch(BaseCallback):
    """Notes, after every optimizer step and around a rollout's start, where hare and tortoise are.

    Its hook on the optimizer runs after the method's. `moments`: (what, hare, tortoise).
    """

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[tuple[str, Tensors, Tensors]] = []
        self.off: list[float] = []
        self._asked = False

    def _on_training_start(self) -> None:
        (self._method,) = self.model.policy.methods.values()
        optimizer = self.model.policy.optimizer
        optimizer.register_step_pre_hook(lambda *_: self._compare())
        optimizer.register_step_post_hook(lambda *_: self._note("update"))

    def _note(self, what: str) -> None:
        self.moments.append((what, weights(self._method.module), slow(self._method)))

    def _on_rollout_start(self) -> None:
        self._note("before")
        self._asked = True

    def _on_step(self) -> bool:
        if self._asked:
            self._note("after")
        self._asked = False
        return True

    def _on_rollout_end(self) -> None:
        self._first = True

    def _compare(self) -> None:
        """At a rollout's first update: how far its probabilities are from the present weights'."""
        if self._first:
            kept = self.model.rollout_buffer
            seen = torch.as_tensor(kept.observations).reshape(-1, 4)
            actions = torch.as_tensor(kept.actions).flatten()
            with torch.no_grad():
                _, now, _ = self.model.policy.evaluate_actions(seen, actions)
            then = torch.as_tensor(kept.log_probs).flatten()
            self.off.append(float((now - then).abs().max()))
        self._first = False


# ---- Hare & Tortoise ----


@pytest.mark.parametrize(("algorithm", "steps"), [("ppo", 96), ("a2c", 64)])
def test_on_policy_resets_wait_for_the_next_rollout(algorithm: str, steps: int, make: Any) -> None:
    """PPO makes three updates a rollout, A2C one: resets fill at the second, fourth, sixth, …"""
    watch = Watch()
    model = make(algorithm, "HareTortoiseMlpPolicy", policy_kwargs=resetting(2))
    model.learn(steps, callback=watch)
    updates, pending, resets = 0, False, 0
    for index, (what, fast, average) in enumerate(watch.moments):
        if what == "update":
            assert not equal(fast, average)
            updates += 1
            pending = pending or updates % 2 == 0
        elif index:
            _, previous, kept = watch.moments[index - 1]
            assert equal(average, kept)
            due = what == "before" and pending
            assert equal(fast, average if due else previous)
            resets += due
            pending = pending and not due
    assert (updates, resets) == ({"ppo": 18, "a2c": 8}[algorithm], {"ppo": 5, "a2c": 3}[algorithm])
    assert max(watch.off) < 1e-6 and len(watch.off) == updates // {"ppo": 3, "a2c": 1}[algorithm]


@pytest.mark.parametrize("name", ["a2c", "ppo", "trpo", "maskableppo", "recurrentppo"])
def test_only_a_rollout_carries_out_a_reset_that_waits(name: str) -> None:
    every = {"trpo": 10, "ppo": 10, "maskableppo": 10, "recurrentppo": 10}.get(name, 2)
    policy_name = "HareTortoiseMlpLstmPolicy" if name == "recurrentppo" else HARE_TORTOISE
    kwargs = {**resetting(every), "net_arch": [8]}
    batch = {} if name == "a2c" else {"batch_size": 8}
    env = Masked(gymnasium.make("CartPole-v1")) if name == "maskableppo" else "CartPole-v1"
    model: Any = find_algorithm(name)(
        policy_name, env, n_steps=8, seed=3, device="cpu", policy_kwargs=kwargs, **batch
    )  # type: ignore[call-arg]
    model.learn(16)
    policy, seen = model.policy, torch.zeros(1, 4)
    (method,) = policy.methods.values()
    fast = weights(policy)
    assert method.state_dict()["held"]
    evaluate_policy(model, gymnasium.make("CartPole-v1"), 1, deterministic=False, warn=False)
    policy.set_training_mode(False)
    if name != "recurrentppo":
        policy(seen), policy(seen, deterministic=True), policy.get_distribution(seen)
    model.predict(seen.numpy()[0], deterministic=True)
    assert equal(weights(policy), fast) and not equal(fast, slow(method))

    class Look(BaseCallback):
        def _on_rollout_start(self) -> None:
            assert equal(weights(policy), slow(method))

        def _on_step(self) -> bool:
            return False

    model.learn(8, callback=Look())
    assert equal(weights(policy), slow(method))


def test_a_loop_without_rollouts_resets_at_once(make: Any) -> None:
    policy = make("ppo", HARE_TORTOISE, policy_kwargs=resetting(3)).policy
    (method,) = policy.methods.values()
    for _ in range(3):
        policy(torch.randn(4, 4))[1].sum().backward()
        policy.optimizer.step()
    assert equal(weights(policy), slow(method))


@pytest.mark.parametrize("algorithm", OFF_POLICY)
def test_off_policy_resets_come_at_exactly_their_step(algorithm: str, make: Any) -> None:
    model = make(algorithm, "HareTortoiseMlpPolicy", policy_kwargs=resetting(4, first_reset=3))
    counts: dict[str, int] = {}
    resets: dict[str, list[int]] = {}

    def note(part: Any) -> None:
        counts[part.name] = counts.get(part.name, 0) + 1
        method = model.policy.methods[part.name]
        if equal(weights(part.module), slow(method)):
            resets.setdefault(part.name, []).append(counts[part.name])
        average = storages(method.tortoise.tensors().values())
        assert not storages(part.module.parameters()) & average

    for part in model.policy.parts:
        part.optimizer.register_step_post_hook(lambda *_, part=part: note(part))
    model.learn(44)
    taken = {"actor": 12, "critic": 24} if algorithm == "td3" else dict.fromkeys(counts, 24)
    assert counts == taken
    for name, count in taken.items():
        assert resets[name] == list(range(3, count + 1, 4))


@pytest.mark.parametrize("state", ["keep", "clear"])
def test_moments_are_kept_or_cleared_at_a_reset(algorithm: str, state: str, make: Any) -> None:
    kwargs = resetting(4, optimizer_state=state)
    policy = make(algorithm, "HareTortoiseMlpPolicy", policy_kwargs=kwargs).policy
    for part in policy.parts:
        for _ in range(4):
            for parameter in part.module.parameters():
                parameter.grad = torch.ones_like(parameter)
            part.optimizer.step()
        policy.methods[part.name].release()
        everything = len(list(part.module.parameters()))
        assert len(part.optimizer.state) == (0 if state == "clear" else everything)


# ---- at a boundary ----


def at_a_boundary(make: Any, algorithm: str, method: str, **others: Any) -> Any:
    """A trained agent told that phase 1 begins; its weights from before it was told."""
    kwargs = {"plasticity": method, **others}
    policy = make(algorithm, "PlasticMlpPolicy", 60, policy_kwargs=kwargs).policy
    before = {part.name: weights(part.module) for part in policy.parts}
    chance = torch.get_rng_state()
    policy.seed_plasticity(11)
    policy.enter_phase(1)
    assert torch.equal(torch.get_rng_state(), chance)
    return policy, before


def test_a_head_reset_redraws_the_outputs_alone(algorithm: str, make: Any) -> None:
    policy, before = at_a_boundary(make, algorithm, "head-reset")
    assert [part.name for part in policy.parts] == list(HEADS[algorithm])
    for part in policy.parts:
        heads = HEADS[algorithm][part.name]
        heads = [f"{head}.{kind}" for head in heads for kind in ("bias", "weight")]
        after = weights(part.module)
        moved = [n for n, tensor in after.items() if not torch.equal(tensor, before[part.name][n])]
        assert sorted(moved) == sorted(heads)
        forgotten = [n for n, p in part.module.named_parameters() if p not in part.optimizer.state]
        assert sorted(forgotten) == sorted(heads)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_head_of_two_layers_is_redrawn_in_every_branch(algorithm: str, make: Any) -> None:
    kwargs = {"plasticity_kwargs": {"layers": 2}, "net_arch": [8, 8]}
    policy, before = at_a_boundary(make, algorithm, "head-reset", **kwargs)
    for part in policy.parts:
        for name, tensor in weights(part.module).items():
            kept = torch.equal(tensor, before[part.name][name])
            assert kept == (".0." in name), name


def fresh(make: Any, algorithm: str, policy: Any, seed: int) -> dict[str, Tensors]:
    """What the stock algorithm would draw for each part from the numbers of `seed_plasticity`."""
    found = {}
    for index, part in enumerate(policy.parts):
        generator = torch.Generator().manual_seed(seed + index)
        drawn = int(torch.randint(2**62, (1,), generator=generator).item())
        stock = make(algorithm, "MlpPolicy")
        torch.manual_seed(drawn)
        spaces = stock.observation_space, stock.action_space
        other = type(stock.policy)(*spaces, lambda _: 1e-3, **stock.policy_kwargs)
        found[part.name] = weights(getattr(other, part.name, other))
    return found


def test_a_full_reset_is_the_algorithms_own_new_agent(algorithm: str, make: Any) -> None:
    policy, before = at_a_boundary(make, algorithm, "full-reset")
    expected = fresh(make, algorithm, policy, 11)
    for part in policy.parts:
        after = weights(part.module)
        assert equal(after, expected[part.name])
        assert all(not torch.equal(tensor, before[part.name][n]) for n, tensor in after.items())
        assert len(part.optimizer.state) == 0
        assert len(part.optimizer.param_groups[0]["params"]) == len(after)
    policy.enter_phase(2)
    for part in policy.parts:
        for name, tensor in weights(part.module).items():
            assert not torch.equal(tensor, expected[part.name][name]) or not tensor.any()


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_a_full_reset_draws_orthogonal_weights(algorithm: str, make: Any) -> None:
    policy, before = at_a_boundary(make, algorithm, "full-reset", net_arch=[16, 16])
    gains = {"action_net": 0.01, "value_net": 1.0}
    for name, tensor in weights(policy).items():
        if name.endswith("bias"):
            assert before["policy"][name].any() and not tensor.any()
            continue
        gain = gains.get(name.removesuffix(".weight"), 2**0.5)
        small = tensor @ tensor.T if tensor.shape[0] <= tensor.shape[1] else tensor.T @ tensor
        wanted = gain**2 * torch.eye(len(small))
        torch.testing.assert_close(small, wanted, rtol=0, atol=1e-5 * gain**2)


def test_a_full_reset_restores_the_width_of_exploration(make: Any) -> None:
    kwargs = {"plasticity": "full-reset", "log_std_init": -0.5}
    model = make("ppo", "PlasticMlpPolicy", 60, "Pendulum-v1", policy_kwargs=kwargs)
    assert model.policy.log_std.item() != -0.5
    model.policy.enter_phase(1)
    assert model.policy.log_std.item() == -0.5


@pytest.mark.parametrize("algorithm", OFF_POLICY)
@pytest.mark.parametrize("method", ["none", "full-reset", "hare-tortoise"])
def test_targets_hold_the_trained_weights_after_a_boundary(
    algorithm: str, method: str, make: Any
) -> None:
    policy, before = at_a_boundary(make, algorithm, method)
    for part in policy.parts:
        after = weights(part.module)
        assert equal(after, before[part.name]) == (method != "full-reset")
        if part.target:
            expected = slow(policy.methods[part.name]) if method == "hare-tortoise" else after
            assert equal(weights(getattr(policy, part.target)), expected)


def test_the_first_phase_is_no_boundary(algorithm: str, make: Any) -> None:
    kwargs = {"plasticity": "full-reset"}
    policy = make(algorithm, "PlasticMlpPolicy", 60, policy_kwargs=kwargs).policy
    before = state(policy)
    moments = [len(part.optimizer.state) for part in policy.parts]
    policy.enter_phase(0, 3)
    assert_equal(state(policy), before)
    assert [len(part.optimizer.state) for part in policy.parts] == moments
    assert all(method.phases == 3 for method in policy.methods.values())
