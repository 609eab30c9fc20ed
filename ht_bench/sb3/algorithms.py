"""The algorithms by name, their plastic policies as aliases, and a sentence for all others."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm

from ht_bench.errors import UsageError, did_you_mean, shown
from ht_bench.sb3.callers import calling_algorithm
from ht_bench.sb3.parts import SUPPORTED
from ht_bench.sb3.policies import KINDS, PREFIXES, STOCK, aliases

_CLASSES: dict[str, type[BaseAlgorithm]] = {
    "ppo": PPO, "a2c": A2C, "dqn": DQN, "sac": SAC, "td3": TD3, "ddpg": DDPG
}  # fmt: skip
_CONTRIB = {
    "qrdqn": "QRDQN",
    "tqc": "TQC",
    "crossq": "CrossQ",
    "trpo": "TRPO",
    "maskableppo": "MaskablePPO",
    "recurrentppo": "RecurrentPPO",
}
_FAMILIES = {
    "ppo": "ActorCritic",
    "a2c": "ActorCritic",
    "trpo": "ActorCritic",
    "maskableppo": "Maskable",
    "recurrentppo": "Recurrent",
    "dqn": "DQN",
    "qrdqn": "QRDQN",
    "sac": "SAC",
    "td3": "TD3",
    "ddpg": "TD3",
    "tqc": "TQC",
    "crossq": "CrossQ",
}


NEAR = 0.7
"""How alike a policy's name must be to one of ours, which is nearer than all stock ones."""


def find_algorithm(name: str) -> type[BaseAlgorithm]:
    """Return the class of "ppo", "a2c", "dqn", "sac", "td3", "ddpg", or of one of sb3-contrib.

    Those are "qrdqn", "tqc", "crossq", "trpo", "maskableppo" and "recurrentppo". Raises UsageError
    for another name, and for these without the extra `contrib`.
    """
    if not isinstance(name, str):
        raise UsageError(
            f"find_algorithm({shown(name)}): give the algorithm's name, of {', '.join(_FAMILIES)}."
        )
    if name in _CONTRIB:
        contrib = _contrib()
        if contrib is None:
            raise UsageError(
                f"{_CONTRIB[name]} is in sb3-contrib, which is not installed: "
                "pip install 'ht-bench[contrib]'."
            )
        return getattr(contrib, _CONTRIB[name])  # type: ignore[no-any-return]
    if name not in _CLASSES:
        names = [*_CLASSES, *_CONTRIB]
        raise UsageError(
            f"The algorithm '{name}' is not supported.{did_you_mean(name, names)} "
            f"Supported: {', '.join(names)}."
        )
    return _CLASSES[name]


def register_aliases() -> None:
    """Make the policies' short names known to every supported algorithm."""
    for name, family in _FAMILIES.items():
        there = name in _CLASSES or (family in STOCK and hasattr(_contrib(), _CONTRIB[name]))
        algorithm: Any = find_algorithm(name) if there else None
        if there and not isinstance(algorithm.policy_aliases, _Aliases):
            algorithm.policy_aliases = _Aliases(algorithm.policy_aliases)
        if there:
            algorithm.policy_aliases.update(aliases(family))
    contrib = _contrib()
    if hasattr(contrib, "RecurrentPPO"):
        _refuse(contrib.RecurrentPPO, "RecurrentPPO's policies are recurrent: {name}LstmPolicy.")
    if hasattr(contrib, "ARS"):
        _refuse(contrib.ARS, f"ARS has no optimizer to hook into; use {SUPPORTED}.")


class _Aliases(dict[str, Any]):
    """An algorithm's policies by name; where it looks up one of ours misspelled, a UsageError.

    Whoever else asks gets a dict's answers, and stable-baselines3 refuses all other names itself.
    """

    def __contains__(self, name: object) -> bool:
        known = super().__contains__(name)
        algorithm = None if known else calling_algorithm("_get_policy_from_name")
        if algorithm is not None:
            self._refuse_misspelled(str(name), type(algorithm).__name__)
        return known

    def _refuse_misspelled(self, name: str, algorithm: str) -> None:
        lowered = {alias.lower(): alias for alias in self}
        near = difflib.get_close_matches(name.lower(), lowered, 1, NEAR)
        if near and lowered[near[0]].startswith(tuple(PREFIXES)):
            raise UsageError(
                f"{algorithm} has no policy '{name}'. Did you mean '{lowered[near[0]]}'?"
            )


def _contrib() -> Any:
    try:
        return importlib.import_module("sb3_contrib")
    except ImportError:
        return None


def _refuse(algorithm: Any, sentence: str) -> None:
    for prefix in PREFIXES:
        for kind in KINDS:
            said = sentence.format(name=f"{prefix}{kind}")
            algorithm.policy_aliases.setdefault(f"{prefix}{kind}Policy", _refusal(said))


def _refusal(sentence: str) -> type:
    class Refusal:
        """Stands for a policy that an algorithm cannot have."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise UsageError(sentence)

    return Refusal
