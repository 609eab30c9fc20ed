"""ht-bench: does a network that has already been trained still learn as well as a fresh one?

evaluate            train a method on a task, once per seed → Result
register_method     decorator: make a Method available by name
Method              the contract a method implements
HareTortoise        Hare & Tortoise for any torch program: `.attach(model, optimizer)`
…and every other built-in method's class, `get_task`, `Result`, `compare`.

Importing this package loads no torch; names are served when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ht_bench.envs.ids import register_all
from ht_bench.errors import UsageError
from ht_bench.registry import register_method, register_task
from ht_bench.version import VERSION as __version__

if TYPE_CHECKING:
    from ht_bench.methods.architecture import ConcatenatedReLU, LayerNorm
    from ht_bench.methods.base import Method
    from ht_bench.methods.early_stop import EarlyStop
    from ht_bench.methods.ema import ExponentialMovingAverage
    from ht_bench.methods.hare_tortoise import HareTortoise
    from ht_bench.methods.penalties import L2, L2Init
    from ht_bench.methods.resets import FullReset, HeadReset, ShrinkPerturb
    from ht_bench.methods.self_distillation import SelfDistillation
    from ht_bench.running.evaluate import evaluate
    from ht_bench.running.result import Result
    from ht_bench.streams.catalog import get_task

_PLACES = {
    "evaluate": "ht_bench.running.evaluate",
    "Method": "ht_bench.methods.base",
    "HareTortoise": "ht_bench.methods.hare_tortoise",
    "ExponentialMovingAverage": "ht_bench.methods.ema",
    "SelfDistillation": "ht_bench.methods.self_distillation",
    "FullReset": "ht_bench.methods.resets",
    "HeadReset": "ht_bench.methods.resets",
    "ShrinkPerturb": "ht_bench.methods.resets",
    "L2": "ht_bench.methods.penalties",
    "L2Init": "ht_bench.methods.penalties",
    "EarlyStop": "ht_bench.methods.early_stop",
    "LayerNorm": "ht_bench.methods.architecture",
    "ConcatenatedReLU": "ht_bench.methods.architecture",
    "Result": "ht_bench.running.result",
    "get_task": "ht_bench.streams.catalog",
}

__all__ = [
    "L2",
    "ConcatenatedReLU",
    "EarlyStop",
    "ExponentialMovingAverage",
    "FullReset",
    "HareTortoise",
    "HeadReset",
    "L2Init",
    "LayerNorm",
    "Method",
    "Result",
    "SelfDistillation",
    "ShrinkPerturb",
    "UsageError",
    "__version__",
    "evaluate",
    "get_task",
    "register_method",
    "register_task",
]


register_all()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ht_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
