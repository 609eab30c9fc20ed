"""Small agents of all six algorithms, small environments, and an agent's facts to compare."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from ht_bench.sb3 import find_algorithm
from ht_bench.streams.catalog import get_task

ON_POLICY = {"ppo": {"n_steps": 16, "batch_size": 16, "n_epochs": 3}, "a2c": {"n_steps": 8}}
REPLAY = {"learning_starts": 20, "batch_size": 8, "buffer_size": 500, "train_freq": 1}
VALUES = {**REPLAY, "target_update_interval": 30}
SETTINGS = {**ON_POLICY, "dqn": VALUES, "qrdqn": VALUES, "sac": REPLAY, "td3": REPLAY}
CONTINUOUS = ("sac", "td3")
OFF_POLICY = ("dqn", "qrdqn", "sac", "td3")
EXPERIENCE = ("observations", "next_observations", "actions", "rewards", "dones", "log_probs")

HARE_TORTOISE = "HareTortoiseMlpPolicy"
NEVER = {"plasticity_kwargs": {"decay": 0.9, "reset_every": None}}

Make = Callable[..., Any]
Tensors = dict[str, Tensor]


class Sights(gymnasium.Env[Any, Any]):
    """Noise as images or as a dict; the reward is the action's share of it; 7 steps an episode."""

    def __init__(self, images: bool, continuous: bool) -> None:
        image = spaces.Box(0, 255, (36, 36, 1), dtype=np.uint8)
        place = spaces.Box(-1.0, 1.0, (3,), dtype=np.float32)
        self.observation_space = (
            image if images else spaces.Dict({"place": place, "mark": spaces.Discrete(4)})
        )
        ends = np.array([1.0], dtype=np.float32)
        self.action_space = spaces.Box(-ends, ends) if continuous else spaces.Discrete(3)

    def seen(self) -> Any:
        drawn = self.np_random
        if isinstance(self.observation_space, spaces.Box):
            return drawn.integers(0, 256, (36, 36, 1), dtype=np.uint8)
        return {"place": drawn.uniform(-1, 1, 3).astype(np.float32), "mark": drawn.integers(4)}

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = float(np.sum(action)) * float(self.np_random.random())
        return self.seen(), reward, self.steps == 7, False, {}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """One thread; it and all global random states are as before afterwards."""
    threads, python, numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    random.setstate(python)
    np.random.set_state(numpy)


@pytest.fixture(params=list(SETTINGS))
def algorithm(request: pytest.FixtureRequest) -> str:
    """Each of the six algorithms' names, unless a test names its own."""
    return str(request.param)


@pytest.fixture(scope="session")
def make() -> Make:
    """Return make(algorithm, policy, steps=0, env=None, policy_kwargs=None, **settings)."""

    def build(
        algorithm: str,
        policy: str,
        steps: int = 0,
        env: Any = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        if algorithm == "qrdqn":
            pytest.importorskip("sb3_contrib")
        chosen = {"net_arch": [8], **({"n_quantiles": 5} if algorithm == "qrdqn" else {})}
        if "Cnn" in policy:
            chosen["features_extractor_kwargs"] = {"features_dim": 8}
        if env is None and "Mlp" in policy:
            env = "Pendulum-v1" if algorithm in CONTINUOUS else "CartPole-v1"
        elif env is None:
            env = Sights("Cnn" in policy, algorithm in CONTINUOUS)
        given = {"seed": 3, "device": "cpu", "learning_rate": 3e-3, **SETTINGS[algorithm]}
        model = find_algorithm(algorithm)(
            policy, env, policy_kwargs={**chosen, **(policy_kwargs or {})}, **{**given, **settings}
        )
        return model.learn(steps) if steps else model

    return build


@pytest.fixture(scope="session")
def facts() -> Callable[[Any], dict[str, Tensor]]:
    """Return facts(model): all that training has made, by name.

    Weights, a method's state, targets, moments, experience, and where the random numbers stand.
    """

    def found(model: Any) -> dict[str, Tensor]:
        policy = model.policy
        owners = [policy] if hasattr(policy, "optimizer") else [policy.actor, policy.critic]
        experience = getattr(model, "rollout_buffer", None) or model.replay_buffer
        return _flat(
            {
                "policy": policy.state_dict(),
                "optimizers": [owner.optimizer.state_dict() for owner in owners],
                "entropy": getattr(model, "log_ent_coef", None),
                "experience": {k: getattr(experience, k, None) for k in EXPERIENCE},
                "random": [torch.get_rng_state(), np.random.get_state()[1], random.getstate()[1]],
                "steps": [model.num_timesteps, model._n_updates],
            }
        )

    return found


def _flat(value: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, Mapping):
        parts = [_flat(part, f"{name}.{key}") for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [_flat(part, f"{name}.{index}") for index, part in enumerate(value)]
    elif value is None or isinstance(value, str):
        return {}
    else:
        return {name: torch.as_tensor(value).detach().clone()}
    return {key: tensor for part in parts for key, tensor in part.items()}


def clone(named: Any) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in dict(named).items()}


def state(module: Any) -> Tensors:
    named = module.state_dict()
    return clone({k: v for k, v in named.items() if not k.startswith("plasticity.")})


def hare(policy: Any, part: str) -> Tensors:
    module = getattr(policy, part, policy)
    return {**clone(module.named_parameters()), **clone(module.named_buffers())}


def tortoise(policy: Any, part: str) -> Tensors:
    return clone(policy.methods[part].tortoise.tensors())


def equal(left: Tensors, right: Tensors) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def apart(policy: Any) -> Any:
    """Give hare and tortoise, and an algorithm's own targets, weights with nothing in common."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_()
        for tensor in tortoise_of(policy):
            tensor.normal_()
    return policy


def observations(model: Any, count: int = 100) -> Any:
    model.observation_space.seed(4)
    return np.stack([model.observation_space.sample() for _ in range(count)])


def transitions(seen: Tensor) -> ReplayBufferSamples:
    """A batch of these observations, each followed by its mirror's; every fifth one ends."""
    rows = torch.arange(len(seen))[:, None]
    return ReplayBufferSamples(
        observations=seen,
        actions=rows % 2,
        next_observations=seen.flip(0),
        dones=(rows % 5 == 0).float(),
        rewards=torch.linspace(-1, 1, len(seen))[:, None],
        discounts=torch.linspace(0.5, 1, len(seen))[:, None],
    )


def two_layers(named: Tensors, name: str, inputs: Tensor) -> Tensor:
    """Two linear layers with a ReLU between, written out."""
    hidden = (inputs @ named[f"{name}.0.weight"].T + named[f"{name}.0.bias"]).clamp(min=0)
    return hidden @ named[f"{name}.2.weight"].T + named[f"{name}.2.bias"]


def three_phases(steps: int) -> Any:
    """CartPole permuted anew in each of three phases of so many steps."""
    task: Any = get_task("swap-cartpole-dqn-v1")
    return dataclasses.replace(task, phases=(dataclasses.replace(task.phases[0], steps=steps),) * 3)


def assert_equal(left: Tensors, right: Tensors) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def tortoise_of(policy: Any) -> list[Tensor]:
    return [t for method in policy.methods.values() for t in method.tortoise.tensors().values()]


def storages(tensors: Iterable[Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}
