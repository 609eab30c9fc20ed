"""rl_zoo3 with plastic policies: `python -m rl_zoo3.train … --gym-packages ht_bench.sb3.zoo`.

Training and enjoying need nothing but the import. `-optimize` draws `policy_kwargs` anew in each
trial, and so would train every trial without what a hyperparameter file says of the method. Here
each sampler is followed by one that keeps it, and that draws what the file leaves open of Hare &
Tortoise and of EMA: the half-life of the average and the interval of resets, in gradient steps.

Atari and MiniGrid are evaluated there with stochastic actions, which are the hare's;
`policy_kwargs: "dict(evaluate_as='tortoise')"` has the tortoise evaluated.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import ht_bench.sb3  # noqa: F401 (makes the policies' names known)
from ht_bench.errors import UsageError

KEPT = ("plasticity", "plasticity_kwargs", "tortoise_target", "evaluate_as", "act_as", "fast")
"""Arguments of a plastic policy that a trial keeps as the hyperparameter file gives them."""
HALF_LIFE, RESET_EVERY, FROM_FILE = "plasticity_half_life", "plasticity_reset_every", "plasticity"
"""Names of a trial's parameters; the last one is what the file says, so that studies hold it."""
_given: ContextVar[Mapping[str, Any]] = ContextVar("given")


def register() -> None:
    """Let rl_zoo3's samplers keep and draw a method's hyperparameters; again changes nothing.

    Raises UsageError where rl_zoo3 is not installed.
    """
    try:
        samplers: Any = importlib.import_module("rl_zoo3.hyperparams_opt")
        manager: Any = importlib.import_module("rl_zoo3.exp_manager").ExperimentManager
    except ImportError as error:
        raise UsageError(f"rl_zoo3 cannot be imported ({error}); pip install rl_zoo3.") from error
    if hasattr(manager, "keeps_plasticity"):
        return
    manager.keeps_plasticity = True
    manager.objective = _told_of_the_file(manager.objective)
    for name, sample in samplers.HYPERPARAMS_SAMPLER.items():
        samplers.HYPERPARAMS_SAMPLER[name] = _sampler(sample)
    for name, convert in samplers.HYPERPARAMS_CONVERTER.items():
        samplers.HYPERPARAMS_CONVERTER[name] = _converter(convert)


def _told_of_the_file(objective: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(objective)
    def told(manager: Any, trial: Any) -> Any:
        with _giving(manager._hyperparams):
            return objective(manager, trial)

    return told


@contextmanager
def _giving(hyperparameters: Mapping[str, Any]) -> Iterator[None]:
    token = _given.set(hyperparameters)
    try:
        yield
    finally:
        _given.reset(token)


def _sampler(sample: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(sample)
    def sampled(trial: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        drawn = sample(trial, *args, **kwargs)
        given = _given.get({})
        of_file = given.get("policy_kwargs") or {}
        kept = {name: of_file[name] for name in KEPT if name in of_file}
        if kept and _is_literal(kept):
            trial.suggest_categorical(FROM_FILE, [repr(kept)])
        return _joined(drawn, kept, _draw(trial, given.get("policy"), kept))

    return sampled


def _converter(convert: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(convert)
    def converted(parameters: dict[str, Any]) -> dict[str, Any]:
        others = dict(parameters)
        kept = ast.literal_eval(others.pop(FROM_FILE, "{}"))
        drawn = {name: others.pop(name) for name in (HALF_LIFE, RESET_EVERY) if name in others}
        return _joined(convert(others), kept, _hyperparameters(drawn))

    return converted


def _draw(trial: Any, policy: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Draw what averages the method's hyperparameters of the file leave open."""
    default = "hare-tortoise" if str(policy).startswith("HareTortoise") else "none"
    method, written = kept.get("plasticity", default), kept.get("plasticity_kwargs", {})
    drawn: dict[str, Any] = {}
    if method in ("hare-tortoise", "ema") and "decay" not in written:
        drawn[HALF_LIFE] = trial.suggest_float(HALF_LIFE, 10.0, 10_000.0, log=True)
    if method == "hare-tortoise" and "reset_every" not in written:
        drawn[RESET_EVERY] = trial.suggest_int(RESET_EVERY, 50, 50_000, log=True)
    return _hyperparameters(drawn)


def _hyperparameters(drawn: Mapping[str, Any]) -> dict[str, Any]:
    hyperparameters: dict[str, Any] = {}
    if HALF_LIFE in drawn:
        hyperparameters["decay"] = 0.5 ** (1 / drawn[HALF_LIFE])
    if RESET_EVERY in drawn:
        hyperparameters["reset_every"] = drawn[RESET_EVERY]
    return hyperparameters


def _joined(
    drawn: dict[str, Any], kept: Mapping[str, Any], hyperparameters: Mapping[str, Any]
) -> dict[str, Any]:
    policy = {**drawn.get("policy_kwargs", {}), **kept}
    if hyperparameters:
        policy["plasticity_kwargs"] = {**kept.get("plasticity_kwargs", {}), **hyperparameters}
    return {**drawn, "policy_kwargs": policy} if policy else drawn


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


register()
