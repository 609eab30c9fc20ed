"""Physics of an environment, changed by name: what a `drift` stream changes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium

from ht_bench.errors import UsageError, did_you_mean
from ht_bench.streams.reinforcement import is_number

FRICTION = "friction_scale"
"""The key that multiplies the sliding friction of every geometry of a MuJoCo model."""
_DERIVED = ("total_mass", "polemass_length")
"""What CartPole's constructor derives from masses and length, and keeps."""


def apply_physics(
    environment: gymnasium.Env[Any, Any], physics: Mapping[str, float], where: str
) -> None:
    """Set attributes of a newly made, unwrapped environment; its class keeps the true ones.

    A key is a numeric attribute of the instance or its class, or FRICTION, of which 1.0 is the
    true value. What CartPole derives from its masses and length is derived anew. Raises
    UsageError for any other key.
    """
    names = _names(environment) if physics else []
    for name, value in physics.items():
        if name not in names:
            raise UsageError(
                f"{where}: {type(environment).__name__} has no physics '{name}'."
                f"{did_you_mean(name, names)} Known: {', '.join(names)}."
            )
        if name == FRICTION:
            _scale_friction(environment, value)
        else:
            setattr(environment, name, value)
    if all(name in vars(environment) for name in _DERIVED):
        _derive(environment)


def _names(environment: Any) -> list[str]:
    """Return what a phase may set: public numbers that nothing else derives."""
    names = [name for name in dir(environment) if not name.startswith("_")]
    values = {name: inspect.getattr_static(environment, name) for name in names}
    numbers = [name for name in names if is_number(values[name]) and name not in _DERIVED]
    friction = hasattr(getattr(environment, "model", None), "geom_friction")
    return [*numbers, FRICTION] if friction else numbers


def _scale_friction(environment: Any, factor: float) -> None:
    environment.model.geom_friction[:, 0] *= factor


def _derive(environment: Any) -> None:
    environment.total_mass = environment.masspole + environment.masscart
    environment.polemass_length = environment.masspole * environment.length
