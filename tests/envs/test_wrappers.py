"""Wrappers by name: what they do in training and evaluation, and what they refuse."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.env_checker import check_env as stable_baselines3_check

from ht_bench.envs import wrappers
from ht_bench.envs.phase_environment import make_phase
from ht_bench.envs.rl_stream import EnvironmentStream
from ht_bench.envs.wrappers import TaskIdObservation, wrap
from ht_bench.errors import UsageError

from .conftest import INFINITE, needs, task

ATARI = {"name": "atari"}


def pong(evaluation: bool = False, frameskip: int = 1, **options: Any) -> Any:
    wrapper = {"name": "atari", "noop_max": 0, **options}
    spec = task([{}], "ALE/Breakout-v5", kwargs={"frameskip": frameskip}, wrappers=[wrapper])
    return make_phase(spec, 0, 0, evaluation=evaluation)


def cartpole() -> Any:
    return gymnasium.make("CartPole-v1")


def lose(game: Any) -> tuple[bool, int]:
    """Fire and stand still until the episode ends; returns (terminated, lives)."""
    game.reset(seed=0)
    for step in range(600):
        _, _, terminated, _, info = game.step(1 if step % 10 == 0 else 3)
        if terminated:
            break
    return terminated, info["lives"]


# ---- "atari" ----


@needs("cv2")
def test_a_game_is_four_grey_frames_channel_first_and_an_action_lasts_four() -> None:
    game = pong()
    assert game.observation_space == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    first = game.reset(seed=0)[0]
    assert first in game.observation_space
    assert first.std() > 0
    before = game.unwrapped.ale.getEpisodeFrameNumber()
    second = game.step(1)[0]
    assert game.unwrapped.ale.getEpisodeFrameNumber() - before == 4
    np.testing.assert_array_equal(second[:3], first[1:])
    assert pong(stack=2, screen_size=42).observation_space.shape == (2, 42, 42)


@needs("cv2")
def test_a_lost_life_ends_an_episode_in_training_only() -> None:
    assert lose(pong()) == (True, 4)
    assert lose(pong(terminal_on_life_loss=False))[1] < 4
    assert lose(pong(evaluation=True)) == (True, 0)


@needs("cv2")
def test_rewards_are_clipped_in_training_only() -> None:
    shots = task([{}], "ALE/SpaceInvaders-v5", kwargs={"frameskip": 1}, wrappers=[ATARI])
    earned = []
    for evaluation in (False, True):
        game = make_phase(shots, 0, 0, evaluation=evaluation)
        game.reset(seed=0)
        earned.append({float(game.step(1)[1]) for _ in range(120)})
    assert earned[0] == {0.0, 1.0}
    assert max(earned[1]) >= 5.0


@needs("cv2")
def test_frames_are_not_skipped_twice() -> None:
    with pytest.raises(UsageError, match=r"skips frames and so does .*set frameskip = 1"):
        pong(frameskip=4)
    assert pong(frameskip=4, frame_skip=1).observation_space.shape == (4, 84, 84)


def test_a_missing_opencv_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrappers.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"OpenCV, .*run `pip install 'ht-bench\[atari\]'`"):
        pong()


# ---- others, and wrong ones ----


def test_a_time_limit_truncates() -> None:
    limited = [{"name": "time-limit", "max_episode_steps": 3}]
    environment = make_phase(task([{}], wrappers=limited), 0, 0)
    environment.reset(seed=0)
    assert [environment.step(i % 2)[3] for i in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("wrapper", "sentence"),
    [
        (ATARI, "for games of the ALE"),
        ({"name": "atri"}, "Task x: there is no wrapper 'atri'. Did you mean 'atari'"),
        ({"name": "atari", "stak": 4}, "'atari': unknown key 'stak'. Did you mean 'stack'"),
        ({"name": "atari", "stack": "4"}, "'stack' is '4'; it must be of type int"),
        ({"name": "time-limit"}, "the key 'max_episode_steps' is missing"),
        ({"name": "task-id", "tasks": 3}, "'task-id': unknown key 'tasks'"),
    ],
)
def test_wrong_wrappers_are_refused(wrapper: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        wrap(cartpole(), wrapper, "Task x")


# ---- the task id ----

DRIFT = [{"physics": {"gravity": g}} for g in (9.8, 5.0, 9.8)]


def test_the_id_is_appended_to_a_flat_observation_after_its_permutation() -> None:
    swapped = [{"observations": "permuted"}] * 3
    plain, told = task(swapped), task(swapped, wrappers=[{"name": "task-id"}])
    for index in range(3):
        with_id, without = make_phase(told, 7, index), make_phase(plain, 7, index)
        observation = with_id.reset(seed=1)[0]
        assert observation.dtype == np.float32
        assert observation[:4].tolist() == without.reset(seed=1)[0].tolist()
        assert observation[4:].tolist() == np.eye(3)[index].tolist()
        assert with_id.step(0)[0][4:].tolist() == np.eye(3)[index].tolist()
        assert observation in with_id.observation_space


def test_around_a_stream_the_id_follows_the_phase() -> None:
    stream = TaskIdObservation(EnvironmentStream(task(DRIFT)))
    ids = [stream.reset(seed=0)[0][4:].tolist()]
    ids += [stream.reset(options={"phase": phase})[0][4:].tolist() for phase in (1, 2)]
    assert ids == [[1, 0], [0, 1], [1, 0]]


@needs("cv2")
def test_beside_an_image_the_id_is_in_a_dict() -> None:
    told = [{"name": "task-id"}, {"name": "atari"}]
    phases = [{"id": "ALE/Pong-v5"}, {"id": "ALE/Freeway-v5"}]
    kwargs = {"frameskip": 1, "full_action_space": True}
    environment = make_phase(task(phases, "", kwargs=kwargs, wrappers=told), 0, 1)
    observation = environment.reset(seed=0)[0]
    assert set(observation) == {"observation", "task_id"}
    assert observation["observation"].shape == (4, 84, 84)
    assert observation["task_id"].tolist() == [0.0, 1.0]
    assert observation in environment.observation_space
    stable_baselines3_check(environment, skip_render_check=True)


def test_a_dict_gets_one_more_key() -> None:
    space = cartpole().observation_space
    nested = TransformObservation(cartpole(), lambda seen: {"a": seen}, spaces.Dict({"a": space}))
    told: Any = TaskIdObservation(nested, task_id=1, tasks=2)
    first = told.reset(seed=0)[0]
    assert first["a"].tolist() == cartpole().reset(seed=0)[0].tolist()
    assert first["task_id"].tolist() == [0.0, 1.0]
    assert set(told.observation_space.spaces) == {"a", "task_id"}
    assert told.step(0)[0] in told.observation_space


@pytest.mark.filterwarnings(INFINITE)
def test_streams_with_ids_pass_both_checkers() -> None:
    inside = EnvironmentStream(task(DRIFT, wrappers=[{"name": "task-id"}]))
    gymnasium_check(inside, skip_render_check=True)
    for told in (inside, TaskIdObservation(EnvironmentStream(task(DRIFT)))):
        stable_baselines3_check(told, skip_render_check=True)


def test_a_task_id_that_nobody_tells_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"give tasks="):
        TaskIdObservation(cartpole())
    for wrong in (None, 2):
        with pytest.raises(UsageError, match=rf"task_id = {wrong} .* one of 0 to 1"):
            TaskIdObservation(cartpole(), task_id=wrong, tasks=2).reset()


def test_a_wrapped_environments_spec_makes_it_again() -> None:
    made = TaskIdObservation(cartpole(), task_id=1, tasks=3)
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(made.spec.to_json()))
    assert (again.reset(seed=0)[0] == made.reset(seed=0)[0]).all()
