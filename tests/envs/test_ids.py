"""Ids: their spelling, what is registered under them, and that registering is light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec, registry

import ht_bench
from ht_bench.envs import ids
from ht_bench.envs.ids import environment_id, register_all
from ht_bench.errors import UsageError
from ht_bench.streams.catalog import get_task, task_files
from ht_bench.streams.task import Task

SPELLED = {
    "warm-start-digits-v1": "WarmStartDigits-v1",
    "warm-start-mnist-v1": "WarmStartMNIST-v1",
    "warm-start-aug-cifar100-v1": "WarmStartAugCIFAR100-v1",
    "warm-start-cifar10-small-v12": "WarmStartCIFAR10Small-v12",
    "class-incremental-cifar100-v1": "ClassIncrementalCIFAR100-v1",
    "warm-start-tiny-imagenet-v1": "WarmStartTinyImageNet-v1",
    "swap-cartpole-dqn-v1": "SwapCartPoleDQN-v1",
    "swap-cartpole-ppo-v1": "SwapCartPolePPO-v1",
    "drift-pendulum-sac-v1": "DriftPendulumSAC-v1",
    "drift-acrobot-qrdqn-v1": "DriftAcrobotQRDQN-v1",
    "modes-space-invaders-v1": "ModesSpaceInvaders-v1",
    "games-5-v1": "Games5-v1",
    "atari-100k-ms_pacman-v1": "Atari100kMsPacman-v1",
    "slippery-ant-v1": "SlipperyAnt-v1",
    "without-version": "WithoutVersion",
}


@pytest.mark.parametrize(("task", "name"), SPELLED.items())
def test_an_id_spells_the_task_in_the_fields_words(task: str, name: str) -> None:
    assert environment_id(task) == f"ht_bench/{name}"


@pytest.mark.parametrize("name", task_files())
def test_every_shipped_task_is_registered(name: str) -> None:
    spec = registry[environment_id(name)]
    supervised = isinstance(get_task(name), Task)
    places = ids.DATA if supervised else ids.ENVIRONMENTS
    assert (spec.entry_point, spec.vector_entry_point) == places
    assert spec.kwargs == {"task": name}
    assert EnvSpec.from_json(spec.to_json()) == spec


def test_no_two_tasks_share_an_id() -> None:
    assert len({environment_id(name) for name in task_files()}) == len(task_files())


def test_the_generic_ids_take_any_task(tmp_path: Path) -> None:
    assert registry["ht_bench/EnvironmentStream-v1"].entry_point == ids.ENVIRONMENTS[0]
    text = task_files()["warm-start-digits-v1"].read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("warm-start-digits-v1", "mine"), encoding="utf-8")
    for task in ("warm-start-digits-v1", str(path)):
        env = gymnasium.make("ht_bench/DataStream-v1", task=task)
        assert env.observation_space.shape == (64,)
    for name in ("DataStream", "EnvironmentStream"):
        for make in (gymnasium.make, gymnasium.make_vec):
            example = rf'needs a task: gymnasium.make\("ht_bench/{name}-v1", task="'
            with pytest.raises(UsageError, match=example):
                make(f"ht_bench/{name}-v1")
            with pytest.raises(UsageError, match="Unknown task 'warm-start-digit-v1'"):
                make(f"ht_bench/{name}-v1", task="warm-start-digit-v1")


def test_registering_again_changes_nothing_and_warns_of_nothing() -> None:
    before = dict(registry)
    register_all()
    assert dict(registry) == before


def test_import_registers_without_torch_and_make_needs_only_the_package() -> None:
    program = """
import gymnasium, json, sys
env = gymnasium.make("ht_bench:ht_bench/WarmStartDigits-v1", split="validation")
again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()))
same = (env.reset(seed=3)[0] == again.reset(seed=3)[0]).all()
print(json.dumps([bool(same), [m for m in ("torch", "stable_baselines3") if m in sys.modules]]))
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, []]


def test_files_that_name_no_family_do_not_hinder_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken-a-v1.toml").write_bytes(b"\xff\xfe family =")
    (tmp_path / "broken-b-v1.toml").mkdir()
    (tmp_path / "broken-c-v1.toml").write_text("family = 'swap'\n", encoding="utf-8")
    monkeypatch.setattr(ids, "folder", lambda name: tmp_path)
    monkeypatch.setattr(ids, "registry", registered := {})
    monkeypatch.setattr(ids, "register", lambda name, **rest: registered.update({name: rest}))
    register_all()
    assert registered["ht_bench/BrokenC-v1"]["entry_point"] == ids.ENVIRONMENTS[0]
    assert len(registered) == 3  # with the two that take any task


def test_an_installation_without_tasks_can_still_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Path:
        raise UsageError("The data folder 'tasks' is missing.")

    monkeypatch.setattr(ids, "folder", missing)
    monkeypatch.setattr(ids, "registry", registered := {})
    monkeypatch.setattr(ids, "register", lambda name, **rest: registered.update({name: rest}))
    register_all()
    assert list(registered) == ["ht_bench/DataStream-v1", "ht_bench/EnvironmentStream-v1"]


def test_the_package_serves_its_names_still() -> None:
    assert "register_all" not in dir(ht_bench)
