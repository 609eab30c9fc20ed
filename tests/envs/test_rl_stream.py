"""A stream of environments keeps the schedule, alone, in vector form and in stable-baselines3."""

from typing import Any
from unittest.mock import Mock

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as stable_baselines3_check
from stable_baselines3.common.vec_env import DummyVecEnv

from ht_bench.envs.permutations import phase_order
from ht_bench.envs.rl_stream import EnvironmentStream, make_vector
from ht_bench.errors import UsageError
from ht_bench.streams.reinforcement import ReinforcementTask

from .conftest import SWAPPED, needs, position, task

SWAP = task([SWAPPED] * 3)


def begun(spec: ReinforcementTask = SWAP, seed: int = 0, **options: Any) -> EnvironmentStream:
    stream = EnvironmentStream(spec, **options)
    stream.reset(seed=seed)
    return stream


def walk(stream: EnvironmentStream, steps: int) -> list[Any]:
    """Step on, with a plain reset after every end; returns (step, reset or None) of each step."""
    walked = []
    for _ in range(steps):
        step = stream.step(stream.action_space.sample())
        walked.append((step, stream.reset() if step[2] or step[3] else None))
    return walked


@needs("cv2")
def test_a_stream_of_games_passes_both_checkers() -> None:
    """Of the others, test_registered.py checks those that are shipped."""
    phases = [{"id": "ALE/Pong-v5"}, {"id": "ALE/Freeway-v5"}]
    kwargs = {"frameskip": 1, "full_action_space": True}
    stream = EnvironmentStream(task(phases, "", kwargs=kwargs, wrappers=[{"name": "atari"}]))
    gymnasium_check(stream, skip_render_check=True)
    stable_baselines3_check(stream, skip_render_check=True)
    stream.close()


# ---- the schedule ----


@pytest.mark.parametrize(("copies", "length"), [(1, 20), (4, 5), (3, 7)])
def test_a_phase_lasts_its_share_of_the_budget(copies: int, length: int) -> None:
    stream = begun(seed=100, copies=copies, stream=100)
    assert stream.phase_lengths == [length] * 3
    for phase in range(3):
        for step in range(1, length + 1):
            _, _, terminated, truncated, info = stream.step(0)
            assert (info["phase"], info["phase_step"]) == (phase, step)
            assert truncated == (step == length and phase < 2)
            if terminated or truncated:
                assert stream.reset()[1]["phase_changed"] == truncated


@pytest.mark.parametrize("identifier", ["CartPole-v1", "Pendulum-v1"])
def test_a_boundary_truncates_and_never_terminates(identifier: str) -> None:
    stream = begun(task([{"steps": 3}] * 4, identifier))
    ends = [(bool(t), truncated) for (_, _, t, truncated, _), _ in walk(stream, 9)]
    assert ends == [(False, False), (False, False), (False, True)] * 3


def test_an_episode_that_ends_at_a_boundary_has_ended() -> None:
    pole = begun(task([{"steps": 30}] * 2))
    # always pushing right, the pole falls within ten steps or so
    falls = next(index for index in range(1, 30) if pole.step(1)[2])
    stream = begun(task([{"steps": falls}] * 2))
    *_, terminated, truncated, _ = [stream.step(1) for _ in range(falls)][-1]
    assert (terminated, truncated) == (True, True)
    assert stream.reset()[1]["phase"] == 1


def test_a_plain_reset_stays_within_a_phase() -> None:
    stream = begun()
    for step in range(1, 20):
        stream.step(0)
        info = stream.reset()[1]
        assert info | position(0, step, False) == info
    assert stream.step(0)[3]
    with pytest.raises(UsageError, match=r"call reset\(\) to begin the stream's next"):
        stream.step(0)
    assert stream.reset()[1]["phase"] == 1


def test_the_stream_stays_in_its_last_phase() -> None:
    stream = EnvironmentStream(task([{"steps": 5}] * 2, "Pendulum-v1"))
    stream.reset(seed=0, options={"phase": 1})
    ends = [step[3] for step, _ in walk(stream, 250)]
    assert [index for index, end in enumerate(ends) if end] == [199]  # the inner time limit
    assert stream.step(np.zeros(1, np.float32))[4]["phase_step"] == 251


def test_phase_changed_is_true_once_at_each_boundary() -> None:
    stream = EnvironmentStream(SWAP)
    infos = [stream.reset(seed=1)[1]]
    for step, after in walk(stream, 60):
        infos += [step[4]] if after is None else [step[4], after[1]]
    assert all(info.keys() >= position(0, 0, False).keys() for info in infos)
    phases = [info["phase"] for info in infos if info["phase_changed"]]
    assert phases == [1, 2]
    assert all(info["phase_step"] == 0 for info in infos if info["phase_changed"])


def test_options_go_to_the_start_of_a_phase() -> None:
    stream = EnvironmentStream(SWAP)
    first = stream.reset(seed=5, options={"phase": 2})
    assert (first[1]["phase"], first[1]["phase_changed"]) == (2, False)
    walk(stream, 4)
    again = stream.reset(options={"phase": 2})
    assert again[0].tolist() == first[0].tolist()
    assert (again[1]["phase_step"], again[1]["phase_changed"]) == (0, False)
    other = stream.reset(options={"phase": 0})[1]
    assert (other["phase"], other["phase_changed"]) == (0, True)
    assert stream.reset(seed=5)[1]["phase_changed"] is False


@pytest.mark.parametrize("spec", [SWAP, task([{}, {"physics": {"g": 5.0}}], "Pendulum-v1")])
def test_a_seed_decides_everything(spec: ReinforcementTask) -> None:
    def trace(stream: EnvironmentStream, seed: int) -> list[float]:
        stream.action_space.seed(1)
        numbers = [*stream.reset(seed=seed)[0]]
        for (observation, reward, *_), after in walk(stream, 55):
            numbers += [*observation, reward, *([] if after is None else after[0])]
        return [float(number) for number in numbers]

    stream = EnvironmentStream(spec)
    first = trace(stream, 100)
    assert trace(stream, 101) != first
    assert trace(stream, 100) == first == trace(EnvironmentStream(spec), 100)


def test_a_stream_without_a_seed_draws_one() -> None:
    one, other = (EnvironmentStream(SWAP).reset()[0].tolist() for _ in range(2))
    assert one != other


def test_the_phases_permute_as_the_stream_says() -> None:
    stream = EnvironmentStream(SWAP)
    for phase in range(3):
        observation, _ = stream.reset(seed=9, options={"phase": phase})
        order = phase_order(stream.task, 9, phase, "observations", 4)
        true = np.empty(4)
        true[order] = observation
        cart: Any = stream._inner.unwrapped
        np.testing.assert_allclose(true, cart.state, rtol=1e-6)


def test_a_stream_number_fixes_the_permutations_not_the_episodes() -> None:
    streams = [EnvironmentStream(SWAP, stream=100) for _ in range(2)]
    observations = [s.reset(seed=seed)[0] for s, seed in zip(streams, (1, 2), strict=True)]
    assert observations[0].tolist() != observations[1].tolist()
    inner: list[Any] = [stream._inner for stream in streams]
    assert inner[0]._order.tolist() == inner[1]._order.tolist()
    told = EnvironmentStream(SWAP).reset(seed=1, options={"stream": 100})[0]
    assert told.tolist() == observations[0].tolist()


# ---- copies ----


def test_a_vector_of_copies_changes_phase_in_lockstep() -> None:
    vector = make_vector(4, task=SWAP)
    assert (vector.task.name, vector.tasks) == ("made-up-v1", 3)
    assert vector.phase_lengths == [5, 5, 5]
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    _, infos = vector.reset(seed=100)
    orders = {tuple(env._inner._order.tolist()) for env in vector.envs}  # type: ignore[attr-defined]
    assert len(orders) == 1
    seen = []
    for step in range(1, 16):
        observations, _, _, truncations, infos = vector.step(vector.action_space.sample())
        seen.append(infos["phase"].tolist())
        boundary = step in (5, 10)
        assert truncations.tolist() == [boundary] * 4
        assert infos["phase_changed"].tolist() == [boundary] * 4
        if boundary:
            assert infos["final_info"]["phase"].tolist() == [step // 5 - 1] * 4
            assert infos["final_info"]["phase_step"].tolist() == [5] * 4
            assert len({tuple(row) for row in observations.tolist()}) == 4
    assert seen == [[0] * 4] * 4 + [[1] * 4] * 5 + [[2] * 4] * 6


def test_a_vector_begins_one_stream_from_one_seed() -> None:
    vector = make_vector(2, task=SWAP)
    vector.reset()
    first, _ = vector.reset(seed=7)
    assert vector.reset(seed=7)[0].tolist() == first.tolist()
    assert vector.reset(options={"phase": 1})[1]["phase"].tolist() == [1, 1]
    assert EnvironmentStream(SWAP).reset(seed=7)[0].tolist() == first[0].tolist()
    with pytest.raises(UsageError, match=r"seed = \[1, 2\] must be one number"):
        vector.reset(seed=[1, 2])
    with pytest.raises(UsageError, match="leave 'copies' out"):
        make_vector(2, task=SWAP, copies=2)


def test_copies_in_stable_baselines3_share_a_stream_by_its_number() -> None:
    made = DummyVecEnv([lambda: EnvironmentStream(SWAP, copies=4, stream=100)] * 4)
    made.seed(100)
    made.reset()
    steps = {0: 0, 1: 0, 2: 0}
    for _ in range(15):
        _, _, dones, infos = made.step(np.zeros(4, np.int64))
        for done, info in zip(dones, infos, strict=True):
            steps[info["phase"]] += 1
            assert done or not info["TimeLimit.truncated"]
            if info["phase_step"] == 5 and info["phase"] < 2:
                assert done
    assert steps == {0: 20, 1: 20, 2: 20}
    orders = {tuple(env._inner._order.tolist()) for env in made.envs}  # type: ignore[attr-defined]
    assert len(orders) == 1


def test_copies_with_permutations_of_their_own_are_refused() -> None:
    with pytest.raises(UsageError, match="must see the same permutations; give them all .*stream"):
        EnvironmentStream(SWAP, copies=4).reset(seed=0)
    EnvironmentStream(task([{}, {}]), copies=4).reset(seed=0)


# ---- the rest of Gymnasium ----


def test_the_registered_form_takes_a_task_and_survives_json() -> None:
    name = "swap-cartpole-dqn-v1"
    made = gymnasium.make("ht_bench/EnvironmentStream-v1", task=name, copies=1, stream=3)
    assert made.spec is not None
    again = gymnasium.make(EnvSpec.from_json(made.spec.to_json()))
    assert again.reset(seed=1)[0].tolist() == made.reset(seed=1)[0].tolist()
    vector = gymnasium.make_vec("ht_bench/EnvironmentStream-v1", num_envs=2, task=name)
    assert vector.reset(seed=1)[0].shape == (2, 4)


def test_an_inner_environment_is_closed_when_its_phase_ends(monkeypatch: Any) -> None:
    closed: list[Any] = []
    kind: Any = type(gymnasium.make("Pendulum-v1").unwrapped)
    monkeypatch.setattr(kind, "close", lambda pendulum: closed.append(pendulum))
    stream = begun(task([{"steps": 3}] * 3, "Pendulum-v1"))
    before = stream._inner.unwrapped
    closed.clear()
    walk(stream, 3)
    assert closed == [before]
    stream.close()
    assert closed == [before, stream._inner.unwrapped]
    stream.close()


def test_rendering_passes_through() -> None:
    stream = begun(task([{}], "ALE/Pong-v5"), render_mode="rgb_array")
    assert stream.render().shape == (210, 160, 3)
    assert EnvironmentStream(task([{}])).render() is None


def test_evaluation_reaches_the_wrappers(monkeypatch: pytest.MonkeyPatch) -> None:
    make_phase = Mock(return_value=gymnasium.make("CartPole-v1"))
    monkeypatch.setattr("ht_bench.envs.rl_stream.make_phase", make_phase)
    EnvironmentStream(SWAP, evaluation=True)
    assert [call.kwargs["evaluation"] for call in make_phase.call_args_list] == [True]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"phse": 1}, "Unknown reset option 'phse'. Did you mean 'phase'"),
        *[({"phase": p}, f"phase = {p!r}, but made-up-v1 has phases") for p in (3, -1, "1", True)],
        ({"stream": 3}, "stream = 3 begins another stream; give a seed too"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    stream = EnvironmentStream(SWAP)
    with pytest.raises(UsageError, match=r"call reset\(\)"):
        stream.step(0)
    with pytest.raises(UsageError, match=sentence):
        stream.reset(options=options)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task": "warm-start-digits-v1"}, "warm-start-digits-v1 streams data, not environments"),
        *[({"stream": n}, f"stream = {n!r}; give a whole number") for n in (-1, "3", 1.5)],
        *[
            ({"copies": n}, f"copies = {n!r}; a stream has 1 copy or more")
            for n in (0, 1.5, "2", True)
        ],
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        EnvironmentStream(**{"task": SWAP, **arguments})


@pytest.mark.parametrize("action", [-1, 2, 99])
def test_an_action_that_is_none_is_refused(action: int) -> None:
    with pytest.raises(UsageError, match=rf"The action {action} is none of Discrete\(2\)"):
        begun().step(action)
