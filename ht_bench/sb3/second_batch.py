"""A second batch of an agent's experience, which takes nothing from the agent's random numbers."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn.functional import logsigmoid

from ht_bench.errors import UsageError
from ht_bench.methods.loop import Loop
from ht_bench.sb3.parts import LOOP, Part, is_actor_critic


class SecondBatches:
    """What a policy's loop offers a method that needs a second batch.

    Batches come from the replay buffer (DQN, SAC and the like) or the rollout buffer (PPO, A2C),
    as large as those that are trained on, each drawn by itself from the method's own generator.
    Outputs are Q values or quantiles, an actor's mean actions, or the parameters of an actor-critic
    policy's distribution: log-probabilities, or means. Policies with a memory are offered none:
    their batches are sequences.
    """

    def __init__(self) -> None:
        self._algorithm: Callable[[], BaseAlgorithm | None] = lambda: None

    def follow(self, algorithm: BaseAlgorithm) -> None:
        """Draw from this algorithm's experience; it does not keep the algorithm alive."""
        self._algorithm = weakref.ref(algorithm)

    def loop(self, policy: Any, part: Part, generator: torch.Generator) -> Loop:
        """Return the loop of one trained network."""
        if hasattr(policy, "lstm_actor"):
            return LOOP
        with_actions = part.name == "critic"
        outputs = _outputs_of(policy, part)
        return dataclasses.replace(
            LOOP,
            second_batch=lambda: self._draw(generator, with_actions),
            outputs=lambda inputs: outputs(_as_taken(policy, part, inputs)),
        )

    def _draw(self, generator: torch.Generator, with_actions: bool) -> Any:
        algorithm: Any = self._algorithm()
        if algorithm is None:
            raise UsageError(
                "A second batch comes from the buffer of the algorithm whose train() is running, "
                "and none is; train the policy by its algorithm's learn()."
            )
        seed = int(torch.randint(2**32, (1,), generator=generator).item())
        if hasattr(algorithm, "replay_buffer"):
            samples = _replayed(algorithm, seed)
        else:
            buffer = algorithm.rollout_buffer
            whole = buffer.buffer_size * buffer.n_envs
            size = min(getattr(algorithm, "batch_size", whole), whole)
            samples = buffer._get_samples(np.random.default_rng(seed).permutation(whole)[:size])
        return (samples.observations, samples.actions) if with_actions else samples.observations


def _replayed(algorithm: Any, seed: int) -> Any:
    """Sample with `seed`: buffers draw from global generators, and from those that they hold."""
    buffer = algorithm.replay_buffer
    with _untouched(buffer):
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        return buffer.sample(algorithm.batch_size, env=algorithm._vec_normalize_env)


@contextmanager
def _untouched(buffer: Any) -> Iterator[None]:
    own = [value for value in vars(buffer).values() if isinstance(value, torch.Generator)]
    states = [(generator, generator.get_state()) for generator in own]
    numpy_state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(numpy_state)
        for generator, state in states:
            generator.set_state(state)


def _as_taken(policy: Any, part: Part, inputs: Any) -> Any:
    """Scale images where `FastDQN` has told the network that they are scaled already."""
    if getattr(policy, "scales_images", False) and not getattr(
        part.module, "normalize_images", True
    ):
        return inputs.float() / 255.0
    return inputs


def _outputs_of(policy: Any, part: Part) -> Callable[[Any], Tensor]:
    """Return what the part puts out for its inputs, as one tensor [batch, numbers]."""
    module: Any = part.module
    if is_actor_critic(policy):
        # The policy alone, as in C-CHAIN's PPO (2506.00592); its values are left to their loss.
        return lambda observations: _parameters(policy.get_distribution(observations))
    if part.name == "critic":
        return lambda pair: _joined(module(*pair))
    if hasattr(module, "get_action_dist_params"):
        return lambda observations: _joined(module.get_action_dist_params(observations)[0])
    return lambda observations: _joined(module(observations))


def _joined(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Critics return one tensor each."""
    each = outputs if isinstance(outputs, tuple) else (outputs,)
    return torch.cat([tensor.flatten(1) for tensor in each], 1)


def _parameters(distribution: Any) -> Tensor:
    several = getattr(distribution, "distributions", None)
    inner = distribution.distribution if several is None else several
    parts = inner if isinstance(inner, list) else [inner]
    return torch.cat([_parameter(part) for part in parts], 1)


def _parameter(part: Distribution) -> Tensor:
    if isinstance(part, Categorical):
        return part.logits  # normalised
    if isinstance(part, Bernoulli):
        return torch.cat([logsigmoid(part.logits), logsigmoid(-part.logits)], 1)
    return part.mean
