"""Streams of data as environments: the training loop's data and labels, step by step."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_for_agents

from ht_bench.envs.data_stream import DataStreamEnv
from ht_bench.envs.ids import environment_id
from ht_bench.envs.vector import DataStreamVectorEnv
from ht_bench.envs.wrappers import TaskIdObservation
from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.data import load
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.stream import Stream, planned_steps
from ht_bench.streams.task import Task
from ht_bench.training.batches import Batches, Examples, Images

from .conftest import BATCH, STREAMS, TRAIN, begun, position, small_task, walk

TASKS = {name: get_task(name) for name in task_files()}
DIGITS = [n for n, t in TASKS.items() if isinstance(t, Task) and t.data.name == "digits"]

# ---- what Gymnasium and stable-baselines3 demand; test_registered.py checks the training form ----


def test_images_keep_their_shape_when_asked() -> None:
    env = gymnasium.make("ht_bench/WarmStartDigits-v1", shape="image", render_mode="rgb_array")
    check_env(env.unwrapped)
    flat = gymnasium.make("ht_bench/WarmStartDigits-v1")
    image = env.reset(seed=1)[0]
    assert image.shape == (1, 8, 8)
    assert (image.ravel() == flat.reset(seed=1)[0]).all()


@pytest.mark.parametrize("name", DIGITS)
def test_the_test_form_passes_both_checkers_and_is_made_again_from_json(name: str) -> None:
    env = gymnasium.make(environment_id(name), split="validation", examples="test")
    check_env(env.unwrapped)
    check_for_agents(env.unwrapped)
    again = gymnasium.make(EnvSpec.from_json(json.loads(json.dumps(env.spec.to_json()))))
    assert again.spec == env.spec
    vector = gymnasium.make_vec(environment_id(name), num_envs=3, split="validation")
    vector_again = gymnasium.make_vec(EnvSpec.from_json(vector.spec.to_json()))
    assert vector_again.num_envs == 3
    for one, other in ((env, again), (vector, vector_again)):
        assert (one.reset(seed=5)[0] == other.reset(seed=5)[0]).all()


# ---- the same data as the stream and the training loop ----


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("kind", STREAMS)
def test_steps_of_the_vector_form_are_the_training_loops(kind: str, split: Any) -> None:
    check_against_the_loop(small_task(kind), load("digits"), split)


@pytest.mark.parametrize("kind", ["augmented", "permuted", "renamed"])
def test_channels_are_the_training_loops(kind: str, colours: Dataset) -> None:
    check_against_the_loop(small_task(kind), colours, "test")


def test_real_images_are_the_training_loops(real_data_cache: object) -> None:
    task = get_task("warm-start-aug-cifar10-v1")
    assert isinstance(task, Task)
    phases = tuple(dataclasses.replace(p, epochs=None, updates=3) for p in task.phases)
    check_against_the_loop(dataclasses.replace(task, phases=phases), load("cifar10"), "test")


def check_against_the_loop(task: Task, data: Dataset, split: Any) -> None:
    """Inputs bit for bit, labels, order and partial batches, through step alone."""
    stream, images = Stream(task, data, 7, split), Images(data, "cpu")
    batches = Batches([stream], images)
    env = DataStreamVectorEnv(task, split, shape="image")
    seen, infos = env.reset(seed=7)
    assert env.phase_lengths == planned_steps(stream)
    for index, steps in enumerate(planned_steps(stream)):
        batches.open(index)
        per_epoch = -(-batches.examples.examples // task.training.batch)
        for step in range(steps):
            count = batches.seek(step)
            inputs, labels = batches.take(count)
            assert (infos["phase"] == index).all()
            assert infos["valid"].sum() == count and infos["valid"][:count].all()
            assert (seen[:count] == inputs[0].numpy()).all()
            assert not seen[count:].any()
            assert seen in env.observation_space
            seen, _, terminations, truncations, infos = env.step(np.zeros(env.num_envs, np.int64))
            assert (infos["label"][:count] == labels[0].numpy()).all()
            assert not terminations.any()
            assert truncations.all() == ((step + 1) % per_epoch == 0 or step + 1 == steps)


@pytest.mark.parametrize("kind", STREAMS)
def test_the_single_form_serves_the_same_examples(kind: str) -> None:
    env, vector = begun(kind=kind), DataStreamVectorEnv(small_task(kind))
    batch, infos = vector.reset(seed=7)
    for _ in range(sum(vector.phase_lengths)):
        valid = infos["valid"]
        one_by_one, singly, _ = walk(env, int(valid.sum()))
        assert (one_by_one == batch[valid]).all()
        batch, _, _, _, infos = vector.step(np.zeros(BATCH, np.int64))
        for key in ("label", "true_label"):
            assert [info[key] for info in singly] == infos[key][valid].tolist()


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("kind", STREAMS)
def test_the_test_form_serves_what_the_loop_tests_on(kind: str, split: Any) -> None:
    task, data = small_task(kind), load("digits")
    stream = Stream(task, data, 7, split)
    env = DataStreamEnv(task, split, "test")
    vector = DataStreamVectorEnv(task, split, "test", num_envs=64)
    env.reset(seed=7)
    for index in range(len(task.phases)):
        vector.reset(seed=7, options={"phase": index})
        batches = Examples([stream.test(index)], Images(data, "cpu"))
        inputs, labels = batches.slice(0, batches.examples)
        assert env.phase_lengths[index] == batches.examples
        seen, infos, ends = walk(env, batches.examples)
        assert (seen == inputs[0].flatten(1).numpy()).all()
        for key in ("label", "true_label"):
            assert [info[key] for info in infos] == labels[0].tolist()
        assert {info["phase"] for info in infos} == {index}
        assert ends == [False] * (batches.examples - 1) + [True]
        assert (vector._cursor.observe(64) == seen[:64]).all()


def own_labels(kind: str, index: int) -> list[int]:
    """The dataset's labels of a phase's first epoch, in the stream's order."""
    stream = Stream(small_task(kind), load("digits"), 7)
    order = stream.phase(index).indices[stream.order(index, 0)]
    return stream.data.train_labels[order].tolist()


def test_wrong_labels_are_rewarded_and_true_ones_told() -> None:
    env = begun()
    _, infos, _ = walk(env, TRAIN // 2)
    assert sum(info["label"] != info["true_label"] for info in infos) == TRAIN // 4
    assert [info["true_label"] for info in infos] == own_labels("warm-start", 0)
    for choice in ("label", "true_label"):
        env.reset(seed=7)
        rewards = [env.step(np.int64(info[choice]))[1] for info in infos]
        assert all(isinstance(reward, float) for reward in rewards)
        assert rewards == [float(info[choice] == info["label"]) for info in infos]


@pytest.mark.parametrize(("kind", "index"), [("renamed", 1), ("shuffled", 0)])
def test_permuted_label_names_are_true_and_random_labels_too(kind: str, index: int) -> None:
    env = begun(kind=kind)
    env.reset(options={"phase": index})
    _, infos, _ = walk(env, TRAIN)
    assert all(info["label"] == info["true_label"] for info in infos)
    assert [info["true_label"] for info in infos] != own_labels(kind, index)


@pytest.mark.parametrize(
    ("name", "ids"),
    [("continual", [0] * 10), ("permuted", list(range(30))), ("shuffled", list(range(20)))],
)
def test_task_ids_tell_which_phases_ask_for_the_same(name: str, ids: list[int]) -> None:
    env = gymnasium.make(environment_id(f"{name}-digits-v1"))
    env.reset(seed=1)
    assert [env.reset(options={"phase": k})[1]["task_id"] for k in range(len(ids))] == ids
    one_hot = TaskIdObservation(env)
    assert one_hot.reset(options={"phase": 3})[0][64:].argmax() == ids[3]
    assert one_hot.observation_space.shape == (64 + max(ids) + 1,)
    check_for_agents(one_hot)


def test_a_seed_is_a_stream() -> None:
    walks = [walk(begun(kind="augmented", seed=seed), 150) for seed in (7, 7, 8)]
    (seen, infos, _), (again, infos_again, _), (other, *_) = walks
    assert (seen == again).all() and infos == infos_again
    assert not (seen == other).all()


def test_no_seed_draws_one() -> None:
    draws, seeds = [], set()
    for _ in range(3):
        env = DataStreamEnv(small_task())
        env.reset()
        seeds.add(env._cursor._stream.seed)
        env = DataStreamEnv(small_task())
        env.np_random = np.random.default_rng(5)
        draws.append(env.reset()[0].tolist())
    assert len(seeds) == 3 and draws == draws[:1] * 3
    assert DataStreamVectorEnv(small_task()).reset()[0].any()


# ---- episodes, phases, resets ----


def test_a_phase_lasts_as_many_examples_as_the_budget() -> None:
    """Half of 60 in batches of 16 and 14: five updates see 76; two epochs of all 60 see 120."""
    env = DataStreamEnv(small_task())
    assert env.reset(seed=7)[1] == position(0, 0, False)
    assert env.phase_lengths == [76, 120]
    _, infos, ends = walk(env, 76 + 120 + 90)
    assert [at + 1 for at, end in enumerate(ends) if end] == [30, 60, 76, 136, 196, 256]
    assert [info["phase"] for info in infos] == [0] * 76 + [1] * 210
    assert [info["phase_step"] for info in infos] == [*range(1, 77), *range(1, 211)]
    assert not any(info["phase_changed"] for info in infos)


def test_every_info_has_the_same_keys() -> None:
    env = DataStreamEnv(small_task("renamed"))
    constant = env.reset(seed=7)[1].keys()
    assert constant == position(0, 0, False).keys()
    _, infos, _ = walk(env, 80)
    for info in infos:
        assert info.keys() == constant | {"label", "true_label"}
        assert all(type(v) is (bool if k == "phase_changed" else int) for k, v in info.items())
    assert infos[0]["task_id"] == 0 and infos[-1]["task_id"] == 1


def test_a_plain_reset_in_an_episode_begins_it_again() -> None:
    env = DataStreamEnv(small_task("augmented"))
    first, _ = env.reset(seed=7)
    walk(env, 75)
    assert env.step(np.int64(0))[-1]["phase_changed"] is False
    begin, info = env.reset()
    assert info == position(1, 0, True)
    walk(env, 59)
    again, info = env.reset()
    assert (again == begin).all() and info == position(1, 0, False)
    walk(env, 60)
    assert env.reset()[1] == position(1, 60, False)
    restarted, info = env.reset(seed=7)
    assert (restarted == first).all() and info == position(0, 0, False)


def test_a_reset_may_go_to_a_phase() -> None:
    env = begun()
    walk(env, 76)
    begin, _ = env.reset()
    walk(env, 70)
    for seed in (None, 7):
        jumped, info = env.reset(seed=seed, options={"phase": 1})
        assert (jumped == begin).all() and info == position(1, 0, False)
        if seed is None:
            assert env.reset(options={"phase": np.int64(0)})[1]["phase_changed"] is True
    assert env.reset(options={})[1]["phase"] == 1


# ---- wrong use ----


@pytest.mark.parametrize("form", [DataStreamEnv, DataStreamVectorEnv])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"phase": 2}, "phase = 2, but warm-start-v1 has phases 0 to 1"),
        ({"phase": -1}, "has phases 0 to 1"),
        ({"phase": "1"}, "phase = '1'; give a whole number from 0 to 1"),
        ({"phase": True}, "give a whole number"),
        ({"fase": 1}, "Unknown reset option 'fase'. Did you mean 'phase'"),
    ],
)
def test_wrong_options_are_refused_and_nothing_moves(
    form: type[DataStreamEnv], options: dict[str, Any], sentence: str
) -> None:
    env = begun(form)
    env.step(env.action_space.sample())
    before = env._cursor.info()
    with pytest.raises(UsageError, match=sentence):
        env.reset(options=options)
    assert env._cursor.info() == before


@pytest.mark.parametrize("form", [DataStreamEnv, DataStreamVectorEnv])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task": "warm-start-digit-v1"}, "Did you mean 'warm-start-digits-v1'"),
        ({"split": "valid"}, "Unknown split 'valid'. Did you mean 'validation'"),
        ({"examples": "tests"}, "Unknown examples 'tests'. Did you mean 'test'"),
        ({"shape": "flatt"}, "Unknown shape 'flatt'. Did you mean 'flat'"),
        ({"task": "swap-cartpole-dqn-v1"}, "swap-cartpole-dqn-v1 streams environments, not data"),
        ({"task": 3}, "3 is no task"),
    ],
)
def test_wrong_arguments_get_a_sentence(form: Any, arguments: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        form(**{"task": "warm-start-digits-v1", **arguments})


def test_what_has_no_open_episode_cannot_be_stepped() -> None:
    env, vector = DataStreamEnv(small_task()), DataStreamVectorEnv(small_task())
    for form, action in ((env, np.int64(1)), (vector, np.zeros(BATCH, int))):
        with pytest.raises(UsageError, match="call reset"):
            form.step(action)
        with pytest.raises(UsageError, match="call reset"):
            form.phase_lengths  # noqa: B018
    env.reset(seed=7)
    for _ in range(30):
        env.step(np.int64(1))
    with pytest.raises(UsageError, match="call reset"):
        env.step(np.int64(1))


@pytest.mark.parametrize(
    ("form", "action", "sentence"),
    [
        *[(DataStreamEnv, n, f"{n} is no class of digits; give 0 to 9") for n in (10, -1, 0.5)],
        (DataStreamVectorEnv, np.full(16, 10), "10 is no class of digits; give 0 to 9"),
        (DataStreamVectorEnv, np.full(16, -1), "-1 is no class of digits"),
        (DataStreamVectorEnv, np.zeros(15, int), r"int64 \[15\]; give whole numbers, \[16\]"),
        (DataStreamVectorEnv, np.zeros(16), r"float64 \[16\]"),
    ],
)
def test_wrong_actions_are_refused_and_nothing_moves(form: Any, action: Any, sentence: str) -> None:
    env = begun(form)
    with pytest.raises(UsageError, match=sentence):
        env.step(action)
    assert env._cursor.position == 0


# ---- rendering ----


def test_what_is_rendered_is_the_example(colours: Dataset) -> None:
    env = DataStreamEnv(small_task(), render_mode="rgb_array")
    empty = env.render()
    assert empty is not None and not empty.any()
    env.reset(seed=7)
    stream = Stream(small_task(), colours, 7)
    index = stream.phase(0).indices[stream.order(0, 0)[0]]
    assert (env.render() == colours.train_images[index].transpose(1, 2, 0)).all()
    for _ in range(30):
        env.step(np.int64(0))
    assert not env.render().any()
    assert DataStreamEnv(small_task()).render() is None
    with pytest.raises(UsageError, match="Unknown render_mode 'human'"):
        DataStreamEnv(small_task(), render_mode="human")
