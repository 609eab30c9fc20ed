"""The loop of agents: PROTOCOL's boundary rule, common random numbers, resuming, records."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.resolve import MethodSpec, find_class, resolve
from ht_bench.records.metrics import final_metric, retention
from ht_bench.records.record import check_record
from ht_bench.running.job import StackJob, run_stack
from ht_bench.streams.reinforcement import ReinforcementTask, parse_reinforcement
from ht_bench.training.device import Compute, settings
from ht_bench.training.reinforcement import ReinforcementRun

AGENTS: dict[str, dict[str, Any]] = {
    "dqn": {"learning_starts": 20, "buffer_size": 500, "batch_size": 16, "learning_rate": 0.02},
    "ppo": {"n_steps": 40, "batch_size": 20, "n_epochs": 2},
    "a2c": {},
    "qrdqn": {"learning_starts": 20, "train_freq": 4, "buffer_size": 500, "batch_size": 16},
    "sac": {"learning_starts": 20, "train_freq": 4, "buffer_size": 500, "batch_size": 16},
    "td3": {"learning_starts": 20, "train_freq": 4, "buffer_size": 500, "batch_size": 16},
}


def table(algorithm: str = "dqn", phases: int = 2, **changes: Any) -> dict[str, Any]:
    continuous = algorithm in ("sac", "td3")
    swapped = {"observations": "permuted"} if continuous else {"actions": "permuted"}
    return {
        "name": "tiny-v1",
        "family": "swap",
        "seeds": "100-101",
        "environment": {"id": "Pendulum-v1" if continuous else "CartPole-v1"},
        "agent": {
            "algorithm": algorithm,
            "settings": AGENTS[algorithm],
            "network": {"net_arch": [16]},
        },
        "evaluation": {"episodes": 1 if continuous else 2, "points": 2},
        "reference": {"random": -1200.0 if continuous else 22.0},
        "phases": [{"repeat": phases, "steps": 160, **swapped}],
        **changes,
    }


def make_task(*args: Any, **changes: Any) -> ReinforcementTask:
    return parse_reinforcement(table(*args, **changes), "tiny")


def spec(name: str, **values: Any) -> MethodSpec:
    return resolve(find_class(name), overrides=values)


def train(task: ReinforcementTask, method: MethodSpec, seed: int = 100) -> ReinforcementRun:
    with settings(Compute(), "highest"):
        run = ReinforcementRun(task, method, seed)
        run.train()
    return run


def job(task: ReinforcementTask, method: str = "none", out: Path | None = None) -> StackJob:
    return StackJob(task, spec(method), (100,), out=out, tensorboard=False)


def weights(run: ReinforcementRun) -> dict[str, torch.Tensor]:
    return {k: v for k, v in run.policy.state_dict().items() if not k.startswith("plasticity.")}


# ---- the boundary rule ----


class Boundary:
    """A run that shows its agent as each phase is about to start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[dict[str, Any]] = []
        begin = ReinforcementRun._begin

        def spied(run: ReinforcementRun, index: int) -> None:
            begin(run, index)
            model = run.model
            self.seen.append({
                "stored": model.replay_buffer.size() if hasattr(model, "replay_buffer") else 0,
                "steps": model.num_timesteps,
                "exploration": getattr(model, "exploration_rate", None),
                "calls": getattr(model, "_n_calls", 0),
                "moments": copy.deepcopy(run.policy.parts[0].optimizer.state_dict()["state"]),
                "weights": {k: v.clone() for k, v in weights(run).items()},
            })  # fmt: skip

        monkeypatch.setattr(ReinforcementRun, "_begin", spied)


def test_every_method_starts_a_phase_with_an_empty_buffer_and_schedules_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boundary = Boundary(monkeypatch)
    for name in ("none", "full-reset", "hare-tortoise"):
        boundary.seen.clear()
        train(make_task("dqn"), spec(name))
        for phase in boundary.seen:
            assert phase["stored"] == phase["steps"] == phase["calls"] == 0
            assert phase["exploration"] == 1.0
        assert bool(boundary.seen[1]["moments"]) == (name != "full-reset")


def test_what_differs_between_none_and_full_reset_is_network_and_moments_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Give `none` the fresh weights and no moments: its second phase is then full-reset's."""
    boundary = Boundary(monkeypatch)
    reset = train(make_task("dqn"), spec("full-reset"))
    fresh = boundary.seen[1]["weights"]
    begin = ReinforcementRun._begin

    def implant(run: ReinforcementRun, index: int) -> None:
        begin(run, index)
        if index == 1:
            run.policy.load_state_dict({**run.policy.state_dict(), **fresh})
            run.policy.parts[0].optimizer.state.clear()

    plain = train(make_task("dqn"), spec("none"))
    monkeypatch.setattr(ReinforcementRun, "_begin", implant)
    implanted = train(make_task("dqn"), spec("none"))
    ends = weights(reset)
    assert all(torch.equal(ends[k], v) for k, v in weights(implanted).items())
    assert not all(torch.equal(ends[k], v) for k, v in weights(plain).items())


def test_a_fresh_agent_knows_nothing_of_the_phase_before() -> None:
    """Under full-reset the second phase is the same whatever the first one was."""
    short = table("dqn")
    other = copy.deepcopy(short)
    short["phases"] = [{"steps": 160, "actions": "true"}, {"steps": 160}]
    other["phases"] = [{"steps": 320, "actions": "true"}, {"steps": 160}]
    first, second = (
        train(parse_reinforcement(each, "tiny"), spec("full-reset")) for each in (short, other)
    )
    ends = [run.history.curve(0)["rollout/return"] for run in (first, second)]
    assert ends[0][3:] == ends[1][3:] and ends[0][:3] != ends[1][:3]
    assert all(torch.equal(weights(first)[name], end) for name, end in weights(second).items())


@pytest.mark.parametrize("algorithm", AGENTS)
def test_all_methods_are_one_agent_in_the_first_phase(algorithm: str) -> None:
    curves = []
    methods = ("none", "full-reset", "shrink-perturb")
    for name in methods[: 3 if algorithm in ("dqn", "ppo", "sac") else 2]:
        run = train(make_task(algorithm), spec(name))
        curves.append(run.history.curve(0))
        assert run.steps_taken > 0
    starts = [curve["eval/return"][:3] for curve in curves]
    assert all(start == starts[0] for start in starts)
    assert curves[0]["eval/return"] != curves[1]["eval/return"] or algorithm in ("a2c", "ppo")


def test_two_runs_of_a_seed_are_equal_and_two_seeds_differ() -> None:
    task = make_task("ppo")
    first, again, other = (train(task, spec("hare-tortoise"), s) for s in (100, 100, 101))
    assert first.history.points == again.history.points
    assert first.history.points != other.history.points


def test_generators_of_the_program_are_left_alone() -> None:
    np.random.seed(5)
    torch.manual_seed(5)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    run_stack(job(make_task("dqn")))
    assert np.random.get_state()[1].tolist() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


# ---- the curve ----


def test_the_curve_has_a_point_at_each_phases_start_and_on_the_grid() -> None:
    curve = train(make_task("dqn"), spec("none")).history.curve(0)
    assert curve["phase"] == [0, 0, 0, 1, 1, 1]
    assert curve["step"] == [0, 80, 160, 160, 240, 320]
    assert all(value >= 8 for value in curve["eval/return"])
    assert "hare/return" not in curve


def test_hare_and_tortoise_are_both_logged_and_the_tortoise_is_judged(
    recwarn: pytest.WarningsRecorder,
) -> None:
    run = train(make_task("dqn"), spec("hare-tortoise", decay=0.99, reset_every=30))
    assert not [w for w in recwarn if "judged" in str(w.message)]  # a curve has early points
    curve = run.history.curve(0)
    assert curve["eval/return"] == curve["tortoise/return"]
    assert curve["hare/return"] != curve["tortoise/return"]


def test_evaluating_disturbs_nothing() -> None:
    rare, often = table("ppo"), table("ppo", evaluation={"episodes": 3, "points": 4})
    ends = [
        weights(train(parse_reinforcement(t, "t"), spec("hare-tortoise"))) for t in (rare, often)
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_final_metric_is_the_mean_over_the_last_phases_curve() -> None:
    [record] = run_stack(job(make_task("dqn")))
    curve = record["curve"]["eval/return"]
    expected = (curve[3] / 2 + curve[4] + curve[5] / 2) / 2
    assert final_metric(record, "swap", 0) == pytest.approx(expected)
    assert retention(record, 0) == pytest.approx(record["retention"][0])


def test_validation_plays_other_episodes() -> None:
    task = make_task("dqn")
    runs = [ReinforcementRun(task, spec("none"), 100, split) for split in ("test", "validation")]
    curves = []
    for run in runs:
        run.train()
        curves.append(run.history.curve(0))
    assert curves[0]["eval/return"] != curves[1]["eval/return"]
    assert curves[0]["rollout/return"] == curves[1]["rollout/return"]


def test_a_diverged_run_counts_as_a_uniform_policy() -> None:
    task = make_task("dqn", agent={
        "algorithm": "dqn", "network": {"net_arch": [16]},
        "settings": {**AGENTS["dqn"], "learning_rate": 1e30, "max_grad_norm": 1e30},
    })  # fmt: skip
    [record] = run_stack(job(task))
    assert record["status"] == "diverged"
    assert final_metric(record, "swap", 0) == 22.0
    check_record(record, "here")


# ---- records, resuming, refusing ----


def test_a_record_says_what_it_was_made_with() -> None:
    [record] = run_stack(job(make_task("ppo")))
    check_record(record, "here")
    assert record["reference"] == {"random": 22.0, "human": None}
    assert {"gymnasium", "stable-baselines3"} <= set(record["software"])
    assert record["steps"] == 2 * (160 // 40) * 2 * 2  # phases, rollouts, epochs, minibatches


@pytest.mark.parametrize("name", ["self-distillation", "early-stop", "layer-norm", "crelu"])
def test_a_method_of_the_supervised_loop_is_refused(name: str) -> None:
    with pytest.raises(Unsuitable, match="needs the supervised loop"):
        ReinforcementRun(make_task("dqn"), spec(name), 0)


def test_observations_may_be_dicts() -> None:
    """A game beside its task id is one: the diagnostics too look at every entry."""
    asked = table("dqn", evaluation={"episodes": 1, "points": 1})
    asked["environment"] = {
        "id": "ALE/Freeway-v5",
        "kwargs": {"frameskip": 1},
        "wrappers": [{"name": "atari", "screen_size": 40}, {"name": "task-id"}],
    }
    asked["agent"]["policy"] = "multi-input"
    asked["agent"]["settings"] |= {"buffer_size": 200}
    asked["phases"] = [{"steps": 32, "kwargs": {"mode": mode}} for mode in (0, 1)]
    asked["environment"]["wrappers"].insert(0, {"name": "time-limit", "max_episode_steps": 20})
    asked["family"] = "game-modes"
    run = ReinforcementRun(parse_reinforcement(asked, "tiny"), spec("hare-tortoise"), 0)
    history = run.train()
    assert [entry["phase"] for entry in history.points] == [0, 0, 1, 1]
    assert len(history.diagnostics) == 2


@pytest.mark.parametrize(("ratio", "updates"), [(0.25, 1), (1, 4), (2, 8)])
def test_the_replay_ratio_is_updates_per_step(ratio: float, updates: int) -> None:
    asked = table("dqn")
    asked["agent"] = {**asked["agent"], "replay_ratio": ratio}
    asked["agent"]["settings"] = {"learning_starts": 20, "train_freq": 4, "buffer_size": 500}
    run = ReinforcementRun(parse_reinforcement(asked, "tiny"), spec("none"), 0)
    assert run.model.gradient_steps == updates


@pytest.mark.parametrize(
    ("algorithm", "settings", "ratio", "sentence"),
    [
        ("dqn", {"train_freq": 4}, 0.3, r"0.3 makes 1.2 updates after every 4 steps"),
        ("dqn", {"train_freq": 4, "gradient_steps": 1}, 1, "replaces gradient_steps"),
        ("dqn", {"train_freq": [1, "episode"]}, 1, "'train_freq' is .*; write the number of steps"),
        ("ppo", {"n_steps": 40}, 1, "is for off-policy agents"),
    ],
)
def test_a_replay_ratio_that_cannot_be_kept_is_refused(
    algorithm: str, settings: dict[str, Any], ratio: float, sentence: str
) -> None:
    asked = table(algorithm)
    asked["agent"] = {"algorithm": algorithm, "settings": settings, "replay_ratio": ratio}
    with pytest.raises(UsageError, match=sentence):
        ReinforcementRun(parse_reinforcement(asked, "tiny"), spec("none"), 0)


@pytest.mark.parametrize("method", ["none", "full-reset"])
def test_an_agents_rounding_twin_begins_each_phase_a_bit_away(method: str) -> None:
    runs = []
    for twin in (0, 0, 1):
        run = ReinforcementRun(make_task("ppo"), spec(method), 100)
        run.twin = twin
        run.train()
        runs.append([parameter.detach().clone() for parameter in run.policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))
