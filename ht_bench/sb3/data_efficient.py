"""Double Q-learning and dueling networks for stable-baselines3's DQN, whose `train` is untouched.

With `n_steps=` of DQN and the buffers of `random_shift`, this makes up the data-efficient agent of
Atari-100k (DrQ, Kostrikov et al. 2021, 2004.13649, whose Q-network is double and dueling).
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import CnnPolicy, QNetwork
from torch import Tensor, nn


class DuelingQNetwork(QNetwork):
    """Q = V + A − mean A, from two streams over the same features.

    Source: Eq. 9 of Wang et al. 2016, 1511.06581. `net_arch` holds the hidden units of each
    stream. Arguments are those of QNetwork.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.q_net  # the stock's single head
        actions = int(self.action_space.n)
        self.value, self.advantage = self._stream(1), self._stream(actions)

    def _stream(self, outputs: int) -> nn.Sequential:
        layers = create_mlp(self.features_dim, outputs, self.net_arch, self.activation_fn)
        return nn.Sequential(*layers)

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Return action values [batch, actions] of observations [batch, ...]."""
        features = self.extract_features(obs, self.features_extractor)
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(dim=1, keepdim=True)


class DoubleTarget:
    """A target network that answers with its value of the action the online network prefers.

    Source: Eq. 4 of van Hasselt et al. 2016, 1509.06461. It stands before QNetwork in the bases.
    DQN takes the maximum over the answer's only column, which leaves it as it is, so its TD target
    becomes that of double Q-learning. `online` is referred to, not owned: it is no submodule, and
    neither its weights nor its gradients show up here.
    """

    def __init__(self, *args: Any, online: QNetwork, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Past nn.Module's own __setattr__, which would make the online network a submodule.
        object.__setattr__(self, "_online", online)

    def choose(self, values: Tensor, obs: PyTorchObs) -> Tensor:
        """Return [batch, 1]: of `values` [batch, actions], the online network's greedy choice.

        `obs` [batch, ...] are the observations that the values belong to. The online network is
        read in the mode it is in, as DQN reads it for the loss.
        """
        with torch.no_grad():
            greedy = self._online(obs).argmax(dim=1, keepdim=True)  # type: ignore[attr-defined]
        return values.gather(1, greedy)

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Return this network's value, [batch, 1], of the online network's greedy action."""
        return self.choose(super().forward(obs), obs)  # type: ignore[misc]

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        # Its own greedy action: the stock's would be the argmax over the single column of forward.
        values: Tensor = super().forward(observation)  # type: ignore[misc]
        return values.argmax(dim=1).reshape(-1)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        stock: dict[str, Any] = super()._get_constructor_parameters()  # type: ignore[misc]
        return {**stock, "online": self._online}  # type: ignore[attr-defined]


class DoubleQNetwork(DoubleTarget, QNetwork):
    """The target of double Q-learning for a stock QNetwork."""


class DoubleDuelingQNetwork(DoubleTarget, DuelingQNetwork):
    """The target of double Q-learning for a DuelingQNetwork."""


class DataEfficientPolicy(CnnPolicy):
    """DQN's policy with double Q-learning and a dueling network, each of which can be left out.

    policy_kwargs: `double` and `dueling` (both True); everything else goes to the stock CnnPolicy.
    Features come from NatureCNN unless `features_extractor_class` says otherwise (FlattenExtractor
    for vectors). With NatureCNN `net_arch` defaults to no hidden layer: both streams are linear
    over its 512 shared features, as in Dopamine's Atari-100k agents; Wang et al. give each stream
    512 hidden units of its own, which `net_arch=[512]` adds. With `double` and `dueling` off,
    training is bit-identical to the stock policy's.
    """

    def __init__(
        self, *args: Any, double: bool = True, dueling: bool = True, **kwargs: Any
    ) -> None:
        # Not `double`, which is nn.Module's cast to float64.
        self._is_double, self._is_dueling = double, dueling
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        if self._is_double:
            self.q_net_target = self._doubled(self.q_net_target)

    def _doubled(self, target: QNetwork) -> QNetwork:
        """Return `target` made to choose by the online network."""
        network = DoubleDuelingQNetwork if self._is_dueling else DoubleQNetwork
        double = network(**target._get_constructor_parameters(), online=self.q_net)
        double.load_state_dict(target.state_dict())
        double.set_training_mode(False)
        return double.to(self.device)

    def make_q_net(self) -> QNetwork:
        """Return a network of its own features extractor and freshly drawn weights."""
        network = DuelingQNetwork if self._is_dueling else QNetwork
        return network(**self._update_features_extractor(self.net_args)).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        stock = super()._get_constructor_parameters()
        return {**stock, "double": self._is_double, "dueling": self._is_dueling}
