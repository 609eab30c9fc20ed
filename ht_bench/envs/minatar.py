"""MinAtar's games (Young & Tian 2019, 1903.03176): their ids, and boards that several share."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ht_bench.errors import UsageError

PREFIX = "MinAtar/"
MOST_CHANNELS = 100

Environment = gymnasium.Env[Any, Any]
Board = npt.NDArray[np.uint8]


def register_games(where: str) -> None:
    """Register MinAtar's ids where they are not; raises UsageError without the package."""
    try:
        games: Any = importlib.import_module("minatar.gym")
    except ImportError as error:
        raise UsageError(
            f"{where}: the games of MinAtar are in the package minatar, which is not installed; "
            "run `pip install 'ht-bench[minatar]'`."
        ) from error
    if f"{PREFIX}Breakout-v0" not in gymnasium.registry:
        games.register_envs()


@contextmanager
def both_versions() -> Iterator[None]:
    """Make v0 without Gymnasium's advice to take v1: v0 has all 6 actions, v1 those of the game."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", rf".*{PREFIX}\w+-v0 is out of date", DeprecationWarning)
        yield


def is_game(environment: Environment) -> bool:
    """Whether the environment is a game of MinAtar, in whatever wrappers."""
    return type(environment.unwrapped).__module__ == "minatar.gym"


class SeparateEpisodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A game of MinAtar whose episodes begin with no last action.

    MinAtar's own keep it over a reset, a seeded one too, and its sticky actions may repeat it: an
    episode's start would depend on the end of the one before, and a seed be no episode.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Forget the last action, and reset; a seed draws all of what follows."""
        game: Any = self.env.unwrapped
        game.game.last_action = 0  # "n" of MinAtar's action map: no operation
        return self.env.reset(seed=seed, options=options)


class Boards(gymnasium.ObservationWrapper[Board, Any, Any]):
    """A game's boards with the channels first, padded to a number that several games share.

    bool [10, 10, own] becomes uint8 [channels, 10, 10] of 0 and 1; the last ones stay 0. A game's
    own number is 4 (Asterix, Breakout), 6 (Space Invaders), 7 (Freeway) or 10 (Seaquest).
    Raises UsageError for an environment that is no game of MinAtar, and for fewer channels than
    the game has.
    """

    channels_first = True
    """What `ht_bench.envs.phase_environment` asks for: it permutes the channels of such."""

    def __init__(self, env: Environment, channels: int, where: str) -> None:
        super().__init__(env)
        if not is_game(env):
            raise UsageError(
                f"{where}: the wrapper 'minatar' is for games of MinAtar; take it out."
            )
        space: Any = env.observation_space
        height, width, self._own = space.shape
        if not self._own <= channels <= MOST_CHANNELS:
            raise UsageError(
                f"{where}, wrapper 'minatar': channels = {channels}; the game has {self._own}, and "
                f"at most {MOST_CHANNELS} are made."
            )
        self.observation_space = spaces.Box(0, 1, (channels, height, width), np.uint8)

    def observation(self, observation: npt.NDArray[np.bool_]) -> Board:
        """Return the board in the form that the class describes."""
        space: Any = self.observation_space
        board = np.zeros(space.shape, np.uint8)
        board[: self._own] = observation.transpose(2, 0, 1)
        return board
