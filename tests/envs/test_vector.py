"""The vector form of a stream of data: sizes, resets by itself, rows without an example."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from ht_bench.envs.data_stream import DataStreamEnv
from ht_bench.envs.vector import NO_LABEL, DataStreamVectorEnv
from ht_bench.errors import UsageError

from .conftest import BATCH, begun, small_task, walk

ZEROS = np.zeros(BATCH, np.int64)


def test_make_vec_serves_batches_of_any_size() -> None:
    for asked, got in ((None, 64), (1, 1), (7, 7)):
        env = gymnasium.make_vec("ht_bench/WarmStartDigits-v1", num_envs=asked)
        seen, infos = env.reset(seed=7)
        assert (env.num_envs, seen.shape, env.action_space.shape) == (got, (got, 64), (got,))
        assert {key: value.shape for key, value in infos.items()} == dict.fromkeys(infos, (got,))
    with pytest.raises(UsageError, match="num_envs = 0"):
        DataStreamVectorEnv("warm-start-digits-v1", num_envs=0)


def test_another_size_cuts_the_same_examples_otherwise() -> None:
    """76 and 120 examples in epochs of 30, 30, 16 and 60, 60, seven at a time."""
    env = DataStreamVectorEnv(small_task(), num_envs=7)
    env.reset(seed=7)
    assert env.phase_lengths == [5 + 5 + 3, 9 + 9]
    labels: list[int] = []
    for _ in range(13 + 18):
        infos = env.step(np.zeros(7, np.int64))[-1]
        labels += infos["label"][infos["label"] != NO_LABEL].tolist()
    assert labels == [info["label"] for info in walk(begun(), 76 + 120)[1]]


def test_a_plain_reset_keeps_the_stream() -> None:
    env = DataStreamVectorEnv(small_task())
    first, _ = env.reset(seed=7)
    env.step(ZEROS)
    assert (env.reset()[0] == first).all()
    second = env.reset(options={"phase": 1})[0]
    assert (env.reset(seed=7, options={"phase": 1})[0] == second).all()
    with pytest.raises(UsageError, match="share one stream"):
        env.reset(seed=[1, 2])


def test_the_vector_form_resets_itself_and_says_so() -> None:
    env = begun(DataStreamVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    steps = [env.step(ZEROS) for _ in range(5)]
    assert [infos["phase_step"][0] for *_, infos in steps] == [16, 30, 46, 60, 0]
    *_, truncations, infos = steps[4]
    assert truncations.all()
    assert (infos["phase"] == 1).all() and infos["phase_changed"].all()
    assert infos["valid"].all() and infos["label"].min() >= 0
    final = infos["final_info"]
    assert not final["phase_changed"].any()
    assert not env.step(ZEROS)[-1]["phase_changed"].any()
    assert (final["phase"] == 0).all() and (final["phase_step"] == 76).all()
    assert not final["valid"].any() and not infos["final_obs"].any()
    assert (final["label"] == infos["label"]).all()
    assert infos["_final_obs"].all() and infos["_final_info"].all()
    _, rows = gymnasium.wrappers.vector.DictInfoToList(env).reset(seed=7)
    assert [row["valid"] for row in rows] == [True] * BATCH


def test_rows_without_an_example_earn_nothing_and_may_be_answered_with_anything() -> None:
    env = begun(DataStreamVectorEnv)
    *_, infos = env.step(ZEROS)
    assert infos["valid"].tolist() == [True] * 14 + [False] * 2
    labels = [info["label"] for info in walk(begun(DataStreamEnv), 30)[1]][16:]
    _, rewards, _, truncations, infos = env.step(np.array([*labels, -5, 99]))
    assert rewards.tolist() == [1.0] * 14 + [0.0] * 2
    assert infos["label"].tolist() == [*labels, NO_LABEL, NO_LABEL]
    assert infos["true_label"][14:].tolist() == [NO_LABEL] * 2
    assert truncations.all()
