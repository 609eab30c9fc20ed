"""A stream of environments keeps the schedule, alone, in vector form and in stable-baselines3."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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

from .conftest import SWAPPED, needs, task

KEYS = {"phase", "task_id", "phase_step", "phase_changed"}


def swap() -> ReinforcementTask:
    return task([SWAPPED] * 3)


def modes() -> ReinforcementTask:
    phases = [{"kwargs": {"mode": 0}}, {"kwargs": {"mode": 4, "difficulty": 1}}]
    wrappers = [{"name": "atari"}]
    return task(phases, "ALE/Breakout-v5", kwargs={"frameskip": 1}, wrappers=wrappers)


def games() -> ReinforcementTask:
    kwargs = {"frameskip": 1, "full_action_space": True}
    phases = [{"id": "ALE/Pong-v5"}, {"id": "ALE/Freeway-v5"}]
    return task(phases, "", kwargs=kwargs, wrappers=[{"name": "atari"}])


def drift(identifier: str, **physics: float) -> Callable[[], ReinforcementTask]:
    return lambda: task([{}, {"physics": physics}], identifier)


STREAMS = [
    pytest.param(swap, id="swap-cartpole"),
    pytest.param(drift("Pendulum-v1", g=5.0), id="drift-pendulum"),
    pytest.param(drift("Acrobot-v1", LINK_LENGTH_1=0.5), id="drift-acrobot"),
    pytest.param(drift("Ant-v5", friction_scale=0.1), id="ant", marks=needs("mujoco")),
    pytest.param(modes, id="game-modes", marks=[needs("cv2"), pytest.mark.evidence]),
    pytest.param(games, id="game-sequence", marks=needs("cv2")),
]
Act = Callable[[EnvironmentStream], Any]


def sample(stream: EnvironmentStream) -> Any:
    return stream.action_space.sample()


def walk(stream: EnvironmentStream, steps: int, act: Act = sample) -> list[Any]:
    """Step on, with a plain reset after every end; returns (step, reset or None) of each step."""
    found = []
    for _ in range(steps):
        step = stream.step(act(stream))
        found.append((step, stream.reset() if step[2] or step[3] else None))
    return found


@pytest.mark.parametrize("make", STREAMS)
def test_streams_pass_both_checkers(make: Callable[[], ReinforcementTask]) -> None:
    stream = EnvironmentStream(make())
    gymnasium_check(stream, skip_render_check=True)
    stable_baselines3_check(stream, skip_render_check=True)
    stream.close()


# ---- the schedule ----


@pytest.mark.parametrize(("copies", "length"), [(1, 20), (4, 5), (3, 7)])
def test_a_phase_lasts_its_share_of_the_budget(copies: int, length: int) -> None:
    stream = EnvironmentStream(swap(), copies=copies, stream=100)
    stream.reset(seed=100)
    assert stream.phase_lengths == [length] * 3
    for phase in range(3):
        for step in range(1, length + 1):
            _, _, terminated, truncated, info = stream.step(0)
            assert (info["phase"], info["phase_step"]) == (phase, step)
            assert truncated == (step == length and phase < 2)
            if terminated or truncated:
                changed = stream.reset()[1]["phase_changed"]
                assert changed == truncated


@pytest.mark.parametrize("identifier", ["CartPole-v1", "Pendulum-v1"])
def test_a_boundary_truncates_and_never_terminates(identifier: str) -> None:
    stream = EnvironmentStream(task([{"steps": 3}] * 4, identifier))
    stream.reset(seed=0)
    ends = [(bool(t), truncated) for (_, _, t, truncated, _), _ in walk(stream, 9)]
    assert ends == [(False, False), (False, False), (False, True)] * 3


def test_an_episode_that_ends_at_a_boundary_has_ended() -> None:
    pole = EnvironmentStream(task([{"steps": 30}] * 2))
    pole.reset(seed=0)
    falls = next(
        index for index in range(1, 30) if pole.step(1)[2]
    )  # always pushing right, the pole falls within ten steps or so
    stream = EnvironmentStream(task([{"steps": falls}] * 2))
    stream.reset(seed=0)
    *_, terminated, truncated, _ = [stream.step(1) for _ in range(falls)][-1]
    assert (terminated, truncated) == (True, True)
    assert stream.reset()[1]["phase"] == 1


def test_a_plain_reset_stays_within_a_phase() -> None:
    stream = EnvironmentStream(swap())
    stream.reset(seed=0)
    for step in range(1, 20):
        stream.step(0)
        info = stream.reset()[1]
        assert {key: info[key] for key in KEYS} == {
            "phase": 0,
            "task_id": 0,
            "phase_step": step,
            "phase_changed": False,
        }
    assert stream.step(0)[3]
    assert stream.reset()[1]["phase"] == 1


def test_the_stream_stays_in_its_last_phase() -> None:
    stream = EnvironmentStream(task([{"steps": 5}] * 2, "Pendulum-v1"))
    stream.reset(seed=0, options={"phase": 1})
    ends = [step[3] for step, _ in walk(stream, 250)]
    assert [index for index, end in enumerate(ends) if end] == [199]  # the inner time limit
    assert stream.step(np.zeros(1, np.float32))[4]["phase_step"] == 251


def test_phase_changed_is_true_once_at_each_boundary() -> None:
    stream = EnvironmentStream(swap())
    infos = [stream.reset(seed=1)[1]]
    for step, after in walk(stream, 60):
        infos += [step[4]] if after is None else [step[4], after[1]]
    assert all(info.keys() >= KEYS for info in infos)
    phases = [info["phase"] for info in infos if info["phase_changed"]]
    assert phases == [1, 2]
    assert all(info["phase_step"] == 0 for info in infos if info["phase_changed"])


def test_options_go_to_the_start_of_a_phase() -> None:
    stream = EnvironmentStream(swap())
    first = stream.reset(seed=5, options={"phase": 2})
    assert (first[1]["phase"], first[1]["phase_changed"]) == (2, False)
    walk(stream, 4)
    again = stream.reset(options={"phase": 2})
    assert again[0].tolist() == first[0].tolist()
    assert (again[1]["phase_step"], again[1]["phase_changed"]) == (0, False)
    other = stream.reset(options={"phase": 0})[1]
    assert (other["phase"], other["phase_changed"]) == (0, True)
    assert stream.reset(seed=5)[1]["phase_changed"] is False


@pytest.mark.parametrize("make", [swap, drift("Pendulum-v1", g=5.0)])
def test_a_seed_decides_everything(make: Callable[[], ReinforcementTask]) -> None:
    def trace(seed: int) -> list[float]:
        stream.action_space.seed(1)
        found = [*stream.reset(seed=seed)[0]]
        for (observation, reward, *_), after in walk(stream, 55):
            found += [*observation, reward, *([] if after is None else after[0])]
        return [float(number) for number in found]

    stream = EnvironmentStream(make())
    first = trace(100)
    assert trace(101) != first
    assert trace(100) == first
    stream = EnvironmentStream(make())
    assert trace(100) == first


def test_a_stream_without_a_seed_draws_one() -> None:
    one, other = EnvironmentStream(swap()), EnvironmentStream(swap())
    assert one.reset()[0].tolist() != other.reset()[0].tolist()


def test_the_phases_permute_as_the_stream_says() -> None:
    stream = EnvironmentStream(swap())
    for phase in range(3):
        observation, _ = stream.reset(seed=9, options={"phase": phase})
        order = phase_order(stream.task, 9, phase, "observations", 4)
        true = np.empty(4)
        true[order] = observation
        cart: Any = stream._inner.unwrapped
        np.testing.assert_allclose(true, cart.state, rtol=1e-6)


def test_a_stream_number_fixes_the_permutations_not_the_episodes() -> None:
    streams = [EnvironmentStream(swap(), stream=100) for _ in range(2)]
    observations = [s.reset(seed=seed)[0] for s, seed in zip(streams, (1, 2), strict=True)]
    assert observations[0].tolist() != observations[1].tolist()
    inner: list[Any] = [stream._inner for stream in streams]
    assert inner[0]._order.tolist() == inner[1]._order.tolist()
    assert EnvironmentStream(swap()).reset(seed=1, options={"stream": 100})[0].tolist() == (
        observations[0].tolist()
    )


# ---- copies ----


def test_a_vector_of_copies_changes_phase_in_lockstep() -> None:
    vector = make_vector(4, task=swap())
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    _, infos = vector.reset(seed=100)
    orders = {tuple(env._inner._order.tolist()) for env in vector.envs}  # type: ignore[attr-defined]
    assert len(orders) == 1
    seen = []
    for step in range(1, 16):
        actions = vector.action_space.sample()
        observations, _, _, truncations, infos = vector.step(actions)
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
    vector = make_vector(2, task=swap())
    vector.reset()
    first, _ = vector.reset(seed=7)
    assert vector.reset(seed=7)[0].tolist() == first.tolist()
    assert vector.reset(options={"phase": 1})[1]["phase"].tolist() == [1, 1]
    alone = EnvironmentStream(swap())
    assert alone.reset(seed=7)[0].tolist() == first[0].tolist()
    with pytest.raises(UsageError, match=r"seed = \[1, 2\] must be one number"):
        vector.reset(seed=[1, 2])
    with pytest.raises(UsageError, match="leave 'copies' out"):
        make_vector(2, task=swap(), copies=2)


def test_copies_in_stable_baselines3_share_a_stream_by_its_number() -> None:
    made = DummyVecEnv([lambda: EnvironmentStream(swap(), copies=4, stream=100)] * 4)
    made.seed(100)
    made.reset()
    steps: dict[int, int] = {0: 0, 1: 0, 2: 0}
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
        EnvironmentStream(swap(), copies=4).reset(seed=0)
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


def test_an_inner_environment_is_closed_when_its_phase_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[Any] = []
    kind: Any = type(gymnasium.make("Pendulum-v1").unwrapped)
    monkeypatch.setattr(kind, "close", lambda pendulum: closed.append(pendulum))
    stream = EnvironmentStream(task([{"steps": 3}] * 3, "Pendulum-v1"))
    stream.reset(seed=0)
    before = stream._inner.unwrapped
    closed.clear()
    walk(stream, 3)
    assert closed == [before]
    stream.close()
    assert closed == [before, stream._inner.unwrapped]
    stream.close()


def test_rendering_passes_through() -> None:
    stream = EnvironmentStream(task([{}], "ALE/Pong-v5"), render_mode="rgb_array")
    stream.reset(seed=0)
    assert stream.render().shape == (210, 160, 3)
    assert EnvironmentStream(task([{}])).render() is None


def test_evaluation_reaches_the_wrappers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def make(*_: Any, evaluation: bool, **__: Any) -> Any:
        asked.append(evaluation)
        return gymnasium.make("CartPole-v1")

    monkeypatch.setattr("ht_bench.envs.rl_stream.make_phase", make)
    EnvironmentStream(swap(), evaluation=True)
    assert asked == [True]


def test_wrong_use_is_told(tmp_path: Path) -> None:
    stream = EnvironmentStream(swap())
    with pytest.raises(UsageError, match=r"call reset\(\)"):
        stream.step(0)
    with pytest.raises(UsageError, match="Unknown reset option 'phse'. Did you mean 'phase'"):
        stream.reset(options={"phse": 1})
    for phase in (3, -1, "1", True):
        with pytest.raises(UsageError, match=f"phase = {phase!r}, but made-up-v1 has phases 0 to"):
            stream.reset(options={"phase": phase})
    with pytest.raises(UsageError, match="warm-start-digits-v1 streams data, not environments"):
        EnvironmentStream("warm-start-digits-v1")
    with pytest.raises(UsageError, match="stream = 3 begins another stream; give a seed too"):
        stream.reset(options={"stream": 3})
    for number in (-1, "3", 1.5):
        with pytest.raises(UsageError, match=f"stream = {number!r}; give a whole number"):
            EnvironmentStream(swap(), stream=number)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="copies = 0"):
        EnvironmentStream(swap(), copies=0)
    stream.reset(seed=0)
    for _ in range(19):
        stream.step(0)
        stream.reset()
    stream.step(0)
    with pytest.raises(UsageError, match=r"call reset\(\) to begin the stream's next"):
        stream.step(0)


def test_the_vector_form_says_what_it_streams() -> None:
    stream = make_vector(4, task=swap())
    assert stream.task.name == "made-up-v1"
    assert stream.tasks == 3
    assert stream.phase_lengths == [5, 5, 5]


@pytest.mark.parametrize("copies", [0, 1.5, "2", True])
def test_copies_are_a_whole_number(copies: Any) -> None:
    with pytest.raises(UsageError, match=r"copies = .*; a stream has 1 copy or more"):
        EnvironmentStream(swap(), copies=copies)


@pytest.mark.parametrize("action", [-1, 2, 99])
def test_an_action_that_is_none_is_refused(action: int) -> None:
    stream = EnvironmentStream(swap())
    stream.reset(seed=0)
    with pytest.raises(UsageError, match=rf"The action {action} is none of Discrete\(2\)"):
        stream.step(action)
