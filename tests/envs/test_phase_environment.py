"""The environment of a phase: permutations, physics, spaces, and sentences for what is wrong."""

from typing import Any
from unittest.mock import Mock

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ht_bench.envs.permutations import phase_order
from ht_bench.envs.phase_environment import make_phase, task_ids
from ht_bench.errors import UsageError
from ht_bench.streams.catalog import task_files
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import load_task

from .conftest import SWAPPED, extras, needs, task

GAME = {"kwargs": {"frameskip": 1}, "wrappers": [{"name": "atari"}]}
ONE_GAME = "atari-100k-pong-v1"
"""The 26 games differ in their ids alone; the 25 others are made under --evidence."""


def drift(**physics: Any) -> ReinforcementTask:
    return task([{}, {}, {"physics": physics}])


def game(**kwargs: Any) -> ReinforcementTask:
    return task([{}, {"kwargs": kwargs}], "ALE/Breakout-v5")


# ---- permutations ----


@pytest.mark.parametrize("seed", [0, 100, 101, 2**70])
def test_no_phase_has_the_order_of_the_one_before(seed: int) -> None:
    stream = task([{}, *[SWAPPED] * 12])
    for what, count in (("observations", 4), ("observations", 3), ("actions", 2)):
        orders = [phase_order(stream, seed, i, what, count) for i in range(13)]  # type: ignore[arg-type]
        assert orders[0].tolist() == list(range(count))
        for order, before in zip(orders[1:], orders[:-1], strict=True):
            assert sorted(order) == list(range(count))
            assert order.tolist() != before.tolist()


def test_two_actions_alternate_and_phase_0_may_have_either_order() -> None:
    stream = task([{"actions": "permuted"}] * 6)
    firsts = set()
    for seed in range(12):
        orders = [phase_order(stream, seed, i, "actions", 2).tolist() for i in range(6)]
        assert orders == [orders[0], orders[1]] * 3
        firsts.add(tuple(orders[0]))
    assert firsts == {(0, 1), (1, 0)}


def test_orders_belong_to_task_seed_and_phase() -> None:
    stream, other = task([SWAPPED] * 3), task([SWAPPED] * 3, kwargs={"max_episode_steps": 9})
    drawn = [phase_order(stream, 100, i, "observations", 30).tolist() for i in range(3)]
    again = [phase_order(other, 100, i, "observations", 30).tolist() for i in (2, 1, 0)]
    assert drawn == again[::-1]
    assert all(phase_order(stream, s, 0, "observations", 30).tolist() != drawn[0] for s in (1, 101))
    assert phase_order(stream, 100, 0, "actions", 30).tolist() != drawn[0]


@pytest.mark.parametrize("phase", range(4))
def test_observations_and_actions_are_really_permuted(phase: int) -> None:
    stream = task([SWAPPED] * 4)
    swapped, plain = make_phase(stream, 100, phase), gymnasium.make("CartPole-v1")
    order = phase_order(stream, 100, phase, "observations", 4)
    actions = phase_order(stream, 100, phase, "actions", 2)
    observation, truth = swapped.reset(seed=3)[0], plain.reset(seed=3)[0]
    assert observation.tolist() == truth[order].tolist()
    for action in (0, 1, 1, np.int64(0), np.int64(1)):
        observation, reward, *ends, _ = swapped.step(action)
        truth, true_reward, *true_ends, _ = plain.step(actions[action])
        assert observation.tolist() == truth[order].tolist()
        assert observation in swapped.observation_space
        assert (reward, ends) == (true_reward, true_ends)


def test_every_phase_of_a_permuted_stream_has_the_loosest_bounds() -> None:
    stream = task([{}, {"observations": "permuted"}], "Acrobot-v1")
    first, second = (make_phase(stream, 0, index).observation_space for index in range(2))
    limit = np.full(6, 9 * np.pi, np.float32)
    assert first == second == spaces.Box(-limit, limit)
    true = make_phase(task([{}, {}], "Acrobot-v1"), 0, 0).observation_space
    assert true == gymnasium.make("Acrobot-v1").observation_space


def test_a_single_thing_cannot_be_permuted() -> None:
    with pytest.raises(UsageError, match="phase 0: 1 of actions cannot be permuted"):
        phase_order(task([SWAPPED]), 0, 0, "actions", 1)


# ---- physics ----


def test_cartpole_derives_its_masses_anew() -> None:
    physics = {"masscart": 2.0, "masspole": 0.3, "length": 1.5}
    drifted = make_phase(drift(**physics), 0, 2)
    cart: Any = drifted.unwrapped
    assert cart.total_mass == pytest.approx(2.3)
    assert cart.polemass_length == pytest.approx(0.45)
    gains = []
    for environment in (drifted, make_phase(task([{}]), 0, 0)):
        before = environment.reset(seed=1)[0][1]
        gains.append(environment.step(1)[0][1] - before)
    assert 0 < gains[0] < 0.6 * gains[1]  # the same push moves 2.3 kg instead of 1.1


def test_pendulum_falls_by_its_own_g() -> None:
    stream = task([{}, {"physics": {"g": 0.0}}], "Pendulum-v1")
    speeds = []
    for index in range(2):
        environment = make_phase(stream, 0, index)
        pendulum: Any = environment.unwrapped
        environment.reset(seed=0)
        pendulum.state = np.array([np.pi / 2, 0.0])
        speeds.append(environment.step(np.zeros(1, np.float32))[0][2])
    assert speeds == [pytest.approx(3 * 10 / 2 * 0.05), 0.0]


def test_acrobot_drifts_in_the_instance_not_in_its_class() -> None:
    drifted = make_phase(task([{"physics": {"LINK_LENGTH_1": 0.5}}], "Acrobot-v1"), 0, 0)
    acrobot: Any = drifted.unwrapped
    untouched: Any = gymnasium.make("Acrobot-v1").unwrapped
    assert (acrobot.LINK_LENGTH_1, untouched.LINK_LENGTH_1) == (0.5, 1.0)
    steps = [drifted.reset(seed=0)[0], untouched.reset(seed=0)[0]]
    assert steps[0].tolist() == steps[1].tolist()
    assert drifted.step(0)[0].tolist() != untouched.step(0)[0].tolist()


@needs("mujoco")
def test_the_ant_slips() -> None:
    stream = task([{}, {"physics": {"friction_scale": 0.1}}, {}], "Ant-v5")
    ants: list[Any] = [make_phase(stream, 0, index).unwrapped for index in range(3)]
    frictions = [ant.model.geom_friction for ant in ants]
    assert (frictions[0][:, 0] > 0).all()
    np.testing.assert_allclose(frictions[1][:, 0], frictions[0][:, 0] * 0.1)
    np.testing.assert_array_equal(frictions[1][:, 1:], frictions[0][:, 1:])
    np.testing.assert_array_equal(frictions[2], frictions[0])


# ---- spaces, ids, wrong names ----


def test_actions_of_a_box_are_rescaled() -> None:
    rescaled, plain = make_phase(task([{}], "Pendulum-v1"), 0, 0), gymnasium.make("Pendulum-v1")
    assert rescaled.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    rescaled.reset(seed=5)
    plain.reset(seed=5)
    for action in (-1.0, 0.25, 1.0, 3.0):
        observation = rescaled.step(np.array([action], np.float32))[0]
        torque = np.array([2 * min(action, 1.0)], np.float32)
        np.testing.assert_allclose(observation, plain.step(torque)[0], rtol=1e-6)


def test_a_task_id_is_shared_by_equal_environments_only() -> None:
    drift = [{}, {"physics": {"gravity": 5.0}}, {}, {"kwargs": {"max_episode_steps": 7}}]
    assert task_ids(task(drift)) == [0, 1, 0, 2]
    assert task_ids(task([{}, SWAPPED, {"actions": "permuted"}, {}])) == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        # permutations
        (task([{"actions": "permuted"}], "Pendulum-v1"), 'be Discrete and not .*actions = "true"'),
        (task([{"observations": "permuted"}], "ALE/Pong-v5"), "must be a flat Box and not Box"),
        (task([{"observations": "permuted"}], "FrozenLake-v1"), "flat Box and not Discrete"),
        # physics
        (drift(masspol=1.0), "CartPoleEnv has no physics 'masspol'. Did you mean 'masspole'"),
        (drift(total_mass=1.0), "no physics 'total_mass'"),
        (drift(friction_scale=0.1), "no physics 'friction_scale'"),
        (drift(reset=1.0), "no physics 'reset'"),
        (drift(gravty=1.0), "phase 2: CartPoleEnv has no physics 'gravty'"),
        # spaces
        (task([{}, {}, {"id": "Acrobot-v1"}]), r"_space is Box.* in phase 0 .* in phase 2"),
        (
            task([{}, {"id": "ALE/Breakout-v5"}], "ALE/Pong-v5"),
            r"Discrete\(6\) in phase 0 and Discrete\(4\) in phase 1",
        ),
        # names
        (task([{}], "CartPol-v1"), "cannot make 'CartPol-v1': .*Did you mean: `CartPole`"),
        (task([{}], "ALE/Pog-v5"), "cannot make 'ALE/Pog-v5'"),
        (task([{}], kwargs={"gravty": 1}), "'CartPole-v1' refuses its kwargs: .*gravty"),
        # games
        (game(mode=3), "ALE/Breakout-v5 has no mode 3; choose one of 0, 4, 8, .*44"),
        (game(difficulty=2), "ALE/Breakout-v5 has no difficulty 2; choose one of 0, 1"),
    ],
)
def test_what_is_wrong_in_a_later_phase_is_refused_at_the_first(
    spec: ReinforcementTask, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_phase(spec, 0, 0)


def test_a_phase_that_is_not_there_is_refused() -> None:
    for index in (-1, 2):
        with pytest.raises(UsageError, match=f"has phases 0 to 1, not {index}"):
            make_phase(task([{}, {}]), 0, index)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")
    monkeypatch.setattr(gymnasium, "make", Mock(side_effect=missing))
    with pytest.raises(UsageError, match=r"'Ant-v5' needs .*`pip install 'ht-bench\[mujoco\]'`"):
        make_phase(task([{}], "Ant-v5"), 0, 0)


# ---- games ----


@needs("cv2")
def test_a_mode_survives_a_seeded_reset_and_changes_the_game() -> None:
    phases = [{"kwargs": {"mode": mode, "difficulty": 1}} for mode in (0, 12)]
    stream, screens = task(phases, "ALE/Breakout-v5", **GAME), []
    for index in range(2):
        environment: Any = make_phase(stream, 0, index)
        for seed in (1, 1):
            environment.reset(seed=seed)
            assert environment.unwrapped.ale.cloneState().getCurrentMode() == (0, 12)[index]
            assert environment.unwrapped.ale.cloneState().getDifficulty() == 1
        for _ in range(60):
            observation = environment.step(0)[0]
        screens.append(observation)
    assert (screens[0] != screens[1]).any()


# ---- the tasks that are shipped ----


def shipped() -> list[Any]:
    found = []
    for name, path in task_files().items():
        spec = load_task(path)
        if isinstance(spec, ReinforcementTask):
            marks = extras(spec)
            if name.startswith("atari-100k-") and name != ONE_GAME:
                marks.append(pytest.mark.evidence)
            found.append(pytest.param(spec, id=name, marks=marks))
    return found


@pytest.mark.parametrize("spec", shipped())
def test_every_shipped_task_can_be_made(spec: ReinforcementTask) -> None:
    """`make_phase` makes every phase that differs, and compares their spaces, at the first."""
    environment = make_phase(spec, spec.seeds[0], len(spec.phases) - 1)
    observation, _ = environment.reset(seed=0)
    assert observation in environment.observation_space
    environment.action_space.seed(0)
    observation, reward, *_ = environment.step(environment.action_space.sample())
    assert observation in environment.observation_space
    assert np.isfinite(float(reward))
    environment.close()


def test_the_26_games_are_there() -> None:
    games = [name for name in task_files() if name.startswith("atari-100k-")]
    assert len(games) == 26
    for name in games:
        spec = load_task(task_files()[name])
        assert isinstance(spec, ReinforcementTask)
        assert gymnasium.spec(spec.environment_of(0)[0])
        assert spec.steps == 100_000
        assert spec.reference.human is not None
        assert spec.reference.human > spec.reference.random
