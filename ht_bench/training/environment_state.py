"""An environment in the middle of an episode, as a checkpoint holds it.

What it and its wrappers keep is plain numbers, arrays and random generators; the games of the ALE
and MuJoCo's simulations keep more, outside of Python, and MinAtar's games in objects of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from ht_bench.envs import minatar
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.training.encoding import decode, encode

_GAMES = ("ALE/", minatar.PREFIX)
_SAVED = tuple(f"gymnasium.envs.{name}" for name in ("classic_control", "toy_text", "mujoco"))
_SAVED_WRAPPERS = ("time-limit", "task-id", "atari", "minatar")
_REMADE = (
    *("env", "spec", "_cached_spec", "_saved_kwargs", "metadata", "_metadata"),
    *("action_space", "observation_space", "_action_space", "_observation_space"),
    *("screen", "surf", "clock", "window_surface", "results_writer", "func"),
    *("_ezpickle_args", "_ezpickle_kwargs", "model", "data", "mujoco_renderer"),
    *("observation_structure", "ale", "_action_set", "game"),
)
"""Attributes that a new environment has alike, or that are saved in another way."""


def can_be_saved(task: ReinforcementTask) -> bool:
    """Whether all environments of the task can be saved in the middle of an episode."""
    wrappers = [wrapper["name"] for wrapper in task.environment.wrappers]
    ids = {task.environment_of(index)[0] for index in range(len(task.phases))}
    return set(wrappers) <= set(_SAVED_WRAPPERS) and all(map(_is_known, ids))


def _is_known(identifier: str) -> bool:
    if identifier.startswith(_GAMES):
        return True
    known = gymnasium.registry.get(identifier)
    place = known.entry_point if known else None
    return isinstance(place, str) and place.startswith(_SAVED)


def environment_state(environment: Any) -> list[Any]:
    """Return, for each wrapper and the environment within, its attributes and its simulation."""
    return [[_attributes(layer), _simulation(layer)] for layer in _layers(environment)]


def restore_environment(environment: Any, state: Sequence[Any]) -> None:
    """Take over what `environment_state` returned, in a new environment of the same phase."""
    for layer, (attributes, simulation) in zip(_layers(environment), state, strict=True):
        vars(layer).update({name: decode(value) for name, value in attributes.items()})
        _restore_simulation(layer, decode(simulation))


def _layers(environment: Any) -> Iterator[Any]:
    while isinstance(environment, gymnasium.Wrapper):
        yield environment
        environment = environment.env
    yield environment


def _attributes(layer: Any) -> dict[str, Any]:
    return {name: encode(value) for name, value in vars(layer).items() if name not in _REMADE}


def _simulation(layer: Any) -> Any:
    """Return what the ALE, MuJoCo or MinAtar keeps, encoded; None for other layers."""
    held = vars(layer)
    if "ale" in held:
        state = held["ale"].cloneState(include_rng=True).serialize()
        return encode(np.frombuffer(state, np.uint8))
    if "mujoco_renderer" in held:
        return encode([_physics(layer), _derived(layer.data)])
    if "game" in held:
        return encode(_game(layer.game))
    return None


def _restore_simulation(layer: Any, simulation: Any) -> None:
    held = vars(layer)
    if "ale" in held:
        from ale_py import ALEState

        held["ale"].restoreState(ALEState(simulation.tobytes()))
    elif "mujoco_renderer" in held:
        mujoco: Any = importlib.import_module("mujoco")
        physics, derived = simulation
        mujoco.mj_setState(layer.model, layer.data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
        for name, values in _derived(layer.data).items():
            if values.shape == derived[name].shape:  # contacts' change, and are made anew
                values[...] = derived[name]
    elif "game" in held:
        _restore_game(layer.game, *simulation)


def _game(game: Any) -> list[Any]:
    """Return what decides a MinAtar game's next step: last action, board, the seeded generator."""
    board = {name: value for name, value in vars(game.env).items() if name != "random"}
    return [game.last_action, board, game.random.get_state()]


def _restore_game(game: Any, last_action: int, board: dict[str, Any], generator: Any) -> None:
    game.seed(0)  # a seed makes the generators of sticky actions and of the board one
    game.random.set_state(generator)
    game.last_action = last_action
    vars(game.env).update(board)


def _physics(layer: Any) -> np.ndarray[Any, Any]:
    """Return what decides MuJoCo's next step."""
    mujoco: Any = importlib.import_module("mujoco")
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(layer.model, kind))
    mujoco.mj_getState(layer.model, layer.data, state, kind)
    return state


def _derived(data: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return MuJoCo's other numbers: positions of bodies, say, are those before the last step."""
    values = {name: getattr(data, name, None) for name in dir(data) if not name.startswith("_")}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, np.ndarray) and value.dtype == np.float64
    }
