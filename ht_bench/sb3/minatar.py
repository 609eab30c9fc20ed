"""The network of MinAtar's authors for stable-baselines3: boards of 10 × 10 are no NatureCNN's."""

from __future__ import annotations

import contextlib
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn

from ht_bench.errors import UsageError

FILTERS, KERNEL = 16, 3


class MinAtarCNN(BaseFeaturesExtractor):
    """Boards [batch, channels, height, width] → features [batch, features_dim].

    A convolution of 16 filters 3 × 3 at stride 1, then a hidden layer of 128, each with ReLU: a
    quarter of the filters and units of Mnih et al. 2015. Source: Young & Tian 2019, 1903.03176;
    `QNetwork` in MinAtar's examples/dqn.py, whose output layer is the policy's own head. Its parts
    are called as NatureCNN's. Raises UsageError for observations that are no boards.
    """

    def __init__(self, observation_space: spaces.Space[Any], features_dim: int = 128) -> None:
        shape: tuple[int, ...] = getattr(observation_space, "shape", None) or ()
        if len(shape) != 3 or min(shape[1:]) < KERNEL:
            raise UsageError(
                f"MinAtar's network reads boards [channels, height, width] of {KERNEL} × {KERNEL} "
                f'or more, not {observation_space}; wrap the game with "minatar".'
            )
        super().__init__(observation_space, features_dim)
        channels, height, width = shape
        positions = (height - KERNEL + 1) * (width - KERNEL + 1)
        self.cnn = nn.Sequential(nn.Conv2d(channels, FILTERS, KERNEL), nn.ReLU(), nn.Flatten())
        hidden = nn.Linear(FILTERS * positions, features_dim)
        self.linear = nn.Sequential(hidden, nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features."""
        features: Tensor = self.linear(self.cnn(observations))
        return features


class OnBoards:
    """Mixin: a policy whose features come from MinAtarCNN, with heads that read them directly.

    `features_extractor_class` and `net_arch` (no hidden layer) may say otherwise.
    """

    def __init__(
        self,
        *args: Any,
        net_arch: Any = None,
        features_extractor_class: type[BaseFeaturesExtractor] = MinAtarCNN,
        **kwargs: Any,
    ) -> None:
        kwargs["net_arch"] = [] if net_arch is None else net_arch
        kwargs["features_extractor_class"] = features_extractor_class
        super().__init__(*args, **kwargs)


class DQNMinAtarPolicy(OnBoards, DQNPolicy):
    """DQN's policy for MinAtar's games."""


class ActorCriticMinAtarPolicy(OnBoards, ActorCriticPolicy):
    """The policy of PPO and A2C for MinAtar's games."""


with contextlib.suppress(ImportError):  # without the extra `contrib` there is no QR-DQN
    from sb3_contrib.qrdqn.policies import QRDQNPolicy

    class QRDQNMinAtarPolicy(OnBoards, QRDQNPolicy):
        """QR-DQN's policy for MinAtar's games."""
