"""Agents are saved within phases: what goes on from there is the uninterrupted run, bit for bit."""

from __future__ import annotations

import copy
import json
import random
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ht_bench.errors import UsageError
from ht_bench.methods.recipe import get_recipe, recipe_names
from ht_bench.records.record import read_record, without_cost
from ht_bench.records.runs import result_file
from ht_bench.running.evaluate import _coarse
from ht_bench.running.job import StackJob, run_stack
from ht_bench.running.kinds import check
from ht_bench.streams.catalog import get_task
from ht_bench.streams.reinforcement import ReinforcementTask, parse_reinforcement
from ht_bench.training import checkpoint, run
from ht_bench.training.agent_state import is_resumed_inside_phases
from ht_bench.training.encoding import decode, encode
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.reinforcement import ReinforcementRun

from .test_reinforcement import AGENTS, make_task, spec, table

LIMIT = {"name": "time-limit", "max_episode_steps": 30}
PONG = {"id": "ALE/Pong-v5", "kwargs": {"frameskip": 1}, "wrappers": [{"name": "atari"}, LIMIT]}
BOARDS = {"id": "MinAtar/Seaquest-v0", "wrappers": [{"name": "minatar"}, LIMIT]}
ENDLESS = {"handle_timeout_termination": False}


def job(task: ReinforcementTask, method: str, out: Path | None, **changes: Any) -> StackJob:
    return StackJob(task, spec(method), (100,), out=out, tensorboard=False, **changes)


def interrupt(stopping: StackJob, after: int) -> int:
    """Train, stop after so many steps, and return the steps that the checkpoint is of."""
    seen = 0

    def progress(steps: int) -> None:
        nonlocal seen
        seen += steps

    with pytest.raises(Interrupted):
        run_stack(stopping, Observer(progress=progress, stop=lambda: seen >= after))
    path = stopping.checkpoint_file
    assert path is not None and path.is_file()
    saved = checkpoint.load(path, stopping.fingerprint())
    assert saved is not None
    return int(160 * saved["position"]["phase"] + saved["position"]["step"])


def resumed(stopping: StackJob) -> tuple[dict[str, Any], list[int]]:
    trained: list[int] = []
    [record] = run_stack(stopping, Observer(progress=trained.append))
    return without_cost(record), trained


# ---- exactly ----


@pytest.mark.parametrize("algorithm", AGENTS)
def test_a_run_goes_on_within_a_phase_as_if_never_interrupted(
    algorithm: str, tmp_path: Path
) -> None:
    task = make_task(algorithm)
    [whole] = run_stack(job(task, "hare-tortoise", None))
    stopping = job(task, "hare-tortoise", tmp_path)
    at = interrupt(stopping, 230)
    assert 230 <= at <= 230 + 40 and at not in (160, 320)
    record, trained = resumed(stopping)
    assert trained[0] == at and sum(trained) == 320
    assert record == without_cost(whole)
    assert stopping.checkpoint_file is not None and not stopping.checkpoint_file.exists()
    assert stopping.folder is not None
    written = without_cost(read_record(result_file(stopping.folder, 100)))
    assert written == json.loads(json.dumps(without_cost(whole)))


@pytest.mark.parametrize("method", ["none", "full-reset", "shrink-perturb", "ema", "l2-init"])
def test_every_kind_of_method_goes_on(method: str, tmp_path: Path) -> None:
    task = make_task("dqn")
    [whole] = run_stack(job(task, method, None))
    stopping = job(task, method, tmp_path)
    for after in (50, 199, 290):  # and is stopped again and again
        interrupt(stopping, after)
    assert resumed(stopping)[0] == without_cost(whole)


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("ppo", {"copies": 2}),
        (
            "dqn",
            {"wrappers": [{"name": "time-limit", "max_episode_steps": 30}, {"name": "task-id"}]},
        ),
        ("sac", {"copies": 2}),
    ],
)
def test_copies_and_wrappers_go_on(algorithm: str, changes: Any, tmp_path: Path) -> None:
    asked = table(algorithm)
    asked["environment"] |= changes
    if algorithm == "ppo":
        asked["agent"]["settings"] = {"n_steps": 20, "batch_size": 20}
    task = parse_reinforcement(asked, "tiny")
    [whole] = run_stack(job(task, "hare-tortoise", None))
    stopping = job(task, "hare-tortoise", tmp_path)
    interrupt(stopping, 250)
    assert resumed(stopping)[0] == without_cost(whole)


@pytest.mark.parametrize(
    "settings",
    [
        {
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
        {"n_steps": 3},
        {"buffer_size": 60},
        {"n_steps": 3, "buffer_size": 60, "fast": True},
    ],
)
def test_buffers_go_on(settings: dict[str, Any], tmp_path: Path) -> None:
    asked = copy.deepcopy(table("dqn"))
    settings = dict(settings)
    asked["agent"]["fast"] = settings.pop("fast", False)
    asked["agent"]["settings"] = {**AGENTS["dqn"], **settings}
    task = parse_reinforcement(asked, "tiny")
    [whole] = run_stack(job(task, "none", None))
    stopping = job(task, "none", tmp_path)
    interrupt(stopping, 290)
    assert resumed(stopping)[0] == without_cost(whole)


@pytest.mark.parametrize(
    ("environment", "algorithm"),
    [
        ({"id": "Hopper-v5", "wrappers": [LIMIT]}, "sac"),
        (BOARDS, "dqn"),
        pytest.param({**BOARDS, "copies": 2}, "ppo", marks=pytest.mark.evidence),
        pytest.param({"id": "Ant-v5", "wrappers": [LIMIT]}, "td3", marks=pytest.mark.evidence),
        pytest.param(PONG, "dqn", marks=pytest.mark.evidence),
        pytest.param({**PONG, "copies": 2}, "qrdqn", marks=pytest.mark.evidence),
        pytest.param({**PONG, "copies": 2}, "ppo", marks=pytest.mark.evidence),
    ],
)
def test_simulations_and_games_go_on(
    environment: dict[str, Any], algorithm: str, tmp_path: Path
) -> None:
    asked = copy.deepcopy(table(algorithm))
    asked["environment"] = environment
    asked["phases"] = [{"repeat": 2, "steps": 160}]
    asked["evaluation"]["episodes"] = 1
    boards = environment["id"].startswith("MinAtar/")
    if boards:
        pytest.importorskip("minatar")
        asked["phases"] = [{"steps": 160}, {"id": "MinAtar/SpaceInvaders-v0", "steps": 160}]
    if boards or environment["id"].startswith("ALE/"):
        asked["agent"] |= {"policy": "minatar" if boards else "cnn", "network": {}}
        if algorithm == "ppo":
            asked["agent"]["settings"] = {"n_steps": 20, "batch_size": 8, "n_epochs": 1}
        else:
            asked["agent"]["settings"] |= {"buffer_size": 100, "batch_size": 4, "train_freq": 8}
    else:
        pytest.importorskip("mujoco")
    task = parse_reinforcement(asked, "tiny")
    [whole] = run_stack(job(task, "none", None))
    stopping = job(task, "none", tmp_path)
    assert interrupt(stopping, 270) >= 270  # in the second phase
    assert resumed(stopping)[0] == without_cost(whole)


@pytest.mark.parametrize(
    "algorithm",
    ["ppo", *(pytest.param(name, marks=pytest.mark.evidence) for name in AGENTS if name != "ppo")],
)
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved whenever it is due, here at every rollout; nothing is said beforehand of the kill."""

    class Killed(BaseException):
        pass

    monkeypatch.setattr(run, "PAYS", 0.0)
    task = make_task(algorithm)
    [whole] = run_stack(job(task, "hare-tortoise", None))
    stopping = job(task, "hare-tortoise", tmp_path, checkpoint_seconds=0.0)
    seen = 0

    def progress(steps: int) -> None:
        nonlocal seen
        seen += steps
        if seen > 250:
            raise Killed

    with pytest.raises(Killed):
        run_stack(stopping, Observer(progress=progress))
    record, trained = resumed(stopping)
    assert 240 <= trained[0] <= 250 and record == without_cost(whole)


@pytest.mark.evidence
@pytest.mark.parametrize("algorithm", ["dqn", "ppo", "sac"])
@pytest.mark.parametrize("method", recipe_names())
def test_all_methods_go_on_in_agents(method: str, algorithm: str, tmp_path: Path) -> None:
    task, recipe = make_task(algorithm), get_recipe(method)
    assert recipe is not None
    chosen = spec(method, **(recipe.active or {}))
    try:
        check(task, chosen)
    except UsageError as refused:
        pytest.skip(str(refused))
    [whole] = run_stack(StackJob(task, chosen, (100,), tensorboard=False))
    stopping = StackJob(task, chosen, (100,), out=tmp_path, tensorboard=False)
    for after in (120, 270):
        interrupt(stopping, after)
    assert resumed(stopping)[0] == without_cost(whole)


def test_checkpoints_are_written_as_often_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(run, "PAYS", 0.0)
    monkeypatch.setattr(ReinforcementRun, "_save", lambda run: written.append(run.position.step))
    run_stack(job(make_task("ppo"), "none", tmp_path))
    assert written == [0, 0]  # at the two phases' ends


# ---- where it cannot be ----


def test_what_cannot_be_saved_within_a_phase_goes_on_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ht_bench.training.reinforcement.is_resumed_inside_phases", lambda task: False
    )
    monkeypatch.setattr(run, "PAYS", 0.0)
    task = make_task("dqn")
    [whole] = run_stack(job(task, "hare-tortoise", None))
    stopping = job(task, "hare-tortoise", tmp_path)
    assert interrupt(stopping, 230) == 160
    record, trained = resumed(stopping)
    assert trained[0] == 160 and record == without_cost(whole)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("swap-cartpole-dqn-v1", True),
        ("drift-pendulum-sac-v1", True),
        ("drift-acrobot-qrdqn-v1", True),
        ("slippery-ant-v1", True),
        ("atari-100k-pong-v1", True),
        ("games-minatar-v1", True),
    ],
)
def test_which_tasks_are_saved_within_phases(name: str, inside: bool) -> None:
    task: Any = get_task(name)
    assert is_resumed_inside_phases(task) is inside


def test_noise_that_is_drawn_before_a_rollout_is_not_drawn_twice() -> None:
    asked = table("sac")
    asked["agent"]["settings"] = {**AGENTS["sac"], "use_sde": True}
    assert not is_resumed_inside_phases(parse_reinforcement(asked, "tiny"))


def test_the_sentence_after_an_interruption_says_what_goes_on_from_where(tmp_path: Path) -> None:
    said = []
    for environment in ({}, {"wrappers": [LIMIT]}, {"id": "LunarLander-v3"}):
        asked = table("ppo")
        asked["environment"] |= environment
        asked["phases"] = [{"repeat": 2, "steps": 160}]
        task = parse_reinforcement(asked, "tiny")
        plan: Any = type("Plan", (), {"jobs": [job(task, "none", tmp_path)]})
        said.append(_coarse(plan))
    assert said == ["", "", ", tiny-v1 from the start of the phase it was in"]


# ---- values ----


def test_values_are_read_back_without_running_code(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    values = {
        "numbers": [1, 2.5, True, None, "text", 2**100],
        "arrays": (np.arange(4, dtype=np.uint32), np.zeros((0, 3)), np.array(1.5, np.float16)),
        "scalars": [np.float32(0.1), np.int64(7), np.float64(0.1), np.bool_(True)],
        3: deque([1, 2], maxlen=5),
        "state": random.getstate(),
        "generator": generator,
    }
    torch.save(encode(values), tmp_path / "saved")
    read = decode(torch.load(tmp_path / "saved", weights_only=True))
    assert read["numbers"] == values["numbers"] and read[3] == values[3] and read[3].maxlen == 5
    for name in ("arrays", "scalars"):
        for one, other in zip(read[name], values[name], strict=True):  # type: ignore[call-overload]
            assert type(one) is type(other) and one.dtype == other.dtype
            assert np.array_equal(one, other) and one.shape == other.shape
    assert read["state"] == values["state"]
    assert read["generator"].random() == generator.random()
    with pytest.raises(TypeError, match="cannot be part of a checkpoint"):
        encode({"function": print})
