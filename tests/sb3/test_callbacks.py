"""Callbacks: what they tell the method and the logger, and that they leave training alone."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from ht_bench.envs.rl_stream import EnvironmentStream
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.sb3 import DiagnosticsCallback, EvaluationCallback, PhaseCallback
from ht_bench.sb3.diagnostics import last_observations

from .conftest import three_phases, tortoise_of

BUFFER = {"learning_starts": 10, "buffer_size": 200, "batch_size": 8, "learning_rate": 0.01}
ROLLOUT = {"n_steps": 8, "batch_size": 8, "n_epochs": 2, "learning_rate": 0.01}
AGENTS: dict[Any, Any] = {DQN: BUFFER, SAC: BUFFER, PPO: ROLLOUT, A2C: {"n_steps": 5}}
JUDGED = {"eval/return": "tortoise", "hare/return": "hare", "tortoise/return": "tortoise"}
DIAGNOSTICS = {"weights/norm", "weights/distance_from_init"} | {
    f"plasticity/{name}" for name in ("dormant_fraction", "effective_rank", "stable_rank", "srank")
}


@dataclasses.dataclass(eq=False)
class Told(Method):
    """Keeps (phase, environment steps, updates) of every boundary that it is told of."""

    name = "told"
    seen: ClassVar[list[tuple[int, ...]]] = []
    model: ClassVar[Any]

    def on_phase(self, index: int) -> None:
        self.seen.append((index, self.model.num_timesteps, self.model._n_updates))


class Kept(KVWriter):
    """A logger's output: key → [(step, value)]."""

    def __init__(self, model: Any) -> None:
        self.series: dict[str, list[tuple[int, float]]] = defaultdict(list)
        model.set_logger(Logger(None, [self]))

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        for key, value in key_values.items():
            self.series[key].append((step, value))


class Noise(gymnasium.Env[Any, Any]):
    """Noise as a vector, an image or both; 7 steps an episode, all of them of `seed` if given."""

    def __init__(self, kind: str = "Mlp", continuous: bool = False, seed: Any = None) -> None:
        image, vector = spaces.Box(0, 255, (36, 36, 1), np.uint8), spaces.Box(-2, 2, (3,))
        both = spaces.Dict({"image": image, "vector": vector})
        self.observation_space = {"Mlp": vector, "Cnn": image, "MultiInput": both}[kind]
        self.action_space = spaces.Box(-1, 1, (2,)) if continuous else spaces.Discrete(3)
        self.fixed = seed

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed if self.fixed is None else self.fixed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = float(np.sum(action) * self.np_random.normal())
        return self.observation_space.sample(), reward, self.steps == 7, False, {}


def make(cls: Any, env: Any, policy: str = "HareTortoiseMlp", **kwargs: Any) -> Any:
    arguments = {"net_arch": [8], "activation_fn": nn.ReLU, **kwargs}
    if policy.startswith("HareTortoise"):
        arguments["plasticity_kwargs"] = {"decay": 0.9, "reset_every": 25}
    return cls(f"{policy}Policy", env, policy_kwargs=arguments, seed=1, **AGENTS[cls])


def stream(copies: int = 1) -> DummyVecEnv:
    """Return copies of CartPole in three phases of 32 steps."""
    task = three_phases(32)
    return DummyVecEnv([lambda: EnvironmentStream(task, copies=copies, stream=100)] * copies)


def told(cls: Any, copies: int = 1) -> Any:
    """Return a model on these phases whose method is the one above."""
    Told.model = make(cls, VecMonitor(stream(copies)), "PlasticMlp", plasticity=Told)
    Told.seen.clear()
    return Told.model


def then(do: Callable[[dict[str, Any]], Any]) -> ConvertCallback:
    """Return a callback that calls `do(locals)` after each step."""
    return ConvertCallback(lambda here, _: do(here) is None)


def state(model: Any) -> list[Any]:
    """Return all that training leaves behind: hare, tortoise, modes and generators."""
    policy, modes = model.policy, [child.training for child in model.policy.modules()]
    weights = (*policy.parameters(), *tortoise_of(policy))
    weights = [tensor.detach().numpy().tobytes() for tensor in weights]
    drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return [weights, modes, drawn, model.action_space.np_random.bit_generator.state]


# ---- phases ----


@pytest.mark.parametrize(("forget", "kept"), [(True, 16), (False, 80)])
def test_off_policy_agents_are_told_at_the_first_step_of_a_phase(forget: bool, kept: int) -> None:
    model = told(DQN)
    model.learn(80, callback=PhaseCallback(forget=forget))
    assert [seen[:2] for seen in Told.seen] == [(1, 33), (2, 65)]
    assert model.replay_buffer.size() == kept


def test_on_policy_agents_are_told_at_the_next_rollouts_start() -> None:
    told(A2C).learn(80, callback=PhaseCallback())
    assert Told.seen == [(1, 35, 7), (2, 65, 13)]  # an update after every five steps
    told(PPO).learn(80, callback=PhaseCallback())
    assert Told.seen == [(1, 32, 8), (2, 64, 16)]  # two epochs after every eight


def test_copies_of_a_stream_change_phase_once() -> None:
    model = told(DQN, copies=3)
    model.learn(84, callback=PhaseCallback())
    assert [seen[:2] for seen in Told.seen] == [(1, 36), (2, 69)]
    assert model.replay_buffer.size() == 6
    told(PPO, copies=3).learn(96, callback=PhaseCallback())
    assert [seen[:2] for seen in Told.seen] == [(1, 48), (2, 72)]


@pytest.mark.parametrize(("cls", "steps"), [(DQN, 1), (PPO, 0)])
def test_a_boundary_between_two_calls_of_learn_is_told(cls: Any, steps: int) -> None:
    model, callback = told(cls), PhaseCallback()
    model.learn(32, callback=callback)
    assert Told.seen == []
    model.learn(16, callback=callback)
    assert [seen[:2] for seen in Told.seen] == [(1, steps)]
    model.learn(32, callback=callback, reset_num_timesteps=False)
    assert [seen[:2] for seen in Told.seen] == [(1, steps), (2, 32 + steps)]


# ---- evaluation ----


@pytest.mark.parametrize("cls", [DQN, PPO])
@pytest.mark.parametrize("policy", ["HareTortoiseMlp", "PlasticMlp"])
def test_returns_are_those_of_each_network(cls: Any, policy: str) -> None:
    model, expected = make(cls, Noise(), policy), defaultdict(list)
    kept, judge = Kept(model), EvaluationCallback(Noise(seed=7), every=20, episodes=2)

    def by_hand(_: Any) -> None:
        for key in JUDGED if model.num_timesteps % 20 == 0 else ():
            with model.policy.acting_as(JUDGED[key]):
                mean, _ = evaluate_policy(model.policy, Noise(seed=7), 2, warn=False)
            expected[key].append((model.num_timesteps, float(mean)))

    model.learn(160, callback=[judge, then(by_hand)])
    both = expected["hare/return"] != expected["tortoise/return"]
    assert both == (policy == "HareTortoiseMlp")
    for key in JUDGED if both else ["eval/return"]:
        assert kept.series[key] == expected[key] and len(expected[key]) == 8
        assert [(at, value) for at, name, value in judge.returns if name == key] == expected[key]
    assert len(judge.returns) == (24 if both else 8)


@pytest.mark.parametrize("cls", [DQN, PPO, SAC])
def test_evaluation_and_diagnostics_leave_training_as_it_is(cls: Any) -> None:
    ends = []
    for watched in (False, True):
        model = make(cls, Noise(continuous=cls is SAC))
        judge = EvaluationCallback(Noise(continuous=cls is SAC), every=25, episodes=1)
        model.learn(
            60, callback=[judge, DiagnosticsCallback(10, probe_every=20)] if watched else None
        )
        assert len(judge.returns) == 6 * watched
        ends.append(state(model))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(("copies", "steps"), [(1, [10, 20, 30]), (3, [12, 24])])
def test_steps_of_all_copies_count(copies: int, steps: list[int]) -> None:
    model = make(A2C, DummyVecEnv([Noise] * copies), "PlasticMlp")
    judge = EvaluationCallback(Noise(), every=10, episodes=1)
    model.learn(30, callback=judge)
    model.learn(30, callback=judge)  # counts anew
    model.learn(15, callback=judge, reset_num_timesteps=False)  # goes on counting
    assert [step for step, _, _ in judge.returns] == [*steps, *steps, steps[-1] + steps[0]]


# ---- diagnostics ----


def dormant(policy: Any, observations: Any) -> float:
    """Return the share of units that are zero on all observations."""
    seen: dict[nn.Module, Tensor] = {}
    for child in policy.parts[0].module.modules():
        if isinstance(child, nn.ReLU):
            child.register_forward_hook(lambda relu, _, output: seen.update({relu: output}))
    with policy.acting_as("hare"):
        policy.predict(observations, deterministic=True)
    if hasattr(policy, "predict_values"):
        policy.predict_values(policy.obs_to_tensor(observations)[0])
    units = [(layer.transpose(0, 1).flatten(1) == 0).all(1) for layer in seen.values()]
    return torch.cat(units).double().mean().item()


def trained(model: Any) -> Tensor:
    named = model.policy.named_parameters()
    return torch.cat([p.detach().flatten() for name, p in named if "target" not in name]).double()


@pytest.mark.parametrize("kind", ["Mlp", "Cnn", "MultiInput"])
@pytest.mark.parametrize("cls", [DQN, PPO, SAC])
def test_diagnostics_are_those_of_the_acting_network(cls: Any, kind: str) -> None:
    copies = [lambda: Noise(kind, continuous=cls is SAC)] * 2
    model = make(cls, DummyVecEnv(copies), f"HareTortoise{kind}")
    for child in model.policy.parts[0].module.modules():
        if isinstance(child, nn.Linear | nn.Conv2d) and len(child.bias) > 3:
            nn.init.constant_(child.bias[:3], -1e3)  # three units that no input wakes
    for method in model.policy.methods.values():
        method.resync()
    start, kept, steps, states, hand = trained(model), Kept(model), [], [], {}

    def keep(here: dict[str, Any]) -> None:
        steps.append(here["new_obs"] if kind == "MultiInput" else {"": here["new_obs"]})
        states.append(state(model) if model.num_timesteps == 40 else None)

    def by_hand(_: Any) -> None:
        if model.num_timesteps == 40:
            assert states[-1] == state(model)
            last = {k: np.concatenate([some[k] for some in steps])[-15:] for k in steps[0]}
            hand["plasticity/dormant_fraction"] = dormant(model.policy, last.get("", last))
            hand["weights/norm"] = trained(model).norm()
            hand["weights/distance_from_init"] = (trained(model) - start).norm()

    watching = DiagnosticsCallback(every=40, observations=15)
    model.learn(40, callback=[then(keep), watching, then(by_hand)])
    for key in DIAGNOSTICS:
        [(step, value)] = kept.series[key]
        assert step == 40 and np.isfinite(value)
        assert value == pytest.approx(float(hand.get(key, value)), rel=1e-5)
    assert 0 < hand["plasticity/dormant_fraction"] < 1 and hand["weights/distance_from_init"] > 0


def test_distances_are_from_the_first_learn_of_each_policy(tmp_path: Path) -> None:
    watching, first = DiagnosticsCallback(every=32), make(DQN, Noise())
    first.save(tmp_path / "model")
    loaded = DQN.load(tmp_path / "model", env=Noise())
    for model in (first, make(DQN, Noise("Cnn"), "HareTortoiseCnn"), loaded):
        kept, start, hand = Kept(model), trained(model), []
        away = partial(lambda m, s, to, _: to.append((trained(m) - s).norm()), model, start, hand)
        for _ in range(2):
            model.learn(32, callback=[watching, then(away)])
        found = [value for _, value in kept.series["weights/distance_from_init"]]
        assert found == pytest.approx([float(hand[31]), float(hand[63])], rel=1e-5)


@pytest.mark.parametrize("cls", [DQN, PPO, SAC])
def test_churn_is_since_the_last_look_on_what_was_looked_at_then(cls: Any) -> None:
    """Policy churn of discrete actions: the share of observations with another greedy action."""
    model = make(cls, Noise(continuous=cls is SAC), "PlasticMlp")
    kept, looked, greedy, hand = Kept(model), [], [], []

    def by_hand(_: Any) -> None:
        if model.num_timesteps % 20 == 0 and cls is not SAC:
            if greedy:
                now, _ = model.predict(looked[-1], deterministic=True)
                hand.append(float((now != greedy[-1]).mean()))
            looked.append(last_observations(list(watching._kept), 15))
            greedy.append(model.predict(looked[-1], deterministic=True)[0])

    watching = DiagnosticsCallback(every=20, observations=15, probe_every=40)
    model.learn(80, callback=[watching, then(by_hand)])
    assert [step for step, _ in kept.series["plasticity/feature_churn"]] == [40, 60, 80]
    assert all(value > 0 for _, value in kept.series["plasticity/feature_churn"])
    assert ("plasticity/output_churn" in kept.series) is (cls is not SAC)
    if cls is not SAC:
        found = [value for _, value in kept.series["plasticity/output_churn"]]
        assert found == pytest.approx(hand)
    probed = kept.series["plasticity/probe_steps"]
    assert [step for step, _ in probed] == [20, 60]
    assert all(0 <= value <= 200 for _, value in probed)


# ---- all three ----


def test_tensorboard_reads_back_what_was_recorded(tmp_path: Path) -> None:
    model, judge = make(DQN, stream()), EvaluationCallback(gymnasium.make("CartPole-v1"), 10, 1)
    model.tensorboard_log = str(tmp_path)
    model.learn(96, callback=[PhaseCallback(), judge, DiagnosticsCallback(every=30)])
    events = EventAccumulator(str(tmp_path / "DQN_1"), size_guidance={"scalars": 0}).Reload()
    read = {key: [(e.step, e.value) for e in events.Scalars(key)] for key in (*JUDGED, "phase")}
    for key in JUDGED:
        assert read[key] == [(step, value) for step, name, value in judge.returns if name == key]
    assert {(10, 0.0), (40, 1.0), (70, 2.0)} <= set(read["phase"])
    for key in DIAGNOSTICS:
        assert [event.step for event in events.Scalars(key)] == [30, 60, 90]


def test_wrong_use_is_told() -> None:
    evaluation, diagnostics = partial(EvaluationCallback, Noise()), DiagnosticsCallback
    for callback in (PhaseCallback(), evaluation(5), diagnostics(5)):
        with pytest.raises(UsageError, match=f"{type(callback).__name__} needs a plastic policy"):
            DQN("MlpPolicy", Noise()).learn(5, callback=callback)
    for kind, name in ((evaluation, "episodes"), (diagnostics, "observations")):
        for counts in ({"every": 0}, {"every": 5, name: 0}):
            with pytest.raises(UsageError, match="= 0: give a whole number of 1 or more"):
                kind(**counts)
    with pytest.raises(UsageError, match=r"every = 1000\.0: give a whole number"):
        evaluation(1e3)
    with pytest.raises(UsageError, match=r"no 'phase'; use a stream .* or call .*enter_phase"):
        make(DQN, Noise()).learn(5, callback=PhaseCallback())
