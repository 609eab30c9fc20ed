"""The evaluation of hare and tortoise during `model.learn`, an EvalCallback of SB3's."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from ht_bench.errors import UsageError, did_you_mean
from ht_bench.methods.ema import ExponentialMovingAverage
from ht_bench.sb3.callbacks import Every, at_least_one
from ht_bench.sb3.wrapping import check_alike, make_like, normalised_as

Environment = gymnasium.Env[Any, Any] | VecEnv
_OF_SB3 = tuple(n for n in inspect.signature(EvalCallback).parameters if n != "verbose")


class EvaluationCallback(Every, EvalCallback):
    """Every `every` environment steps plays `episodes` episodes in `env`, deterministically.

    Records `eval/return`, of the weights the method evaluates, and, where it has a tortoise,
    `hare/return` and `tortoise/return`. `returns` keeps them: (environment steps, key, mean).
    Where `env` is one of ht-bench's streams it is put at the start of the phase in training; give
    it the same stream: `stream=` for environments, `seed` for data.

    It is an EvalCallback of stable-baselines3 and takes its arguments by name too:
    best_model_save_path, log_path, callback_on_new_best, callback_after_eval, deterministic,
    render, warn; eval_env, n_eval_episodes, and eval_freq, which counts steps of the vector. What
    is best, saved and logged there are the weights the method evaluates; `evaluations.npz` holds
    `hare_results` too. VecNormalize's statistics are taken over from training at each evaluation.
    MaskablePPO is evaluated with its action masks, unless `learn` was told `use_masking=False`.

    env: an environment; a VecEnv, wrapped as the one in training; an id; or None, another one of
    those in training. The last two are wrapped as in training, and made for YAML files.
    Raises UsageError for an unknown argument, and at `learn` for an `env` that cannot be made, is
    the training environment itself, is normalised otherwise, has other observations or lacks the
    masks.
    """

    def __init__(
        self,
        env: Environment | str | None = None,
        every: int = 10_000,
        episodes: int = 10,
        verbose: int = 0,
        **of_sb3: Any,
    ) -> None:
        for name in of_sb3:
            if name not in _OF_SB3:
                known = ("env", "every", "episodes", *_OF_SB3)
                raise UsageError(
                    f"EvaluationCallback has no argument '{name}'.{did_you_mean(name, known)} "
                    f"Known: {', '.join(known)}."
                )
        env, episodes = of_sb3.pop("eval_env", env), of_sb3.pop("n_eval_episodes", episodes)
        at_least_one("episodes", episodes)
        self._of_sb3 = {"n_eval_episodes": episodes, "verbose": verbose, **of_sb3}
        self._vector_steps = self._of_sb3.pop("eval_freq", None)
        self._begin(every if self._vector_steps is None else self._vector_steps)
        self.returns: list[tuple[int, str, float]] = []
        self._hare_results: list[list[float]] = []
        self._to_make = isinstance(env, str) or env is None
        if self._to_make:
            super(EvalCallback, self).__init__(None, verbose)
            self._identifier: Any = env
        else:
            self._set_up(env)

    def _set_up(self, env: Any) -> None:
        # Without a Monitor, SB3 warns that wrappers may have changed rewards: of a VecEnv, since
        # a bare environment is what the agent is trained in.
        warn = self._of_sb3.setdefault("warn", isinstance(env, VecEnv))
        EvalCallback.__init__(self, env, **{**self._of_sb3, "warn": warn})

    def init_callback(self, model: BaseAlgorithm) -> None:
        """Make the environment where only its id is known, and compare it with the training's."""
        training: Any = model.get_env()
        if self._to_make:
            self._to_make = False
            self._set_up(make_like(training, self._identifier, "EvaluationCallback"))
        check_alike(training, self.eval_env, "EvaluationCallback")
        if self._vector_steps is not None:
            self._begin(self._vector_steps * training.num_envs)
            self._vector_steps = None
        super().init_callback(model)

    def _init_callback(self) -> None:
        with warnings.catch_warnings():
            # Of another type, as it is beside a SubprocVecEnv; `check_alike` looks further.
            warnings.filterwarnings("ignore", "Training and eval env", UserWarning)
            super()._init_callback()

    def _on_training_start(self) -> None:
        super()._on_training_start()
        masked = _masked_evaluation(self.model) if self.locals.get("use_masking", True) else None
        self._evaluate: Any = masked or evaluate_policy
        if masked and not self.eval_env.has_attr("action_masks"):
            raise UsageError(
                "EvaluationCallback: the environment for evaluation has no action_masks; wrap it "
                "as the one in training (sb3_contrib's ActionMasker), or learn with "
                "use_masking=False."
            )

    def _act(self) -> bool:
        rewards, lengths = self._play("tortoise")
        self._keep("eval/return", rewards)
        if self.policy.has_tortoise:
            successes = self._is_success_buffer
            hare, _ = self._play("hare")
            self._is_success_buffer = successes
            self._keep("hare/return", hare)
            self._keep("tortoise/return", rewards)
            self._hare_results.append(hare)
        self._record(rewards, lengths)
        if self.log_path is not None:
            self._write(self.log_path, rewards, lengths)
        return self._judge()

    def _play(self, which: str) -> tuple[list[float], list[int]]:
        self._is_success_buffer = []
        phase = self.locals["infos"][0].get("phase")
        if phase is not None and self.eval_env.has_attr("tasks"):
            self.eval_env.set_options({"phase": int(phase)})
        with normalised_as(self.training_env, self.eval_env), self._acting_as(which):
            rewards, lengths = self._evaluate(
                self.model,
                self.eval_env,
                n_eval_episodes=self.n_eval_episodes,
                render=self.render,
                deterministic=self.deterministic,
                return_episode_rewards=True,
                warn=self.warn,
                callback=self._log_success_callback,
            )
        return rewards, lengths

    @contextmanager
    def _acting_as(self, which: str) -> Iterator[None]:
        """Act so without advice on a young tortoise: a curve has early points.

        Whoever evaluates by themselves afterwards still gets it.
        """
        parts = [p for m in self.policy.methods.values() for p in getattr(m, "parts", (m,))]
        averages = [part for part in parts if isinstance(part, ExponentialMovingAverage)]
        warned = [average._warned for average in averages]
        with ExitStack() as stack:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The tortoise is judged after", UserWarning)
                stack.enter_context(self.policy.acting_as(which))
            for average, before in zip(averages, warned, strict=True):
                average._warned = before
            yield

    def _keep(self, key: str, rewards: list[float]) -> None:
        value = float(np.mean(rewards))
        self.returns.append((self.num_timesteps, key, value))
        self.logger.record(key, value)

    def _record(self, rewards: list[float], lengths: list[int]) -> None:
        """Record what an EvalCallback does, under its keys."""
        self.last_mean_reward = float(np.mean(rewards))
        self.logger.record("eval/mean_reward", self.last_mean_reward)
        self.logger.record("eval/mean_ep_length", float(np.mean(lengths)))
        if self._is_success_buffer:
            self.logger.record("eval/success_rate", float(np.mean(self._is_success_buffer)))
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
        if self.verbose >= 1:
            deviation = np.std(rewards)
            print(
                f"Eval num_timesteps={self.num_timesteps}, "
                f"episode_reward={self.last_mean_reward:.2f} +/- {deviation:.2f}"
            )

    def _write(self, path: str, rewards: list[float], lengths: list[int]) -> None:
        self.evaluations_timesteps.append(self.num_timesteps)
        self.evaluations_results.append(rewards)
        self.evaluations_length.append(lengths)
        more: dict[str, Any] = {}
        if self._is_success_buffer:
            self.evaluations_successes.append(self._is_success_buffer)
            more["successes"] = self.evaluations_successes
        if self._hare_results:
            more["hare_results"] = self._hare_results
        np.savez(
            path,
            timesteps=self.evaluations_timesteps,
            results=self.evaluations_results,
            ep_lengths=self.evaluations_length,
            **more,
        )

    def _judge(self) -> bool:
        """Save the model where it is the best so far; call the callbacks after evaluations."""
        going_on = True
        if self.last_mean_reward > self.best_mean_reward:
            self.best_mean_reward = self.last_mean_reward
            if self.best_model_save_path is not None:
                self.model.save(Path(self.best_model_save_path) / "best_model")
            if self.callback_on_new_best is not None:
                going_on = self.callback_on_new_best.on_step()
        return going_on and (self.callback is None or self._on_event())


def _masked_evaluation(model: Any) -> Any:
    """Return sb3-contrib's evaluate_policy for MaskablePPO and its subclasses, None for others."""
    try:
        from sb3_contrib import MaskablePPO
        from sb3_contrib.common.maskable.evaluation import evaluate_policy as masked
    except ImportError:
        return None
    return masked if isinstance(model, MaskablePPO) else None
