"""The plastic policies of each algorithm, importable by name so that saved models find them.

For PPO and A2C (`ActorCritic`), DQN, QR-DQN, SAC and TD3, and for `Mlp`, `Cnn` and `MultiInput`:
`<algorithm>Plastic<kind>Policy`, whose method is `none` unless `plasticity` says otherwise, and
`<algorithm>HareTortoise<kind>Policy`, whose method is Hare & Tortoise.
"""

from __future__ import annotations

import contextlib
from typing import Any

from stable_baselines3.common import policies as actor_critic
from stable_baselines3.dqn import policies as dqn
from stable_baselines3.sac import policies as sac
from stable_baselines3.td3 import policies as td3

from ht_bench.sb3.data_efficient import DataEfficientPolicy
from ht_bench.sb3.plastic import PlasticPolicy

qrdqn: Any = None
with contextlib.suppress(ImportError):  # without the extra `contrib` there is no QR-DQN
    from sb3_contrib.qrdqn import policies as qrdqn

KINDS = ("Mlp", "Cnn", "MultiInput")
PREFIXES = {"Plastic": "none", "HareTortoise": "hare-tortoise"}
STOCK: dict[str, dict[str, Any]] = {
    "ActorCritic": {
        "Mlp": actor_critic.ActorCriticPolicy,
        "Cnn": actor_critic.ActorCriticCnnPolicy,
        "MultiInput": actor_critic.MultiInputActorCriticPolicy,
    },
    "DQN": {kind: getattr(dqn, f"{kind}Policy") for kind in KINDS}
    | {"DataEfficient": DataEfficientPolicy},
    "SAC": {kind: getattr(sac, f"{kind}Policy") for kind in KINDS},
    "TD3": {kind: getattr(td3, f"{kind}Policy") for kind in KINDS},
}
if qrdqn is not None:
    STOCK["QRDQN"] = {kind: getattr(qrdqn, f"{kind}Policy") for kind in KINDS}


def _make(name: str, stock: type, method: str) -> type[PlasticPolicy]:
    return type(
        name,
        (PlasticPolicy, stock),
        {
            "__module__": __name__,
            "__qualname__": name,
            "__doc__": f"{stock.__name__} with a Method, by default '{method}'.",
            "default_plasticity": method,
        },
    )


for _algorithm, _kinds in STOCK.items():
    for _kind, _stock in _kinds.items():
        for _prefix, _method in PREFIXES.items():
            _name = f"{_algorithm}{_prefix}{_kind}Policy"
            globals()[_name] = _make(_name, _stock, _method)


def aliases(algorithm: str) -> dict[str, type[PlasticPolicy]]:
    """Return the names that `policy=` takes for a family of algorithms: "HareTortoiseMlpPolicy"."""
    return {
        f"{prefix}{kind}Policy": globals()[f"{algorithm}{prefix}{kind}Policy"]
        for kind in STOCK[algorithm]
        for prefix in PREFIXES
    }
