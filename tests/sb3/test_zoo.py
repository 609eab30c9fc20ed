"""rl_zoo3's samplers keep a file's method; with a stand-in for rl_zoo3, and with rl_zoo3."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ht_bench.errors import UsageError

WRITTEN = {"plasticity_kwargs": {"decay": 0.9}, "evaluate_as": "tortoise", "net_arch": [3]}


class Trial:
    """A trial that suggests the lowest number and the first choice, and keeps them."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def suggest(self, name: str, lowest: Any, *_: Any, **__: Any) -> Any:
        return self.params.setdefault(name, lowest)

    suggest_float = suggest_int = suggest

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self.params.setdefault(name, choices[0])


def sample(trial: Any, *_: Any) -> dict[str, Any]:
    return convert({"rate": trial.suggest_float("rate", 0.1, 1)})


def convert(parameters: dict[str, Any]) -> dict[str, Any]:
    assert set(parameters) == {"rate"}
    return {"learning_rate": parameters["rate"], "policy_kwargs": {"net_arch": [64]}}


class Manager:
    """An ExperimentManager that returns a trial's arguments."""

    def __init__(self, **hyperparameters: Any) -> None:
        self._hyperparams = hyperparameters

    def objective(self, trial: Any) -> dict[str, Any]:
        samplers: Any = sys.modules["rl_zoo3.hyperparams_opt"]
        return {**self._hyperparams, **samplers.HYPERPARAMS_SAMPLER["ppo"](trial, 2, 1, {})}


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, registered in a stand-in for rl_zoo3."""
    package, options, manager = (
        ModuleType(f"rl_zoo3{part}") for part in ("", ".hyperparams_opt", ".exp_manager")
    )
    options.HYPERPARAMS_SAMPLER = {"ppo": sample}  # type: ignore[attr-defined]
    options.HYPERPARAMS_CONVERTER = {"ppo": convert}  # type: ignore[attr-defined]
    manager.ExperimentManager = type("ExperimentManager", (Manager,), {})  # type: ignore[attr-defined]
    for module in (package, options, manager):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "ht_bench.sb3.zoo", raising=False)
    importlib.import_module("ht_bench.sb3.zoo").register()
    yield sys.modules["rl_zoo3.exp_manager"]
    sys.modules.pop("ht_bench.sb3.zoo", None)


@pytest.mark.parametrize(
    ("policy", "written", "expected", "drawn"),
    [
        ("MlpPolicy", {}, {}, set()),
        ("PlasticMlpPolicy", {}, {}, set()),
        (
            "PlasticMlpPolicy",
            {"plasticity": "l2", "plasticity_kwargs": {"strength": 0.1}},
            {"plasticity": "l2", "plasticity_kwargs": {"strength": 0.1}},
            {"plasticity"},
        ),
        (
            "HareTortoiseMlpPolicy",
            WRITTEN,
            {
                "plasticity_kwargs": {"decay": 0.9, "reset_every": 50},
                "evaluate_as": "tortoise",
            },
            {"plasticity", "plasticity_reset_every"},
        ),
        (
            "PlasticMlpPolicy",
            {"plasticity": "ema"},
            {"plasticity": "ema", "plasticity_kwargs": {"decay": 0.5**0.1}},
            {"plasticity", "plasticity_half_life"},
        ),
    ],
)
def test_a_trial_keeps_the_files_method_and_draws_what_is_open(
    zoo: Any, policy: str, written: Any, expected: Any, drawn: set[str]
) -> None:
    trial = Trial()
    made = zoo.ExperimentManager(policy=policy, policy_kwargs=written).objective(trial)
    assert made["policy_kwargs"] == {"net_arch": [64], **expected}
    assert set(trial.params) == {"rate", *drawn}
    convert: Any = sys.modules["rl_zoo3.hyperparams_opt"]
    again = convert.HYPERPARAMS_CONVERTER["ppo"](dict(trial.params))  # as a study is loaded
    assert again == {name: made[name] for name in ("learning_rate", "policy_kwargs")}


def test_a_method_that_is_no_text_is_kept_within_the_trial(zoo: Any) -> None:
    method = object()
    trial = Trial()
    made = zoo.ExperimentManager(policy_kwargs={"plasticity": method}).objective(trial)
    assert made["policy_kwargs"]["plasticity"] is method and set(trial.params) == {"rate"}


def test_without_rl_zoo3_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rl_zoo3", "rl_zoo3.hyperparams_opt", "rl_zoo3.exp_manager"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "ht_bench.sb3.zoo", raising=False)
    with pytest.raises(UsageError, match="pip install rl_zoo3"):
        importlib.import_module("ht_bench.sb3.zoo")


FILE = """\
CartPole-v1:
  n_timesteps: 200
  policy: HareTortoiseMlpPolicy
  learning_starts: 20
  buffer_size: 1000
  policy_kwargs: "dict(net_arch=[8], plasticity_kwargs=dict(decay=0.9, reset_every=50))"
  callback:
    - ht_bench.sb3.EvaluationCallback:
        every: 100
        episodes: 1
"""


@pytest.mark.evidence
def test_rl_zoo3_trains_and_optimizes(tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3")
    (tmp_path / "dqn.yml").write_text(FILE, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", "rl_zoo3.train", "--algo", "dqn"]
    command += ["--env", "CartPole-v1", "--gym-packages", "ht_bench.sb3", "-f", "logs", "-c"]
    command += ["dqn.yml", "--eval-freq", "100", "--eval-episodes", "1"]
    for more in ([], ["-optimize", "--n-trials", "1", "-n", "200", "--n-evaluations", "1"]):
        ended = subprocess.run(
            [*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "logs").rglob("best_model.zip"))
    assert "plasticity" in ended.stdout and "'reset_every': 50" in ended.stdout
