"""Environments and wrappers from outside, in every form, and the sentences where they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import ht_bench
from ht_bench import registry
from ht_bench.envs.making import make
from ht_bench.envs.phase_environment import make_phase
from ht_bench.envs.wrappers import wrap
from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task

CODE = """\
import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-20, 20, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=8):
        if length < 1:
            raise ValueError("a corridor has a length")
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = 0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.place += 2 * int(action) - 1
        self.steps += 1
        seen = np.array([self.place], np.float32)
        return seen, float(action), self.place >= self.length, self.steps >= 10, {}


class Scaled(gymnasium.RewardWrapper):
    def __init__(self, env, factor=1.0, evaluation=False):
        super().__init__(env)
        self.factor = 1.0 if evaluation else factor

    def reward(self, reward):
        return self.factor * reward


def nothing(env):
    return None


if "Corridor-v7" not in gymnasium.registry:
    gymnasium.register("Corridor-v7", entry_point=Corridor)
"""
TASK = """\
name = "corridor-v1"
family = "swap"
seeds = "100"
environment = { id = "my_env.py:Corridor", wrappers = [{ name = "my_env.py:Scaled", factor = 3 }] }
agent = { algorithm = "ppo", settings = { n_steps = 16, batch_size = 16, n_epochs = 1 } }
evaluation = { episodes = 1, points = 1 }
reference = { random = 5.0 }

[[phases]]
steps = 16

[[phases]]
steps = 16
id = "my_env.py:Corridor"
kwargs = { length = 4 }
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "my_env.py"
    path.write_text(CODE, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(registry.environments, "_entries", dict(registry.environments._entries))
    yield
    gymnasium.registry.pop("Corridor-v7", None)


def lengths(environment: Any) -> int:
    environment.reset(seed=0)
    return int(environment.unwrapped.length)


def test_every_form_makes_it(code: Path) -> None:
    assert lengths(make(f"{code}:Corridor", {"length": 3}, "here")) == 3
    assert lengths(make("Corridor-v7", {}, "here", register=str(code))) == 8
    thing = ht_bench.registry.environments.find(f"{code}:Corridor")
    ht_bench.register_environment("Own/Corridor-v1")(thing)
    environment = make("Own/Corridor-v1", {"length": 5}, "here")
    assert lengths(environment) == 5 and environment.spec is not None
    assert environment.spec.id == "Own/Corridor-v1"
    assert "Own/Corridor-v1" not in gymnasium.registry  # Gymnasium's own names stay its own


def test_a_wrapper_has_its_options_and_is_told_of_evaluation(code: Path) -> None:
    inner = make(f"{code}:Corridor", {}, "here")
    wrapper = {"name": f"{code}:Scaled", "factor": 3}
    for evaluation, reward in ((False, 3), (True, 1)):
        wrapped = wrap(inner, wrapper, "here", evaluation)
        wrapped.reset()
        assert wrapped.step(1)[1] == reward


@pytest.mark.parametrize(
    ("identifier", "kwargs", "sentence"),
    [
        ("{}:Corridor", {"length": 0}, "here: 'Corridor' cannot be made: ValueError: a corridor"),
        ("{}:Corridor", {"width": 0}, "'Corridor' cannot be made: TypeError"),
        ("{}:Corridors", {}, "Did you mean 'Corridor'"),
        ("{}:Scaled", {}, "'Scaled' cannot be made: TypeError"),
        ("{}x:Corridor", {}, "There is no file"),
        ("Own/Corridors-v1", {}, "Gymnasium cannot make 'Own/Corridors-v1'"),
        ("no_such_module:Corridor", {}, "Could not import no_such_module"),
    ],
)
def test_refused(code: Path, identifier: str, kwargs: dict[str, Any], sentence: str) -> None:
    place = str(code) if "x:" not in identifier else str(code.with_name("my_env"))
    with pytest.raises(UsageError, match=sentence):
        make(identifier.format(place).replace("my_envx", "absent.py"), kwargs, "here")


@pytest.mark.parametrize(
    ("wrapper", "sentence"),
    [
        ({"name": "{}:Scaled", "width": 1}, "wrapper '.*:Scaled' failed: TypeError"),
        ({"name": "{}:nothing"}, "returns NoneType, no environment"),
        ({"name": "scaled"}, "there is no wrapper 'scaled'.*or file.py:Class"),
    ],
)
def test_refused_wrappers(code: Path, wrapper: dict[str, Any], sentence: str) -> None:
    inner = make(f"{code}:Corridor", {}, "here")
    with pytest.raises(UsageError, match=sentence):
        wrap(inner, {**wrapper, "name": wrapper["name"].format(code)}, "here")


def test_a_module_that_registers_must_be_there(code: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        make("Corridor-v7", {}, "here", register=str(code.with_name("absent.py")))


def test_a_task_trains_on_it(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder; two phases, the second with its own id; the hash follows the code."""
    path = code.with_name("corridor.toml")
    path.write_text(TASK, encoding="utf-8")
    (code.parent / "elsewhere").mkdir()
    monkeypatch.chdir(code.parent / "elsewhere")
    task = get_task(path)
    assert [lengths(make_phase(task, 0, index)) for index in (0, 1)] == [8, 4]  # type: ignore[arg-type]
    result = ht_bench.evaluate("none", path, progress=False)
    assert np.isfinite(result.final).all()
    code.write_text(CODE.replace("length=8", "length=7"), encoding="utf-8")
    assert get_task(path).sha256 != task.sha256


def test_a_task_names_the_module_that_registers(code: Path) -> None:
    text = TASK.replace("my_env.py:Corridor", "Corridor-v7", 1).replace(
        "{ id", '{ register = "my_env.py", id'
    )
    path = code.with_name("corridor.toml")
    path.write_text(text, encoding="utf-8")
    task = get_task(path)
    assert lengths(make_phase(task, 0, 0)) == 8  # type: ignore[arg-type]
