"""Vector forms in each of Gymnasium's autoreset modes, and in its vector wrappers."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as wrappers

from ht_bench.envs.rl_stream import EnvironmentStreams
from ht_bench.envs.vector import NO_LABEL, DataStreamVectorEnv
from ht_bench.errors import UsageError

from .conftest import BATCH, small_task, task

ZEROS = np.zeros(BATCH, np.int64)
PHASES = [{"steps": 40}, {"steps": 40, "physics": {"gravity": 5.0}}, {"steps": 40}]
MODES = [mode.value for mode in AutoresetMode]


def data(mode: Any = "NextStep") -> Any:
    return DataStreamVectorEnv(small_task(), autoreset_mode=mode)


def copies(mode: Any = "NextStep", count: int = 4) -> Any:
    return EnvironmentStreams(count, autoreset_mode=mode, task=task(PHASES))


# ---- streams of data ----


def served(mode: str) -> tuple[list[int], int]:
    """Return the labels of the whole stream, and the steps that it took."""
    env = data(mode)
    _, infos = env.reset(seed=7)
    labels: list[int] = []
    steps = sum(env.phase_lengths)
    for _ in range(steps):
        valid = infos["valid"]
        *_, truncations, infos = env.step(ZEROS)
        labels += infos["label"][valid].tolist()
        if mode == "Disabled" and truncations.all():
            _, infos = env.reset(options={"reset_mask": np.ones(BATCH, bool)})
    assert infos["phase"][0] == 1
    return labels, steps


def test_every_mode_serves_the_same_stream() -> None:
    same, steps = served("SameStep")
    assert served("Disabled") == (same, steps)
    assert served("NextStep") == (same, steps + 4)  # five epochs, four of which a step begins


def test_the_next_step_begins_an_epoch_whatever_its_actions() -> None:
    env = data()
    first, infos = env.reset(seed=7)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.step(ZEROS)
    seen, _, _, truncations, infos = env.step(ZEROS)
    assert truncations.all() and not seen.any() and not infos["valid"].any()
    assert infos["phase_step"][0] == 30 and "final_obs" not in infos
    seen, rewards, terminations, truncations, infos = env.step(ZEROS - 5)
    assert not (truncations.any() or terminations.any() or rewards.any())
    assert (infos["label"] == NO_LABEL).all() and (infos["true_label"] == NO_LABEL).all()
    assert infos["valid"].all() and seen.any() and seen.shape == first.shape
    assert infos["phase_step"][0] == 30


def test_where_it_is_disabled_a_reset_is_asked_for() -> None:
    env = data("DISABLED")
    env.reset(seed=7)
    for _ in range(2):
        env.step(ZEROS)
    with pytest.raises(UsageError, match=r"autoreset is disabled; call reset\(\)"):
        env.step(ZEROS)
    with pytest.raises(UsageError, match="reset_mask must be True in all rows"):
        env.reset(options={"reset_mask": np.arange(BATCH) < 3})
    _, infos = env.reset()
    assert infos["phase_step"][0] == 30


# ---- streams of environments ----


@pytest.mark.parametrize("mode", MODES)
def test_copies_change_phase_together(mode: str) -> None:
    env = copies(mode)
    env.action_space.seed(0)
    _, infos = env.reset(seed=7)
    boundaries, episodes = [], 0
    for step in range(1, 3 * env.phase_lengths[0] + 1):
        before = infos["phase"]
        *_, terminations, truncations, infos = env.step(env.action_space.sample())
        ended = terminations | truncations
        episodes += int(ended.sum())
        if mode == "Disabled" and ended.any():
            _, later = env.reset(options={"reset_mask": ended})
            infos["phase"] = np.where(ended, later["phase"], infos["phase"])
        if (infos["phase"] != before).any():
            boundaries.append(step)
    assert infos["phase"].tolist() == [2] * 4 and episodes > 8
    late = {"NextStep": {10, 11, 20, 21}}.get(mode, {10, 20})  # a reset takes the step after
    assert set(boundaries) <= late and len(boundaries) >= 2


def test_resets_that_take_steps_count_in_the_phase() -> None:
    """However many episodes each copy has had, all stand at the same step."""
    env = copies(count=3)
    env.action_space.seed(1)
    env.reset(seed=7)
    for step in range(1, 14):
        *_, infos = env.step(env.action_space.sample())
        expected = step if step < 14 else 14
        assert (infos["phase_step"] + 14 * infos["phase"] == expected).all()


def test_a_phase_whose_last_step_is_a_reset_gives_way_to_the_next() -> None:
    env = copies(count=1)
    env.reset(seed=7)
    stream = env.envs[0]
    stream._phase_step = 39
    env._autoreset_envs[:] = True
    *_, truncations, infos = env.step(np.zeros(1, np.int64))
    assert not truncations.any()
    assert (infos["phase"][0], infos["phase_step"][0]) == (1, 0)


def test_a_copy_that_is_over_must_be_reset_where_autoreset_is_disabled() -> None:
    env = copies("Disabled", 1)
    env.reset(seed=7)
    while not any(ended.any() for ended in env.step(np.zeros(1, np.int64))[2:4]):
        pass
    with pytest.raises(UsageError, match="autoreset is disabled"):
        env.step(np.zeros(1, np.int64))


# ---- Gymnasium's wrappers ----

WRAPPERS: list[Any] = [
    wrappers.NormalizeObservation,
    wrappers.NormalizeReward,
    wrappers.RecordEpisodeStatistics,
    wrappers.FlattenObservation,
    lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward),
    wrappers.DictInfoToList,
]


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("form", [data, copies])
def test_every_vector_wrapper_takes_the_next_step_form(form: Any, wrap: Any) -> None:
    env = wrap(form())
    env.action_space.seed(0)
    env.reset(seed=7)
    for _ in range(25):
        seen, rewards, *_ = env.step(env.action_space.sample())
        assert np.isfinite(seen).all() and np.isfinite(rewards).all()
        assert seen.shape == env.observation_space.shape


@pytest.mark.parametrize("name", ["WarmStartDigits-v1", "SwapCartPoleDQN-v1"])
def test_make_vec_takes_the_mode(name: str) -> None:
    env = gymnasium.make_vec(f"ht_bench/{name}", num_envs=4, autoreset_mode="NextStep")
    assert wrappers.NormalizeObservation(env).reset(seed=1)[0].shape[0] == 4
    assert gymnasium.make_vec(f"ht_bench/{name}", num_envs=2).metadata["autoreset_mode"] is (
        AutoresetMode.SAME_STEP
    )
    with pytest.raises(UsageError, match=r'autoreset_mode = \'Next\'; give one of "NextStep"'):
        gymnasium.make_vec(f"ht_bench/{name}", num_envs=4, autoreset_mode="Next")


# ---- bounds and seeds ----


class Unbounded(gymnasium.Env[Any, Any]):
    """The largest floats stand for no bounds, as in many environments."""

    observation_space = spaces.Box(
        np.array([-3.4028235e38, -1, -np.inf], np.float32),
        np.array([3.4028235e38, 1, np.inf], np.float32),
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}


gymnasium.register("Unbounded-v0", lambda: Unbounded())


def test_infinite_bounds_are_said_as_such() -> None:
    plain, permuted = (
        EnvironmentStreams(1, task=task(phases, "Unbounded-v0")).single_observation_space
        for phases in ([{}], [{"observations": "permuted"}])
    )
    assert plain.low.tolist() == [-np.inf, -1, -np.inf]
    assert plain.high.tolist() == [np.inf, 1, np.inf]
    assert permuted.low.tolist() == [-np.inf] * 3
    stream = gymnasium.make("ht_bench/SwapCartPoleDQN-v1")
    assert np.isinf(stream.observation_space.low).all()
    with pytest.raises(ValueError, match="infinity bounds"):  # and no −6e-08
        gymnasium.wrappers.RescaleObservation(stream, np.float32(-1), np.float32(1))


@pytest.mark.parametrize("seed", [np.int64(5), np.uint8(5)])
@pytest.mark.parametrize("name", ["WarmStartDigits-v1", "DriftCartPolePPO-v1"])
def test_seeds_may_be_numpys(name: str, seed: Any) -> None:
    for env in (
        gymnasium.make(f"ht_bench/{name}"),
        gymnasium.make_vec(f"ht_bench/{name}", num_envs=2),
    ):
        assert (env.unwrapped.reset(seed=seed)[0] == env.unwrapped.reset(seed=5)[0]).all()
        for wrong in ("5", 5.0, -1, True):
            with (
                warnings.catch_warnings(),
                pytest.raises(UsageError, match="give a whole number, 0 or more"),
            ):
                env.unwrapped.reset(seed=wrong)
