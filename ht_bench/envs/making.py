"""`gymnasium.make` whose errors are sentences; games of the ALE with their modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from ht_bench.errors import UsageError

Environment = gymnasium.Env[Any, Any]


def make(
    identifier: str, kwargs: Mapping[str, Any], where: str, render_mode: str | None = None
) -> Environment:
    """Return `gymnasium.make(identifier, **kwargs)` without its first-step checker.

    Raises UsageError for an unknown id or argument, a missing extra, and a mode or difficulty
    that the game lacks. `where` names the task in errors.
    """
    if identifier.startswith("ALE/"):
        _register_games()
    try:
        return _make(identifier, kwargs, render_mode)
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


def _make(identifier: str, kwargs: Mapping[str, Any], render_mode: str | None) -> Environment:
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
