"""EvaluationCallback as an EvalCallback: normalisation, best model, files, envs it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, SAC
from stable_baselines3.common.callbacks import (
    BaseCallback,
    EvalCallback,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from ht_bench.errors import UsageError
from ht_bench.sb3 import EvaluationCallback

from .conftest import Sights, assert_equal, state

METHOD = {"net_arch": [8], "plasticity_kwargs": {"decay": 0.9, "reset_every": 20}}


class Shifted(gymnasium.Env[Any, Any]):
    """Observations near 1000; the reward is 1 where the action is their sign; 10 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def seen(self) -> Any:
        self.sign = int(self.np_random.integers(2))
        return np.array([1000 + 10 * (2 * self.sign - 1)], np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        reward, over = float(action == self.sign), self.steps == 10
        return self.seen(), reward, False, over, {"is_success": True} if over else {}


gymnasium.register("Shifted-v0", lambda: Shifted())


def vector(**settings: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(Shifted(), **settings)])


def normalised(training: bool = True, **settings: Any) -> VecNormalize:
    return VecNormalize(vector(), training=training, norm_reward=training, **settings)


def agent(env: Any, policy: str = "HareTortoiseMlpPolicy", **settings: Any) -> Any:
    kwargs = METHOD if "HareTortoise" in policy else {"net_arch": [8]}
    return A2C(
        policy, env, n_steps=10, learning_rate=0.01, seed=0, policy_kwargs=kwargs, **settings
    )


# ---- as an EvalCallback ----


def test_returns_are_those_of_an_eval_callback_under_normalisation() -> None:
    ours = EvaluationCallback(normalised(False), every=500, episodes=3)
    theirs = EvalCallback(normalised(False), eval_freq=500, n_eval_episodes=3, verbose=0)
    agent(normalised(), "PlasticMlpPolicy").learn(2000, callback=[ours, theirs])
    assert [step for step, *_ in ours.returns] == [500, 1000, 1500, 2000]
    assert ours.last_mean_reward == pytest.approx(theirs.last_mean_reward, abs=2.5)
    assert ours.last_mean_reward >= 8  # 5 where the statistics stay those of the start


def test_evaluation_leaves_statistics_and_rewards_alone() -> None:
    """Whatever `training` and `norm_reward` are, and the return is the environment's."""
    evaluation = VecNormalize(DummyVecEnv([Shifted]))
    training = normalised()
    callback = EvaluationCallback(evaluation, every=100, episodes=2, warn=False)
    agent(training).learn(100, callback=callback)
    assert evaluation.obs_rms.count == pytest.approx(training.obs_rms.count)
    assert evaluation.obs_rms.mean == pytest.approx(training.obs_rms.mean)
    assert evaluation.training and evaluation.norm_reward
    assert all(float(value * 2).is_integer() for *_, value in callback.returns)


def test_the_best_model_is_saved_and_logged_and_followed(tmp_path: Path) -> None:
    class Count(BaseCallback):
        def _on_step(self) -> bool:
            return self.parent is not None

    best, after = Count(), Count()
    callback = EvaluationCallback(
        eval_env=Monitor(Shifted()),
        eval_freq=100,
        n_eval_episodes=2,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        callback_on_new_best=best,
        callback_after_eval=after,
    )
    model = agent(vector()).learn(500, callback=callback)
    means = [value for _, key, value in callback.returns if key == "eval/return"]
    written = np.load(tmp_path / "log" / "evaluations.npz")
    assert written["timesteps"].tolist() == [100, 200, 300, 400, 500]
    assert written["results"].mean(1).tolist() == means
    assert written["ep_lengths"].shape == written["successes"].shape == (5, 2)
    hares = [value for _, key, value in callback.returns if key == "hare/return"]
    assert written["hare_results"].mean(1).tolist() == hares
    assert callback.best_mean_reward == max(means) and callback.last_mean_reward == means[-1]
    assert best.n_calls == sum(m > max([-1, *means[:i]]) for i, m in enumerate(means))
    assert after.n_calls == 5
    loaded = A2C.load(tmp_path / "best" / "best_model")
    assert loaded.num_timesteps == 100 * (1 + means.index(max(means)))
    assert loaded.policy.has_tortoise and model.policy.has_tortoise


def test_a_saved_best_model_is_hare_and_tortoise_not_exchanged(tmp_path: Path) -> None:
    callback = EvaluationCallback(vector(), 200, 1, best_model_save_path=str(tmp_path))
    model = agent(vector()).learn(200, callback=callback)
    loaded = A2C.load(tmp_path / "best_model")
    again = agent(vector()).learn(190)  # the last update comes after the evaluation
    assert_equal(state(loaded.policy), state(again.policy))
    both = [torch.cat([p.flatten() for p in m.policy.parameters()]) for m in (loaded, model)]
    assert not torch.equal(*both)


@pytest.mark.parametrize("stop", ["threshold", "no improvement"])
def test_training_is_stopped_as_sb3s_callbacks_ask(stop: str) -> None:
    given: dict[str, Any] = {"callback_on_new_best": StopTrainingOnRewardThreshold(-1, verbose=0)}
    if stop == "no improvement":
        given = {"callback_after_eval": StopTrainingOnNoModelImprovement(0, 1, verbose=0)}
    callback = EvaluationCallback(vector(), every=20, episodes=1, **given)
    model = agent(vector()).learn(10_000, callback=callback)
    assert model.num_timesteps < 1000


def test_eval_freq_counts_steps_of_the_vector() -> None:
    copies = DummyVecEnv([Shifted] * 3)
    callback = EvaluationCallback(Shifted(), eval_freq=10, episodes=1)
    agent(copies).learn(90, callback=callback)
    assert sorted({step for step, *_ in callback.returns}) == [30, 60, 90]


# ---- an environment for YAML files ----


@pytest.mark.parametrize("env", [None, "Shifted-v0"])
def test_an_environment_is_made_and_wrapped_as_in_training(env: Any) -> None:
    training = VecNormalize(
        VecFrameStack(DummyVecEnv([lambda: Monitor(gymnasium.make("Shifted-v0"))]), 3), clip_obs=5.0
    )
    callback = EvaluationCallback(env, every=50, episodes=1)
    agent(training).learn(100, callback=callback)
    made: Any = callback.eval_env
    assert isinstance(made, VecNormalize) and isinstance(made.venv, VecFrameStack)
    assert made.observation_space.shape == (3,) and made.clip_obs == 5.0
    assert made.obs_rms.mean == pytest.approx(training.obs_rms.mean)
    assert len(callback.returns) == 6


def test_a_stream_is_made_again_with_its_arguments() -> None:
    stream = gymnasium.make("ht_bench/SwapCartPoleDQN-v1", stream=7)
    callback = EvaluationCallback(every=40, episodes=1)
    DQN("PlasticMlpPolicy", stream, buffer_size=100).learn(40, callback=callback)
    assert callback.eval_env.get_attr("spec")[0].kwargs == stream.spec.kwargs


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (None, r"cannot make another training environment; give it env=…"),
        ("CartPol-v1", r"EvaluationCallback: Gymnasium cannot make 'CartPol-v1'"),
    ],
)
def test_an_environment_that_cannot_be_made_is_asked_for(env: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        agent(vector()).learn(20, callback=EvaluationCallback(env, every=10))


# ---- environments wrapped otherwise ----


@pytest.mark.parametrize(
    ("training", "evaluation", "sentence"),
    [
        (normalised, vector, r"has VecNormalize\(.*and the one for evaluation no VecNormalize"),
        (vector, normalised, r"has no VecNormalize and .* VecNormalize\("),
        (normalised, lambda: normalised(norm_obs=False), r"wrap both in the same way"),
        (lambda: VecFrameStack(vector(), 2), vector, r"observations are Box.*\(2,\).*\(1,\)"),
    ],
)
def test_other_wrappers_are_refused(training: Any, evaluation: Any, sentence: str) -> None:
    model = agent(training())
    before = state(model.policy)
    with pytest.raises(UsageError, match=sentence):
        model.learn(20, callback=EvaluationCallback(evaluation(), every=10))
    assert_equal(before, state(model.policy))


def test_the_training_environment_itself_is_refused() -> None:
    env = Shifted()
    for given in (env, Monitor(env), DummyVecEnv([lambda: env])):
        with pytest.raises(UsageError, match="is trained in"):
            agent(env).learn(20, callback=EvaluationCallback(given, every=10))


def test_wrappers_that_cannot_be_judged_are_warned_of() -> None:
    class Other(VecFrameStack):
        pass

    model = agent(Other(vector(), 1))
    with pytest.warns(UserWarning, match="wrapped in Other and .* in nothing"):
        model.learn(20, callback=EvaluationCallback(vector(), every=10, episodes=1))


def test_channels_may_stand_elsewhere_as_policies_allow() -> None:
    model = A2C("PlasticCnnPolicy", Sights(True, False), n_steps=5)
    assert isinstance(model.env, VecTransposeImage)
    callback = EvaluationCallback(Sights(True, False), every=5, episodes=1)
    model.learn(5, callback=callback)
    assert len(callback.returns) == 1


def test_an_unknown_argument_is_told() -> None:
    with pytest.raises(UsageError, match=r"no argument 'best_model_path'\. Did you mean 'best_mod"):
        EvaluationCallback(Shifted(), best_model_path="x")


# ---- a young tortoise ----


def look(model: Any) -> None:
    for _ in range(2):
        with model.policy.acting_as("tortoise"):
            pass


def test_early_points_of_a_curve_come_without_advice_and_a_users_own_look_with_it() -> None:
    """Also of a method together with another, and for each network of SAC; warnings are errors."""
    given = {"plasticity": "hare-tortoise+l2", "plasticity_kwargs": {"decay": 0.999}}
    model = SAC(
        "PlasticMlpPolicy", "Pendulum-v1", learning_starts=10, batch_size=8, buffer_size=100,
        policy_kwargs={"net_arch": [8], **given},
    )  # fmt: skip
    callback = EvaluationCallback(every=20, episodes=1)
    model.learn(40, callback=callback)
    assert len(callback.returns) == 6
    with pytest.warns(UserWarning, match="The tortoise is judged after 30 steps") as caught:
        look(model)
    assert len(caught) == 2  # one of each network


def test_other_warnings_of_an_evaluation_are_shown() -> None:
    class Warns(Shifted):
        def reset(self, **given: Any) -> Any:
            warnings.warn("The tortoise is judged after all.", UserWarning, stacklevel=1)
            return super().reset(**given)

    with pytest.warns(UserWarning, match="judged after all"):
        agent(vector()).learn(10, callback=EvaluationCallback(Warns(), every=10, episodes=1))
