"""Gymnasium ids of the tasks. They name classes by string, so that registering loads no torch."""

from __future__ import annotations

import re
from pathlib import Path

from gymnasium.envs.registration import register, registry

from ht_bench.errors import UsageError
from ht_bench.files import folder, glance
from ht_bench.streams.families import FAMILIES

DATA = ("ht_bench.envs.data_stream:DataStreamEnv", "ht_bench.envs.vector:DataStreamVectorEnv")
"""Entry points, single and vector form, of a stream of examples."""
ENVIRONMENTS = (
    "ht_bench.envs.rl_stream:EnvironmentStream",
    "ht_bench.envs.rl_stream:make_vector",
)
"""The same of a stream of environments."""
_SPELLED = {
    name.lower(): name
    for name in (
        *("CIFAR10", "CIFAR100", "MNIST", "ImageNet", "CartPole", "MinAtar"),
        *("PPO", "A2C", "DQN", "QRDQN", "SAC", "TD3"),
    )
}


def environment_id(task: str) -> str:
    """Return the Gymnasium id of a task: `warm-start-mnist-v1` → `ht_bench/WarmStartMNIST-v1`."""
    stem, version = re.fullmatch(r"(.*?)(-v\d+)?", task).groups(default="")  # type: ignore[union-attr]
    words = re.split("[-_]", stem)
    return "ht_bench/" + "".join(_SPELLED.get(w, w.capitalize()) for w in words) + version


def register_all() -> None:
    """Register every shipped task, and two ids that take any `task=`; again changes nothing.

    `ht_bench/DataStream-v1` and `ht_bench/EnvironmentStream-v1` take a name or a TOML file's path.
    """
    _register("ht_bench/DataStream-v1", DATA, {})
    _register("ht_bench/EnvironmentStream-v1", ENVIRONMENTS, {})
    for path in _shipped():
        family = glance(path, "family")
        if family:  # suites and the lock have none
            control = family in FAMILIES and FAMILIES[family].is_control
            places = ENVIRONMENTS if control else DATA
            _register(environment_id(path.stem), places, {"task": path.stem})


def _shipped() -> list[Path]:
    try:
        return sorted(folder("tasks").glob("*.toml"))
    except UsageError:  # an installation without its data: whoever asks for a task is told
        return []


def _register(identifier: str, places: tuple[str, str], kwargs: dict[str, str]) -> None:
    if identifier not in registry:
        single, vector = places
        register(identifier, entry_point=single, vector_entry_point=vector, kwargs=kwargs)
