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
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_for_agents

from ht_bench.envs import data_stream
from ht_bench.envs.data_stream import DataStreamEnv
from ht_bench.envs.ids import environment_id
from ht_bench.envs.vector import NO_LABEL, DataStreamVectorEnv
from ht_bench.envs.wrappers import TaskIdObservation
from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.data import load
from ht_bench.streams.dataset import Dataset, make_dataset
from ht_bench.streams.stream import Stream, planned_steps
from ht_bench.streams.task import Task, parse_task
from ht_bench.training.batches import Examples, Images, PhaseBatches

Phases = list[dict[str, Any]]

WARM_START: Phases = [{"new": 0.5, "wrong": 0.5, "updates": 5}, {"new": 0.5, "epochs": 2}]
STREAMS: dict[str, tuple[str, Phases]] = {
    "warm-start": ("warm-start", WARM_START),
    "augmented": ("warm-start", [{**phase, "augment": True} for phase in WARM_START]),
    "kept": ("continual", [{"new": 0.5, "updates": 7}, {"new": 0.5, "keep": 0.3, "epochs": 1}]),
    "permuted": ("permuted", [{"new": 1.0, "inputs": "permuted", "updates": 9}]),
    "renamed": (
        "permuted",
        [
            {"new": 1.0, "epochs": 1},
            {"labels": "permuted", "inputs": "permuted", "augment": True, "updates": 3},
        ],
    ),
    "shuffled": ("shuffled", [{"new": 1.0, "labels": "random", "updates": 4}]),
    "classes": ("class-incremental", [{"classes": 2, "updates": 6}, {"classes": 1, "epochs": 2}]),
}
BATCH, TRAIN = 16, 60


def small_task(kind: str, **data: Any) -> Task:
    """A stream of digits of a few updates; its batches of 16 leave partial ones."""
    family, phases = STREAMS[kind]
    table = {
        "name": f"{kind}-v1",
        "family": family,
        "data": {"name": "digits", "train": TRAIN, **data},
        "net": {"name": "mlp"},
        "optimizer": {"lr": 1e-3},
        "training": {"batch": BATCH},
        "phases": phases,
    }
    task = parse_task(table, kind)
    assert isinstance(task, Task)
    return task


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Made-up images of three channels, each with its own mean, instead of digits."""
    draw = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        images = draw.integers(0, 86, (count, 3, 5, 6)) * np.arange(1, 4)[:, None, None]
        return images.astype(np.uint8), np.arange(count) % 3

    data = make_dataset("digits", part(200), part(30), 3)
    monkeypatch.setattr(data_stream, "load", lambda name: data)
    return data


def shipped(*datasets: str) -> list[str]:
    tasks = {name: get_task(name) for name in task_files()}
    return [n for n, task in tasks.items() if isinstance(task, Task) and task.data.name in datasets]


def walk(env: DataStreamEnv, steps: int) -> tuple[np.ndarray, list[dict[str, Any]], list[bool]]:
    """Answer class 0 to the present example and `steps - 1` more; reset where an episode ends."""
    seen, infos, ends = [], [], []
    observation = env._cursor.observe(1)[0]
    for _ in range(steps):
        seen.append(observation)
        observation, _, terminated, truncated, info = env.step(np.int64(0))
        assert terminated is False
        infos.append(info)
        ends.append(truncated)
        if truncated:
            assert not observation.any()
            observation, _ = env.reset()
    return np.stack(seen), infos, ends


# ---- what Gymnasium and stable-baselines3 demand ----


@pytest.mark.parametrize("examples", ["train", "test"])
@pytest.mark.parametrize("name", shipped("digits"))
def test_both_checkers_are_silent(name: str, examples: str) -> None:
    env = gymnasium.make(environment_id(name), examples=examples)
    check_env(env.unwrapped)
    check_for_agents(env.unwrapped)


@pytest.mark.parametrize("name", shipped("mnist", "cifar10"))
def test_both_checkers_are_silent_on_images(name: str, real_data_cache: object) -> None:
    env = gymnasium.make(environment_id(name))
    check_env(env.unwrapped)
    check_for_agents(env.unwrapped)


def test_images_keep_their_shape_when_asked() -> None:
    env = gymnasium.make("ht_bench/WarmStartDigits-v1", shape="image", render_mode="rgb_array")
    check_env(env.unwrapped)
    flat = gymnasium.make("ht_bench/WarmStartDigits-v1")
    image = env.reset(seed=1)[0]
    assert image.shape == (1, 8, 8)
    assert (image.ravel() == flat.reset(seed=1)[0]).all()


@pytest.mark.parametrize("name", shipped("digits"))
def test_a_spec_that_went_through_json_makes_the_same_environment(name: str) -> None:
    env = gymnasium.make(environment_id(name), split="validation", examples="test")
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
    env = DataStreamVectorEnv(task, split, shape="image")
    seen, infos = env.reset(seed=7)
    assert env.phase_lengths == planned_steps(stream)
    for index, steps in enumerate(planned_steps(stream)):
        batches = PhaseBatches([stream], index, images)
        per_epoch = -(-batches.examples // task.training.batch)
        for step in range(steps):
            inputs, labels = batches.batch(*divmod(step, per_epoch))
            count = inputs.shape[1]
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
    task = small_task(kind)
    env, vector = DataStreamEnv(task), DataStreamVectorEnv(task)
    env.reset(seed=7)
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
        assert [info["label"] for info in infos] == labels[0].tolist()
        assert [info["true_label"] for info in infos] == labels[0].tolist()
        assert {info["phase"] for info in infos} == {index}
        assert ends == [False] * (batches.examples - 1) + [True]
        assert (vector._cursor.observe(64) == seen[:64]).all()


def test_wrong_labels_are_rewarded_and_true_ones_told() -> None:
    task, data = small_task("warm-start"), load("digits")
    env = DataStreamEnv(task)
    env.reset(seed=7)
    _, infos, _ = walk(env, TRAIN // 2)
    wrong = [info["label"] != info["true_label"] for info in infos]
    assert sum(wrong) == TRAIN // 4
    stream = Stream(task, data, 7)
    order = stream.phase(0).indices[stream.order(0, 0)]
    assert [info["true_label"] for info in infos] == data.train_labels[order].tolist()
    for choice in ("label", "true_label"):
        env.reset(seed=7)
        rewards = [env.step(np.int64(info[choice]))[1] for info in infos]
        assert all(isinstance(reward, float) for reward in rewards)
        assert rewards == [float(info[choice] == info["label"]) for info in infos]


def test_task_ids_tell_which_phases_ask_for_the_same() -> None:
    for name, ids in (
        ("continual-digits-v1", [0] * 10),
        ("permuted-digits-v1", list(range(30))),
        ("shuffled-digits-v1", list(range(20))),
    ):
        env = gymnasium.make(environment_id(name))
        env.reset(seed=1)
        phases = range(len(ids))
        assert [env.reset(options={"phase": k})[1]["task_id"] for k in phases] == ids
        one_hot = TaskIdObservation(env)
        assert one_hot.reset(options={"phase": 3})[0][64:].argmax() == ids[3]
        assert one_hot.observation_space.shape == (64 + max(ids) + 1,)
        check_for_agents(one_hot)


def test_permuted_label_names_are_true_and_random_labels_too() -> None:
    data = load("digits")
    for kind, index in (("renamed", 1), ("shuffled", 0)):
        env = DataStreamEnv(small_task(kind))
        env.reset(seed=7, options={"phase": index})
        _, infos, _ = walk(env, TRAIN)
        assert all(info["label"] == info["true_label"] for info in infos)
        stream = Stream(small_task(kind), data, 7)
        order = stream.phase(index).indices[stream.order(index, 0)]
        own = data.train_labels[order].tolist()
        assert [info["true_label"] for info in infos] != own


def test_a_seed_is_a_stream() -> None:
    task = small_task("augmented")

    def trajectory(seed: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
        env = DataStreamEnv(task)
        env.reset(seed=seed)
        return walk(env, 150)[:2]

    seen, infos = trajectory(7)
    again, infos_again = trajectory(7)
    other, _ = trajectory(8)
    assert (seen == again).all() and infos == infos_again
    assert not (seen == other).all()


def test_no_seed_draws_one() -> None:
    task = small_task("warm-start")
    draws = []
    for _ in range(2):
        env = DataStreamEnv(task)
        env.np_random = np.random.default_rng(5)
        draws.append(env.reset()[0])
    assert (draws[0] == draws[1]).all()
    seeds = set()
    for _ in range(3):
        env = DataStreamEnv(task)
        env.reset()
        seeds.add(env._cursor._stream.seed)
    assert len(seeds) == 3
    vector = DataStreamVectorEnv(task)
    assert vector.reset()[0].any()


# ---- episodes, phases, resets ----


def test_a_phase_lasts_as_many_examples_as_the_budget() -> None:
    """Half of 60 in batches of 16 and 14: five updates see 76; two epochs of all 60 see 120."""
    env = DataStreamEnv(small_task("warm-start"))
    _, first = env.reset(seed=7)
    assert first == {"phase": 0, "task_id": 0, "phase_step": 0, "phase_changed": False}
    assert env.phase_lengths == [76, 120]
    _, infos, ends = walk(env, 76 + 120 + 90)
    assert [at + 1 for at, end in enumerate(ends) if end] == [30, 60, 76, 136, 196, 256]
    assert [info["phase"] for info in infos] == [0] * 76 + [1] * 210
    assert [info["phase_step"] for info in infos] == [*range(1, 77), *range(1, 211)]
    assert not any(info["phase_changed"] for info in infos)


def test_every_info_has_the_same_keys() -> None:
    env = DataStreamEnv(small_task("renamed"))
    _, info = env.reset(seed=7)
    constant = {"phase", "task_id", "phase_step", "phase_changed"}
    assert set(info) == constant
    _, infos, _ = walk(env, 80)
    for found in infos:
        assert set(found) == constant | {"label", "true_label"}
        assert type(found["phase_changed"]) is bool
        assert all(type(v) is int for key, v in found.items() if key != "phase_changed")
    assert infos[0]["task_id"] == 0 and infos[-1]["task_id"] == 1


def test_a_plain_reset_in_an_episode_begins_it_again() -> None:
    env = DataStreamEnv(small_task("augmented"))
    first, _ = env.reset(seed=7)
    walk(env, 75)
    assert env.step(np.int64(0))[-1]["phase_changed"] is False
    begun, info = env.reset()
    assert info == {"phase": 1, "task_id": 0, "phase_step": 0, "phase_changed": True}
    walk(env, 59)
    again, info = env.reset()
    assert (again == begun).all()
    assert info["phase_step"] == 0 and info["phase_changed"] is False
    walk(env, 60)
    _, info = env.reset()
    assert info["phase_step"] == 60 and info["phase_changed"] is False
    restarted, info = env.reset(seed=7)
    assert (restarted == first).all()
    assert info == {"phase": 0, "task_id": 0, "phase_step": 0, "phase_changed": False}


def test_a_reset_may_go_to_a_phase() -> None:
    env = DataStreamEnv(small_task("warm-start"))
    env.reset(seed=7)
    walk(env, 76)
    begun, _ = env.reset()
    walk(env, 70)
    jumped, info = env.reset(options={"phase": 1})
    assert (jumped == begun).all()
    assert info["phase_step"] == 0 and info["phase_changed"] is False
    assert env.reset(options={"phase": np.int64(0)})[1]["phase_changed"] is True
    straight, info = env.reset(seed=7, options={"phase": 1})
    assert (straight == begun).all() and info["phase_changed"] is False
    assert env.reset(options={})[1]["phase"] == 1


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
    env = form(small_task("warm-start"))
    env.reset(seed=7)
    env.step(env.action_space.sample())
    before = env._cursor.info()
    with pytest.raises(UsageError, match=sentence):
        env.reset(options=options)
    assert env._cursor.info() == before


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
def test_wrong_arguments_get_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    for form in (DataStreamEnv, DataStreamVectorEnv):
        with pytest.raises(UsageError, match=sentence):
            form(**{"task": "warm-start-digits-v1", **arguments})


def test_what_has_no_open_episode_cannot_be_stepped() -> None:
    env, vector = DataStreamEnv(small_task("warm-start")), DataStreamVectorEnv("shuffled-digits-v1")
    for form, action in ((env, np.int64(1)), (vector, np.zeros(64, int))):
        with pytest.raises(UsageError, match="call reset"):
            form.step(action)
        with pytest.raises(UsageError, match="call reset"):
            form.phase_lengths  # noqa: B018
    env.reset(seed=7)
    for _ in range(30):
        env.step(np.int64(1))
    with pytest.raises(UsageError, match="call reset"):
        env.step(np.int64(1))


@pytest.mark.parametrize("action", [10, -1, 0.5])
def test_what_is_no_class_is_refused(action: Any) -> None:
    env = DataStreamEnv(small_task("warm-start"))
    env.reset(seed=7)
    with pytest.raises(UsageError, match="is no class of digits; give 0 to 9"):
        env.step(action)
    assert env._cursor.position == 0


def test_what_is_rendered_is_the_example(colours: Dataset) -> None:
    env = DataStreamEnv(small_task("warm-start"), render_mode="rgb_array")
    empty = env.render()
    assert empty is not None and not empty.any()
    env.reset(seed=7)
    stream = Stream(small_task("warm-start"), colours, 7)
    index = stream.phase(0).indices[stream.order(0, 0)[0]]
    assert (env.render() == colours.train_images[index].transpose(1, 2, 0)).all()
    for _ in range(30):
        env.step(np.int64(0))
    assert not env.render().any()
    assert DataStreamEnv(small_task("warm-start")).render() is None
    with pytest.raises(UsageError, match="Unknown render_mode 'human'"):
        DataStreamEnv(small_task("warm-start"), render_mode="human")


# ---- the vector form ----


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
    task = small_task("warm-start")
    env, single = DataStreamVectorEnv(task, num_envs=7), DataStreamEnv(task)
    env.reset(seed=7)
    single.reset(seed=7)
    assert env.phase_lengths == [5 + 5 + 3, 9 + 9]
    labels: list[int] = []
    for _ in range(13 + 18):
        infos = env.step(np.zeros(7, np.int64))[-1]
        labels += infos["label"][infos["label"] != NO_LABEL].tolist()
    assert labels == [info["label"] for info in walk(single, 76 + 120)[1]]


def test_a_plain_reset_of_the_vector_form_keeps_the_stream() -> None:
    env = DataStreamVectorEnv(small_task("warm-start"))
    first, _ = env.reset(seed=7)
    env.step(np.zeros(BATCH, np.int64))
    assert (env.reset()[0] == first).all()
    second = env.reset(options={"phase": 1})[0]
    assert (env.reset(seed=7, options={"phase": 1})[0] == second).all()


def test_the_vector_form_resets_itself_and_says_so() -> None:
    env = DataStreamVectorEnv(small_task("warm-start"))
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    _, infos = env.reset(seed=7)
    zeros = np.zeros(BATCH, np.int64)
    steps = [env.step(zeros) for _ in range(5)]
    assert [infos["phase_step"][0] for *_, infos in steps] == [16, 30, 46, 60, 0]
    *_, truncations, infos = steps[4]
    assert truncations.all()
    assert (infos["phase"] == 1).all() and infos["phase_changed"].all()
    assert infos["valid"].all() and infos["label"].min() >= 0
    final = infos["final_info"]
    assert not final["phase_changed"].any()
    assert not env.step(zeros)[-1]["phase_changed"].any()
    assert (final["phase"] == 0).all() and (final["phase_step"] == 76).all()
    assert not final["valid"].any() and not infos["final_obs"].any()
    assert (final["label"] == infos["label"]).all()
    assert infos["_final_obs"].all() and infos["_final_info"].all()
    listed = gymnasium.wrappers.vector.DictInfoToList(env)
    _, rows = listed.reset(seed=7)
    assert [row["valid"] for row in rows] == [True] * BATCH


def test_rows_without_an_example_earn_nothing_and_may_be_answered_with_anything() -> None:
    env = DataStreamVectorEnv(small_task("warm-start"))
    env.reset(seed=7)
    _, _, _, _, infos = env.step(np.zeros(BATCH, np.int64))
    assert infos["valid"].tolist() == [True] * 14 + [False] * 2
    single = DataStreamEnv(small_task("warm-start"))
    single.reset(seed=7)
    labels = [info["label"] for info in walk(single, 30)[1]][16:]
    _, rewards, _, truncations, infos = env.step(np.array([*labels, -5, 99]))
    assert rewards.tolist() == [1.0] * 14 + [0.0] * 2
    assert infos["label"].tolist() == [*labels, NO_LABEL, NO_LABEL]
    assert infos["true_label"][14:].tolist() == [NO_LABEL] * 2
    assert truncations.all()


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        (np.zeros(15, int), r"int64 \[15\]; give whole numbers, \[16\]"),
        (np.zeros(16), r"float64 \[16\]"),
        (np.full(16, 10), "10 is no class of digits"),
        (np.full(16, -1), "-1 is no class"),
    ],
)
def test_wrong_actions_are_refused_and_nothing_moves(actions: np.ndarray, sentence: str) -> None:
    env = DataStreamVectorEnv(small_task("warm-start"))
    env.reset(seed=7)
    with pytest.raises(UsageError, match=sentence):
        env.step(actions)
    assert env._cursor.position == 0


def test_rows_have_no_seeds_of_their_own() -> None:
    with pytest.raises(UsageError, match="share one stream"):
        DataStreamVectorEnv("warm-start-digits-v1").reset(seed=[1, 2])
