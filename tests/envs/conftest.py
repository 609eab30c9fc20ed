"""Tasks of environments and of data, made up of the phases that a test asks for."""

import importlib.util
from typing import Any

import numpy as np
import pytest

from ht_bench.envs import data_stream
from ht_bench.envs.data_stream import DataStreamEnv
from ht_bench.streams.dataset import Dataset, make_dataset
from ht_bench.streams.reinforcement import ReinforcementTask, parse_reinforcement
from ht_bench.streams.task import Task, parse_task

INFINITE = "ignore:.*A Box observation space m.* is -?infinity"
"""What Gymnasium's checker warns of, at its own CartPole too."""
SWAPPED = {"observations": "permuted", "actions": "permuted"}


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"needs the package {module}")


def task(
    phases: list[dict[str, Any]], identifier: str = "CartPole-v1", **environment: Any
) -> ReinforcementTask:
    table = {
        "name": "made-up-v1",
        "family": "drift",
        "environment": {"id": identifier, **environment},
        "agent": {"algorithm": "dqn"},
        "evaluation": {"points": 1},
        "reference": {"random": 0.0},
        "phases": [{"steps": 20, **phase} for phase in phases],
    }
    return parse_reinforcement(table, "made-up")


def extras(spec: ReinforcementTask) -> list[pytest.MarkDecorator]:
    """Skip a task where the package that its environments need is missing."""
    modules = {"Ant": "mujoco", "ALE/": "cv2", "MinAtar/": "minatar"}
    identifier = spec.environment_of(0)[0]
    return [needs(module) for start, module in modules.items() if identifier.startswith(start)]


def position(phase: int, step: int, changed: bool) -> dict[str, Any]:
    """What every info tells, in a stream of one task id."""
    return {"phase": phase, "task_id": 0, "phase_step": step, "phase_changed": changed}


# ---- streams of data ----

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


def small_task(kind: str = "warm-start") -> Task:
    """A stream of digits of a few updates; its batches of 16 leave partial ones."""
    family, phases = STREAMS[kind]
    table = {
        "name": f"{kind}-v1",
        "family": family,
        "data": {"name": "digits", "train": TRAIN},
        "net": {"name": "mlp"},
        "optimizer": {"lr": 1e-3},
        "training": {"batch": BATCH},
        "phases": phases,
    }
    task = parse_task(table, kind)
    assert isinstance(task, Task)
    return task


def begun(form: Any = DataStreamEnv, kind: str = "warm-start", seed: int = 7) -> Any:
    """A stream of that task in that form, after its first reset."""
    env = form(small_task(kind))
    env.reset(seed=seed)
    return env


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
