"""`fast=True` trains as without it, within rounding, and everything around training still works."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.sb3.device_replay import DeviceStorage
from ht_bench.sb3.fast_dqn import FastDQN
from ht_bench.sb3.graph import WARM_UP, Graph
from ht_bench.sb3.random_shift import RandomShiftNStepReplayBuffer, RandomShiftReplayBuffer
from ht_bench.training.tape import Tapes

from .conftest import Sights

SHIFTED = {"replay_buffer_kwargs": {"pad": 2}, "replay_buffer_class": RandomShiftReplayBuffer}
N_STEP = {"n_steps": 3, "gamma": 0.9, "pad": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vectors": ("PlasticMlpPolicy", {}),
    "images": ("PlasticCnnPolicy", {}),
    "a tortoise that resets": ("HareTortoiseCnnPolicy", {}),
    "double and dueling": ("PlasticDataEfficientPolicy", {}),
    "n steps": ("PlasticCnnPolicy", {"n_steps": 3, "gamma": 0.9}),
    "shifts": ("HareTortoiseDataEfficientPolicy", SHIFTED),
    "shifts and n steps": (
        "PlasticDataEfficientPolicy",
        {"replay_buffer_class": RandomShiftNStepReplayBuffer, "replay_buffer_kwargs": N_STEP},
    ),
    "one array for both": (
        "PlasticCnnPolicy",
        {
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
    ),
    "clipped": ("PlasticMlpPolicy", {"max_grad_norm": 0.05}),
    "several steps": ("PlasticMlpPolicy", {"train_freq": 2, "gradient_steps": 3}),
}
RESETS = {"plasticity_kwargs": {"decay": 0.9, "reset_every": 7}}


def kwargs_of(policy: str, fast: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"fast": fast}
    if "Mlp" not in policy:
        found["features_extractor_kwargs"] = {"features_dim": 16}
    return found | (RESETS if "Tortoise" in policy else {"net_arch": [16]})


def agent(policy: str, fast: bool, steps: int = 0, env: Any = None, **settings: Any) -> Any:
    env = env or ("CartPole-v1" if "Mlp" in policy else Sights(True, False))
    given: dict[str, Any] = {
        "seed": 3, "device": "cpu", "learning_starts": 20, "batch_size": 8, "buffer_size": 40,
        "train_freq": 1, "target_update_interval": 10, "learning_rate": 1e-3, **settings,
    }  # fmt: skip
    model = DQN(policy, env, policy_kwargs=kwargs_of(policy, fast), **given)
    return model.learn(steps) if steps else model


def weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.policy.named_parameters()}


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], within: float = 1e-5) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert (tensor - right[name]).abs().max() <= within, name


# ---- the same training ----


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_stock_training_within_rounding(case: str) -> None:
    policy, settings = CASES[case]
    settings = dict(settings)
    slow, fast = (agent(policy, on, 60, **copy.copy(settings)) for on in (False, True))
    assert isinstance(fast, FastDQN) and not isinstance(slow, FastDQN)
    assert isinstance(fast.replay_buffer, DeviceStorage)
    assert fast._n_updates == slow._n_updates > 20
    assert_close(weights(fast), weights(slow))
    moved = max((a - b).abs().max() for a, b in zip(*map(_two, (slow, policy)), strict=True))
    assert moved > 1e-3  # 40 steps of 1e-3 in all: what agrees to 1e-5 was trained
    losses = [model.logger.name_to_value["train/loss"] for model in (slow, fast)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def _two(model: Any) -> list[Tensor]:
    if isinstance(model, str):
        return list(agent(model, False).policy.q_net.parameters())
    return list(model.policy.q_net.parameters())


def test_several_environments_are_stored_and_sampled_alike() -> None:
    def envs() -> DummyVecEnv:
        return DummyVecEnv([lambda: Sights(True, False)] * 3)

    slow, fast = (agent("PlasticCnnPolicy", on, 90, env=envs()) for on in (False, True))
    assert_close(weights(fast), weights(slow))
    assert np.array_equal(fast.replay_buffer.observations, slow.replay_buffer.observations)


@pytest.mark.parametrize("cls", [ReplayBuffer, NStepReplayBuffer])
@pytest.mark.parametrize("steps", [25, 90])
def test_samples_and_random_numbers_are_the_stock_buffers(cls: Any, steps: int) -> None:
    settings = {"n_steps": 3} if cls is NStepReplayBuffer else {}
    slow, fast = (agent("PlasticCnnPolicy", on, steps, **settings) for on in (False, True))
    assert type(slow.replay_buffer) is cls and isinstance(fast.replay_buffer, cls)
    drawn, following = [], []
    for model in (slow, fast):
        np.random.seed(1)
        drawn.append(model.replay_buffer.sample(200))
        following.append(np.random.randint(2**31))
    assert following[0] == following[1]
    for name, mine, theirs in zip(drawn[0]._fields, drawn[1], drawn[0], strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, name
            assert torch.allclose(mine, theirs, rtol=1e-6), name


def test_off_nothing_is_touched() -> None:
    model = agent("PlasticCnnPolicy", False, 25)
    assert type(model) is DQN and type(model.replay_buffer) is ReplayBuffer
    assert model.policy.optimizer.param_groups[0]["fused"] is None
    assert all(p.is_contiguous() for p in model.policy.parameters())
    assert "fast" not in model.policy._get_constructor_parameters()


# ---- what else is fast ----


def test_optimizers_are_fused_and_keep_their_settings(algorithm: str, make: Any) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fast = make(algorithm, "PlasticMlpPolicy", 60, policy_kwargs={"fast": True})
    stock = make(algorithm, "PlasticMlpPolicy", 60)
    for mine, theirs in zip(fast.policy.parts, stock.policy.parts, strict=True):
        group, other = mine.optimizer.param_groups[0], theirs.optimizer.param_groups[0]
        for name in ("lr", "eps", "betas", "weight_decay", "alpha"):
            assert group.get(name) == other.get(name)
        assert group.get("fused", False) is (algorithm != "a2c")
    assert_close(weights(fast), weights(stock), 1e-4)
    own = [str(each.message) for each in said if "fast=True" in str(each.message)]
    assert len(own) == (algorithm != "dqn")
    assert all("updates" in sentence for sentence in own)


def test_convolutions_and_their_averages_lie_channels_last() -> None:
    model = agent("HareTortoiseCnnPolicy", True, 30)
    policy = model.policy
    tortoise = policy.methods["q_net"].tortoise.tensors()
    for name, tensor in [*policy.q_net.named_parameters(), *tortoise.items()]:
        if tensor.dim() == 4:
            assert tensor.is_contiguous(memory_format=torch.channels_last), name


class Counting(Method):
    """Counts its hooks."""

    name = "counting"
    capturable = True
    before = after = 0

    def before_step(self) -> None:
        self.before += 1

    def after_step(self) -> None:
        self.after += 1


def test_hooks_run_once_per_gradient_step() -> None:
    kwargs = {"plasticity": Counting, "fast": True}
    model = DQN("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs, learning_starts=20)
    model.learn(100)
    method = model.policy.methods["q_net"]
    assert method.before == method.after == method.steps_seen == model._n_updates > 0


# ---- captured: a tape stands in for CUDA graphs ----


class TapeGraph(Graph):
    device = "cpu"
    runs_while_recording = True
    recorded = 0

    def _beside(self, step: Any) -> Tensor:
        assert self._drawn is not None
        return step(self._drawn)  # type: ignore[no-any-return]

    def _record(self, step: Any) -> None:
        type(self).recorded += 1
        loss, drawn = torch.zeros(()), self._drawn

        class Replays:
            replay = staticmethod(Tapes().capture(lambda: loss.copy_(step(drawn))))

        self._loss, self._graph = loss, Replays()


@pytest.mark.parametrize(
    "case", ["vectors", "a tortoise that resets", "shifts", "shifts and n steps", "clipped"]
)
def test_a_captured_step_is_the_eager_one(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, settings = CASES[case]
    stock = agent(policy, False, 60, **copy.copy(settings))
    monkeypatch.setattr(FastDQN, "graph_class", TapeGraph)
    monkeypatch.setattr(TapeGraph, "recorded", 0)
    fast = agent(policy, True, **copy.copy(settings))
    counted: list[int] = []
    optimizer = fast.policy.optimizer
    optimizer.register_step_post_hook(lambda *_: counted.append(not fast.policy.is_recording))
    fast.policy.after_replay.append(lambda: counted.append(1))
    fast.learn(60)
    assert TapeGraph.recorded == 1
    assert sum(counted) == fast._n_updates == stock._n_updates
    assert_close(weights(fast), weights(stock))
    method, other = fast.policy.methods["q_net"], stock.policy.methods["q_net"]
    assert method.state_dict().get("steps") == other.state_dict().get("steps")
    assert isinstance(optimizer.param_groups[0]["lr"], float)
    assert not method.is_advanced_by_loop


def test_a_changed_rate_is_followed_and_loading_records_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FastDQN, "graph_class", TapeGraph)
    monkeypatch.setattr(TapeGraph, "recorded", 0)
    model = agent("PlasticMlpPolicy", True, 40, learning_rate=lambda left: 1e-2 * left)
    assert TapeGraph.recorded == 1
    before = weights(model)
    model.lr_schedule = lambda left: 0.0
    model.train(2, 8)
    same = {name: torch.equal(t, before[name]) for name, t in weights(model).items()}
    assert all(same[name] for name in same if name.startswith("q_net."))
    model.policy.load_state_dict(model.policy.state_dict())
    model.train(WARM_UP + 2, 8)
    assert TapeGraph.recorded == 2
    model.policy.enter_phase(1, 2)
    model.train(WARM_UP + 2, 8)
    assert TapeGraph.recorded == 3


class Uncounted(Counting):
    """Overrides a hook without a word on capturing."""

    def after_step(self) -> None:
        self.after += 1


def test_what_cannot_be_captured_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastDQN, "graph_class", TapeGraph)
    monkeypatch.setattr(TapeGraph, "recorded", 0)
    kwargs = {"plasticity": Uncounted, "fast": True}
    model = DQN("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs, learning_starts=20)
    model.learn(60)
    assert model.policy.methods["q_net"].after == model._n_updates > 0
    assert TapeGraph.recorded == 0
