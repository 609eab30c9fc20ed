"""The plastic policies of each algorithm, importable by name so that saved models find them.

For PPO, A2C and TRPO (`ActorCritic`), MaskablePPO, RecurrentPPO, DQN, QR-DQN, SAC, TQC, CrossQ, TD3
and DDPG (`TD3`), and for `Mlp`, `Cnn` and `MultiInput` where the algorithm has them:
`<algorithm>Plastic<kind>Policy`, whose method is `none` unless `plasticity` says otherwise, and
`<algorithm>HareTortoise<kind>Policy`, whose method is Hare & Tortoise with the recipe for agents:
`baselines/hare-tortoise.toml`, decay 0.995 and a reset every 4,000 gradient steps of each trained
network. RecurrentPPO's kinds are `MlpLstm`, `CnnLstm` and `MultiInputLstm`.
"""

from __future__ import annotations

import contextlib
from typing import Any

from stable_baselines3.common import policies as actor_critic
from stable_baselines3.dqn import policies as dqn
from stable_baselines3.sac import policies as sac
from stable_baselines3.td3 import policies as td3

from ht_bench.sb3 import minatar
from ht_bench.sb3.data_efficient import DataEfficientPolicy
from ht_bench.sb3.plastic import PlasticPolicy

KINDS = ("Mlp", "Cnn", "MultiInput")
PREFIXES = {"Plastic": "none", "HareTortoise": "hare-tortoise"}


def _kinds(module: Any, kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
    """Return the policies of an algorithm's module that there are: CrossQ has but the first."""
    found = {kind: getattr(module, f"{kind}Policy", None) for kind in kinds}
    return {kind: policy for kind, policy in found.items() if policy is not None}


STOCK: dict[str, dict[str, Any]] = {
    "ActorCritic": {
        "Mlp": actor_critic.ActorCriticPolicy,
        "Cnn": actor_critic.ActorCriticCnnPolicy,
        "MultiInput": actor_critic.MultiInputActorCriticPolicy,
        "MinAtar": minatar.ActorCriticMinAtarPolicy,
    },
    "DQN": _kinds(dqn)
    | {"DataEfficient": DataEfficientPolicy, "MinAtar": minatar.DQNMinAtarPolicy},
    "SAC": _kinds(sac),
    "TD3": _kinds(td3),
}
with contextlib.suppress(ImportError):  # without the extra `contrib` there are none of these
    from sb3_contrib.crossq import policies as crossq
    from sb3_contrib.ppo_mask import policies as maskable
    from sb3_contrib.ppo_recurrent import policies as recurrent
    from sb3_contrib.qrdqn import policies as qrdqn
    from sb3_contrib.tqc import policies as tqc

    STOCK |= {"QRDQN": _kinds(qrdqn) | {"MinAtar": minatar.QRDQNMinAtarPolicy}}
    STOCK |= {"TQC": _kinds(tqc), "CrossQ": _kinds(crossq)}
    STOCK |= {
        "Maskable": _kinds(maskable),
        "Recurrent": _kinds(recurrent, tuple(f"{kind}Lstm" for kind in KINDS)),
    }


def _make(name: str, stock: type, method: str) -> type[PlasticPolicy]:
    # PPO and A2C advise the CPU to a class of this very name; it is saved by the qualified one.
    advised = stock is actor_critic.ActorCriticPolicy
    return type(
        stock.__name__ if advised else name,
        (PlasticPolicy, stock),
        {
            "__module__": __name__,
            "__qualname__": name,
            "__doc__": f"{stock.__name__} with a Method, by default '{method}'.",
            "default_plasticity": method,
        },
    )


for _algorithm, _stocks in STOCK.items():
    for _kind, _stock in _stocks.items():
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
