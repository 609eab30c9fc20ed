"""MinAtar's games: boards, seeds that are trajectories, permuted channels, and what is refused."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ht_bench.envs.making import make
from ht_bench.envs.permutations import phase_order
from ht_bench.envs.phase_environment import make_phase
from ht_bench.envs.wrappers import wrap
from ht_bench.errors import UsageError
from ht_bench.streams.reinforcement import ReinforcementTask

from .conftest import SWAPPED, needs, task

GAMES = {"Asterix": 4, "Breakout": 4, "Freeway": 7, "Seaquest": 10, "SpaceInvaders": 6}
MINIMAL = {"Asterix": 5, "Breakout": 3, "Freeway": 3, "Seaquest": 6, "SpaceInvaders": 4}
WRAPPER = {"name": "minatar"}
there = needs("minatar")


def game(name: str, version: str = "v0", **kwargs: Any) -> Any:
    return make(f"MinAtar/{name}-{version}", kwargs, "Task x")


def of_game(phases: list[dict[str, Any]], name: str, **options: Any) -> ReinforcementTask:
    return task(phases, f"MinAtar/{name}", wrappers=[{**WRAPPER, **options}])


def trajectory(environment: Any, seed: int, steps: int = 150) -> list[Any]:
    """What it shows from a seeded reset on, episodes and their plain resets included."""
    draw = np.random.default_rng(0)
    seen = [environment.reset(seed=seed)[0].tolist()]
    for _ in range(steps):
        observation, reward, terminated, _, _ = environment.step(int(draw.integers(6)))
        seen.append([observation.tolist(), float(reward), terminated])
        if terminated:
            seen.append(environment.reset()[0].tolist())
    return seen


# ---- ids ----


@there
@pytest.mark.parametrize("name", GAMES)
def test_v0_has_all_actions_and_v1_the_games_own(name: str) -> None:
    full, minimal = game(name), game(name, "v1")  # warnings are errors: v0 is no older v1
    assert (full.action_space.n, minimal.action_space.n) == (6, MINIMAL[name])
    assert full.observation_space.shape == (10, 10, GAMES[name])


@there
def test_an_unknown_game_or_argument_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot make 'MinAtar/Breakou-v0': .*`Breakout`"):
        game("Breakou")
    with pytest.raises(UsageError, match="refuses its kwargs: .*sticky"):
        game("Breakout", sticky=0.5)


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("minatar", "minatar.gym"):
        monkeypatch.setitem(sys.modules, module, None)
    others = {k: v for k, v in gymnasium.registry.items() if not k.startswith("MinAtar/")}
    monkeypatch.setattr(gymnasium, "registry", others)
    sentence = r"Task x: .*not installed; run `pip install 'ht-bench\[minatar\]'`"
    with pytest.raises(UsageError, match=sentence):
        game("Breakout")


# ---- seeds ----


@there
@pytest.mark.parametrize("name", GAMES)
def test_a_seed_is_a_trajectory_whatever_was_played_before(name: str) -> None:
    one, other = game(name), game(name)
    first = trajectory(one, seed=3)
    trajectory(other, seed=8, steps=41)
    assert trajectory(other, seed=3) == first == trajectory(one, seed=3)
    assert all(trajectory(one, seed=seed) != first for seed in (4, 5))


@there
@pytest.mark.parametrize("name", ["asterix", "freeway", "space_invaders"])
def test_a_seeded_episode_is_minatars_own(name: str) -> None:
    own: Any = importlib.import_module("minatar").Environment(name)
    own.seed(3)
    own.reset()
    ours = game(name.title().replace("_", ""))
    assert (ours.reset(seed=3)[0] == own.state()).all()
    draw = np.random.default_rng(1)
    for _ in range(60):
        action = int(draw.integers(6))
        observation, reward, terminated, *_ = ours.step(action)
        assert (reward, terminated) == own.act(action)
        assert (observation == own.state()).all()
        if terminated:
            break


@there
@pytest.mark.parametrize("seed", [None, 1])
def test_an_episode_begins_without_the_last_action_of_the_one_before(seed: int | None) -> None:
    sticky = game("Breakout", sticky_action_prob=1.0)  # repeats it for ever
    sticky.reset(seed=0)
    inner = sticky.unwrapped.game
    inner.last_action = 1  # "left"
    sticky.step(0)
    assert inner.env.pos == 3
    sticky.reset(seed=seed)
    sticky.step(1)
    assert inner.env.pos == 4


# ---- boards ----


@there
@pytest.mark.parametrize(("name", "own"), GAMES.items())
def test_a_board_has_its_channels_first_and_zeros_behind_them(name: str, own: int) -> None:
    boards, plain = wrap(game(name), WRAPPER, "Task x"), game(name)
    assert boards.observation_space == spaces.Box(0, 1, (10, 10, 10), np.uint8)
    pairs = [(boards.reset(seed=2)[0], plain.reset(seed=2)[0])]
    pairs += [(boards.step(a % 6)[0], plain.step(a % 6)[0]) for a in range(30)]
    for board, truth in pairs:
        assert board in boards.observation_space
        np.testing.assert_array_equal(board[:own], np.moveaxis(truth, -1, 0))
        assert not board[own:].any()


@there
def test_five_games_share_their_spaces() -> None:
    stream = of_game([{"id": f"MinAtar/{name}-v0"} for name in GAMES], "Asterix-v0")
    for index in range(5):
        observation = make_phase(stream, 0, index).reset(seed=0)[0]
        assert observation.shape == (10, 10, 10)
    alone = [{"id": "MinAtar/Breakout-v1"}, {"id": "MinAtar/Asterix-v1"}]
    with pytest.raises(UsageError, match=r"Discrete\(3\) in phase 0 and Discrete\(5\) in phase 1"):
        make_phase(of_game(alone, "Breakout-v1"), 0, 0)


@there
@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("Seaquest", {"channels": 9}, "channels = 9; the game has 10"),
        ("Breakout", {"channels": 101}, "channels = 101; .* at most 100"),
        ("Breakout", {"chanels": 9}, "unknown key 'chanels'. Did you mean 'channels'"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        wrap(game(name), {**WRAPPER, **options}, "Task x")


def test_another_environment_is_refused() -> None:
    with pytest.raises(UsageError, match="'minatar' is for games of MinAtar; take it out"):
        wrap(gymnasium.make("CartPole-v1"), WRAPPER, "Task x")


# ---- permuted channels ----


@there
@pytest.mark.parametrize("phase", range(3))
def test_a_phase_permutes_channels_and_actions(phase: int) -> None:
    stream = of_game([SWAPPED] * 3, "SpaceInvaders-v1", channels=6)
    swapped, plain = make_phase(stream, 100, phase), game("SpaceInvaders", "v1")
    channels = phase_order(stream, 100, phase, "observations", 6)
    actions = phase_order(stream, 100, phase, "actions", 4)
    assert swapped.observation_space == spaces.Box(0, 1, (6, 10, 10), np.uint8)
    pairs = [(swapped.reset(seed=5)[0], plain.reset(seed=5)[0])]
    for action in (3, 1, 3, 0, 2, 1, 3):
        pairs.append((swapped.step(action)[0], plain.step(actions[action])[0]))
    for board, truth in pairs:
        np.testing.assert_array_equal(board, np.moveaxis(truth, -1, 0)[channels])


@there
def test_boards_without_the_wrapper_are_not_permuted() -> None:
    with pytest.raises(UsageError, match='must be a flat Box and .* wrapper "minatar"'):
        make_phase(task([SWAPPED], "MinAtar/Breakout-v1"), 0, 0)
