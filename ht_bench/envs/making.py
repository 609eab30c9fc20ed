"""`gymnasium.make` whose errors are sentences; games; environments from outside.

An environment from outside is a Gymnasium id whose module registers it (`register`), a name that
`ht_bench.register_environment` or an installed package gives a class, or "file.py:Class".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from ht_bench import registry
from ht_bench.envs import minatar
from ht_bench.errors import UsageError, telling
from ht_bench.loading import load_module

Environment = gymnasium.Env[Any, Any]
Identifier = str | EnvSpec
_REFERENCE = r".+\.py:\w+|[\w.]+:[A-Za-z_]\w*"
"""Not Gymnasium's own "module:Name-v0", which imports the module and makes the id behind it."""


def make(
    identifier: str,
    kwargs: Mapping[str, Any],
    where: str,
    render_mode: str | None = None,
    register: str = "",
) -> Environment:
    """Return `gymnasium.make(identifier, **kwargs)` without its first-step checker.

    register: a module or Python file that is imported before, and registers the id; those of the
    ALE and of MinAtar need none. Raises UsageError for an unknown id or argument, a missing extra,
    a mode or difficulty that the game lacks, and code from outside that fails. `where` names the
    task in errors.
    """
    if register:
        load_module(register)
    if identifier.startswith("ALE/"):
        _register_games()
    if identifier.startswith(minatar.PREFIX) and identifier not in gymnasium.registry:
        minatar.register_games(where)
    specification = _outside(identifier)
    if specification is not None:
        return _make_outside(specification, kwargs, where, render_mode)
    try:
        with minatar.both_versions():
            made = _make(identifier, kwargs, render_mode)
    except gymnasium.error.DependencyNotInstalled as error:
        raise _missing(identifier, where, error) from error
    except gymnasium.error.Error as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise UsageError(f"{where}: Gymnasium cannot make '{identifier}': {text}.") from error
    except TypeError as error:
        raise UsageError(f"{where}: '{identifier}' refuses its kwargs: {error}.") from error
    except RuntimeError as error:
        if not identifier.startswith("ALE/"):
            raise
        raise _not_in_the_game(identifier, kwargs, where) or error from error
    return minatar.SeparateEpisodes(made) if minatar.is_game(made) else made


def _outside(identifier: str) -> EnvSpec | None:
    """Return what makes an environment from outside; None for an id of Gymnasium's."""
    if identifier in gymnasium.registry:
        return None
    if not re.fullmatch(_REFERENCE, identifier):
        if identifier not in registry.environments.names():
            return None
        return EnvSpec(identifier, entry_point=registry.environments.get(identifier))
    thing = registry.environments.find(identifier)
    return EnvSpec(identifier.rpartition(":")[2], entry_point=thing)


def _make_outside(
    specification: EnvSpec, kwargs: Mapping[str, Any], where: str, render_mode: str | None
) -> Environment:
    with telling(f"{where}: '{specification.id}' cannot be made"):
        return _make(specification, kwargs, render_mode)


def _make(
    identifier: Identifier, kwargs: Mapping[str, Any], render_mode: str | None
) -> Environment:
    rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    return gymnasium.make(identifier, disable_env_checker=True, **rendering, **dict(kwargs))


def _register_games() -> None:
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner on stderr
    gymnasium.register_envs(ale_py)


def _missing(identifier: str, where: str, error: Exception) -> UsageError:
    lacking = f"{where}: '{identifier}' needs a package that is not installed"
    if "mujoco" in str(gymnasium.spec(identifier).entry_point):
        return UsageError(f"{lacking}; run `pip install 'ht-bench[mujoco]'`.")
    return UsageError(f"{lacking}: {' '.join(str(error).split()).rstrip('.')}.")


def _not_in_the_game(identifier: str, kwargs: Mapping[str, Any], where: str) -> UsageError | None:
    """Return the error of the first of mode and difficulty that the game does not have."""
    plain = {k: v for k, v in kwargs.items() if k not in ("mode", "difficulty")}
    environment: Any = _make(identifier, plain, None)
    game = environment.unwrapped.ale
    available = {
        "mode": game.getAvailableModes(),
        "difficulty": game.getAvailableDifficulties(),
    }
    environment.close()
    for name, values in available.items():
        if name in kwargs and kwargs[name] not in values:
            named = ", ".join(str(value) for value in values)
            return UsageError(
                f"{where}: {identifier} has no {name} {kwargs[name]}; choose one of {named}."
            )
    return None
