"""The algorithms by name, their plastic policies as aliases, and a sentence for all others."""

from __future__ import annotations

import importlib
from typing import Any

from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm

from ht_bench.errors import UsageError, did_you_mean
from ht_bench.sb3.policies import KINDS, PREFIXES, aliases

_FAMILIES = {"ppo": "ActorCritic", "a2c": "ActorCritic", "dqn": "DQN", "sac": "SAC", "td3": "TD3"}
_CLASSES: dict[str, type[BaseAlgorithm]] = {
    "ppo": PPO, "a2c": A2C, "dqn": DQN, "sac": SAC, "td3": TD3
}  # fmt: skip
_UNSUPPORTED = ("ARS", "CrossQ", "MaskablePPO", "RecurrentPPO", "TQC", "TRPO")


def find_algorithm(name: str) -> type[BaseAlgorithm]:
    """Return the class of "ppo", "a2c", "dqn", "qrdqn", "sac" or "td3".

    Raises UsageError for another name, and for "qrdqn" without the extra `contrib`.
    """
    if name == "qrdqn":
        contrib = _contrib()
        if contrib is None:
            raise UsageError(
                "QR-DQN is in sb3-contrib, which is not installed: pip install 'ht-bench[contrib]'."
            )
        return contrib.QRDQN  # type: ignore[no-any-return]
    if name not in _CLASSES:
        names = [*_CLASSES, "qrdqn"]
        raise UsageError(
            f"The algorithm '{name}' is not supported.{did_you_mean(name, names)} "
            f"Supported: {', '.join(names)}."
        )
    return _CLASSES[name]


def register_aliases() -> None:
    """Make the policies' short names known to every supported algorithm."""
    for name, family in _FAMILIES.items():
        _CLASSES[name].policy_aliases.update(aliases(family))  # type: ignore[arg-type]
    contrib = _contrib()
    if contrib is None:
        return
    contrib.QRDQN.policy_aliases.update(aliases("QRDQN"))
    for name in _UNSUPPORTED:
        if hasattr(contrib, name):
            getattr(contrib, name).policy_aliases.update(_refusals(name))


def _contrib() -> Any:
    try:
        return importlib.import_module("sb3_contrib")
    except ImportError:
        return None


def _refusals(algorithm: str) -> dict[str, Any]:
    class Refusal:
        """Stands for a policy that an algorithm cannot have."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise UsageError(
                f"{algorithm} is not supported, so no plasticity method hooks into it; "
                "use PPO, A2C, DQN, QR-DQN, SAC or TD3."
            )

    return {f"{prefix}{kind}Policy": Refusal for kind in KINDS for prefix in PREFIXES}
