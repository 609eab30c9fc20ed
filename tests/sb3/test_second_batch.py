"""An agent's second batch: its own random numbers, of which experience, what is put out for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import kl_div

from ht_bench.errors import UsageError
from ht_bench.sb3.fast_dqn import _scaled_before
from ht_bench.sb3.random_shift import RandomShiftReplayBuffer

from .conftest import Make

POLICY = "PlasticMlpPolicy"


def with_churn(strength: float, **more: Any) -> dict[str, Any]:
    return {"plasticity": "churn", "plasticity_kwargs": {"strength": strength, **more}}


def loops(model: Any) -> dict[str, Any]:
    return {name: method.loop for name, method in model.policy.methods.items()}


def test_the_agents_random_numbers_stay(
    algorithm: str, make: Make, facts: Callable[[Any], dict[str, Tensor]]
) -> None:
    """A term of nothing: what is drawn for it moves no generator, weights differ by rounding."""
    stock, model = (
        make(algorithm, "MlpPolicy", 60),
        make(algorithm, POLICY, 60, None, with_churn(1e-30)),
    )
    ours = {name: t for name, t in facts(model).items() if "plasticity" not in name}
    theirs = facts(stock)
    assert theirs.keys() <= ours.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, msg=name)
    assert all(method.state_dict()["has_earlier"] for method in model.policy.methods.values())


def test_a_strong_one_changes_training(algorithm: str, make: Make) -> None:
    ends = [
        make(algorithm, POLICY, 60, None, with_churn(strength)).policy for strength in (0.0, 50.0)
    ]
    for name, method in ends[1].methods.items():
        pairs = zip(
            method.module.parameters(), ends[0].methods[name].module.parameters(), strict=True
        )
        assert any(not torch.equal(a, b) for a, b in pairs), name


def test_batches_are_drawn_by_themselves_and_again_after_a_checkpoint(make: Make) -> None:
    model = make("dqn", POLICY, 60, None, with_churn(1.0))
    method = model.policy.methods["q_net"]
    saved = copy.deepcopy(method.checkpoint())
    first, second = (method.loop.second_batch() for _ in range(2))
    assert first.shape == second.shape == (8, 4) and not torch.equal(first, second)
    stored = torch.as_tensor(model.replay_buffer.observations[: model.replay_buffer.pos, 0])
    assert all((stored == row).all(1).any() for row in first)
    method.restore(saved, None, None)
    assert torch.equal(method.loop.second_batch(), first)


def test_a_buffers_own_generator_stays(make: Make) -> None:
    """Random shifts have one; it stands where it stood."""
    model = make(
        "dqn",
        "PlasticCnnPolicy",
        30,
        None,
        with_churn(1.0),
        replay_buffer_class=RandomShiftReplayBuffer,
        replay_buffer_kwargs={"pad": 2},
    )
    (loop,) = loops(model).values()
    state, numpy_state = model.replay_buffer._shifts.get_state(), np.random.get_state()[1].copy()
    torch_state = torch.get_rng_state()
    loop.second_batch()
    assert torch.equal(model.replay_buffer._shifts.get_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_outputs_are_what_the_network_is_trained_for(algorithm: str, make: Make) -> None:
    model = make(algorithm, POLICY, 60, None, with_churn(1.0))
    policy = model.policy
    for name, loop in loops(model).items():
        inputs = loop.second_batch()
        with torch.no_grad():
            outputs = loop.outputs(inputs)
            if name == "policy":
                expected = policy.get_distribution(inputs).distribution.logits
            elif name == "critic":
                expected = torch.cat(policy.critic(*inputs), 1)
            elif name == "actor" and algorithm == "sac":
                expected = policy.actor.get_action_dist_params(inputs)[0]
            else:
                expected = getattr(policy, name)(inputs).flatten(1)
        assert torch.equal(outputs, expected)
        size = 8 if algorithm not in ("ppo", "a2c") else {"ppo": 16, "a2c": 8}[algorithm]
        assert outputs.shape[0] == size and outputs.dim() == 2


class Many(gymnasium.Env[Any, Any]):
    """Noise; the actions are those of `space`."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), dtype=np.float32)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.action_space = space

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        return self.reset()[0], 1.0, bool(self.np_random.random() < 0.1), False, {}


@pytest.mark.parametrize(
    ("space", "groups"),
    [
        (spaces.MultiDiscrete([2, 3]), [2, 3]),
        (spaces.MultiBinary(2), [1, 1]),
    ],
)
def test_distributions_of_many_actions(
    make: Make, space: spaces.Space[Any], groups: list[int]
) -> None:
    """Log-probabilities of all choices; the divergence of them is the mean of the actions' own."""
    model = make("ppo", POLICY, 16, Many(space), with_churn(1.0, distance="divergence"))
    (method,) = model.policy.methods.values()
    inputs = method.loop.second_batch()
    now = method.loop.outputs(inputs).detach()
    then = (now + torch.randn(now.shape, generator=torch.Generator().manual_seed(1))).detach()
    if isinstance(space, spaces.MultiBinary):
        assert now.shape[1] == 4
        torch.testing.assert_close(now[:, :2].exp() + now[:, 2:].exp(), torch.ones(len(now), 2))
        return
    each = [g.log_softmax(1) for g in then.split(groups, 1)]
    then = torch.cat(each, 1)
    own = [
        kl_div(a, b, reduction="batchmean", log_target=True)
        for a, b in zip(now.split(groups, 1), each, strict=True)
    ]
    torch.testing.assert_close(method._distance(now, then), sum(own) / len(groups))


def test_images_that_are_scaled_already_are_not_scaled_twice(make: Make) -> None:
    """`fast=True` tells the networks so while it trains."""
    model = make("dqn", "PlasticCnnPolicy", 30, None, {**with_churn(1.0), "fast": True})
    (loop,) = loops(model).values()
    inputs = loop.second_batch()
    with torch.no_grad():
        outside = loop.outputs(inputs)
        with _scaled_before(model.policy):
            torch.testing.assert_close(loop.outputs(inputs), outside)


def test_where_there_is_no_batch_a_sentence_says_so(make: Make) -> None:
    model = make("ppo", POLICY, 0, None, with_churn(1.0))
    (loop,) = loops(model).values()
    with pytest.raises(UsageError, match=r"train the policy by its algorithm's learn\(\)"):
        loop.second_batch()
    contrib = pytest.importorskip("sb3_contrib")
    with pytest.raises(UsageError, match="draws a second batch in each step"):
        contrib.RecurrentPPO(
            "PlasticMlpLstmPolicy", "CartPole-v1", policy_kwargs=with_churn(1.0), device="cpu"
        )
