"""ht-bench: does a network that has already been trained still learn as well as a fresh one?

evaluate            train a method on a task, once per seed → Result
compare             rank the methods of a runs folder, or of results
diagnose            does a given network, with given data, have plasticity loss? → Diagnosis
register_method     decorator: make a Method available by name; and so, for other kinds of things,
                    register_recipe, _task, _suite, _dataset, _network, _activation, _norm,
                    _environment
Method              the contract a method implements
Loop                what a training program offers a method that needs more than gradients
HareTortoise        Hare & Tortoise for any torch program: `.attach(model, optimizer)`
…and every other built-in method's class, `get_task`, `Result`, `compare`, `measure`.

Importing this package loads no torch; names are served when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ht_bench import registry, version
from ht_bench.envs.ids import register_all
from ht_bench.errors import UsageError as UsageError
from ht_bench.registry import register_activation as register_activation
from ht_bench.registry import register_dataset as register_dataset
from ht_bench.registry import register_environment as register_environment
from ht_bench.registry import register_method as register_method
from ht_bench.registry import register_network as register_network
from ht_bench.registry import register_norm as register_norm
from ht_bench.registry import register_recipe as register_recipe
from ht_bench.registry import register_suite as register_suite
from ht_bench.registry import register_task as register_task

if TYPE_CHECKING:  # what editors see; a method that is not here is served all the same
    from ht_bench.diagnosis.diagnose import diagnose as diagnose
    from ht_bench.methods.architecture import ConcatenatedReLU as ConcatenatedReLU
    from ht_bench.methods.architecture import LayerNorm as LayerNorm
    from ht_bench.methods.base import Method as Method
    from ht_bench.methods.early_stop import EarlyStop as EarlyStop
    from ht_bench.methods.ema import ExponentialMovingAverage as ExponentialMovingAverage
    from ht_bench.methods.hare_tortoise import HareTortoise as HareTortoise
    from ht_bench.methods.loop import Loop as Loop
    from ht_bench.methods.penalties import L2 as L2
    from ht_bench.methods.penalties import L2Init as L2Init
    from ht_bench.methods.resets import FullReset as FullReset
    from ht_bench.methods.resets import HeadReset as HeadReset
    from ht_bench.methods.resets import ShrinkPerturb as ShrinkPerturb
    from ht_bench.methods.self_distillation import SelfDistillation as SelfDistillation
    from ht_bench.networks.measure import measure as measure
    from ht_bench.running.compared import compare as compare
    from ht_bench.running.evaluate import evaluate as evaluate
    from ht_bench.running.result import Result as Result
    from ht_bench.streams.catalog import get_task as get_task

__version__ = version.VERSION
_PRESENT = (
    *("UsageError", "__version__", "register_method", "register_recipe", "register_task"),
    *("register_suite", "register_dataset", "register_network", "register_activation"),
    *("register_norm", "register_environment"),
)
_PLACES = {
    "Loop": "ht_bench.methods.loop",
    "compare": "ht_bench.running.compared",
    "diagnose": "ht_bench.diagnosis.diagnose",
    "evaluate": "ht_bench.running.evaluate",
    "Result": "ht_bench.running.result",
    "get_task": "ht_bench.streams.catalog",
    "measure": "ht_bench.networks.measure",
}

register_all()


def _places() -> dict[str, str]:
    """Return the module of every public name that is served when it is first used."""
    classes = (place.split(":") for place in registry.methods.built_in.values())
    return {**_PLACES, **{name: module for module, name in classes}}


def __dir__() -> list[str]:
    return sorted((*_PRESENT, *_places()))


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    # Lower case is asked for by `from ht_bench import cli`: no need to look at the recipes.
    place = _places().get(name) if name[:1].isupper() else _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'ht_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(place), name)
