"""Plasticity for stable-baselines3: importing this makes the policies known by name.

    import ht_bench.sb3
    DQN("HareTortoiseMlpPolicy", env, policy_kwargs=dict(plasticity_kwargs=dict(decay=0.999)))

PlasticPolicy, find_algorithm, and the callbacks PhaseCallback, EvaluationCallback and
DiagnosticsCallback.
"""

import sys

from ht_bench.sb3.algorithms import find_algorithm, register_aliases
from ht_bench.sb3.callbacks import DiagnosticsCallback, PhaseCallback
from ht_bench.sb3.evaluation import EvaluationCallback
from ht_bench.sb3.plastic import PlasticPolicy

register_aliases()
if "rl_zoo3.exp_manager" in sys.modules:  # `--gym-packages ht_bench.sb3`: its samplers keep methods
    import ht_bench.sb3.zoo  # noqa: F401

__all__ = [
    "DiagnosticsCallback",
    "EvaluationCallback",
    "PhaseCallback",
    "PlasticPolicy",
    "find_algorithm",
]
