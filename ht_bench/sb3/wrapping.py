"""An environment to evaluate in: made as the one in training was, or compared with it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
    unwrap_vec_wrapper,
)

from ht_bench.envs.making import make
from ht_bench.errors import UsageError

_WITHOUT_EFFECT = (VecCheckNan, VecMonitor, VecVideoRecorder)
"""On observations and rewards."""
_NORMALISATION = ("norm_obs", "norm_obs_keys", "clip_obs", "epsilon")


def make_like(training: VecEnv, identifier: str | None, where: str) -> VecEnv:
    """Return one environment, `identifier` or another of training's, wrapped as training's are.

    Raises UsageError, saying `where`, for an environment or a wrapper that cannot be made again.
    """
    wrappers, base = _layers(training)
    single = make(identifier, {}, where) if identifier is not None else _again(base, where)
    made: VecEnv = DummyVecEnv([lambda: Monitor(single)])
    for wrapper in reversed(wrappers):
        made = _wrap_like(wrapper, made, where)
    return made


def _again(base: VecEnv, where: str) -> gymnasium.Env[Any, Any]:
    advice = "give it env=…, an environment wrapped as the one in training"
    spec = base.get_attr("spec")[0]
    if spec is None:
        raise UsageError(f"{where} cannot make another training environment; {advice}.")
    inner = [w for w in spec.additional_wrappers if not w.entry_point.endswith(":Monitor")]
    try:
        return gymnasium.make(dataclasses.replace(spec, additional_wrappers=tuple(inner)))
    except (gymnasium.error.Error, TypeError, ValueError) as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise UsageError(
            f"{where} cannot make another training environment ({text}); {advice}."
        ) from error


def _wrap_like(wrapper: VecEnvWrapper, made: VecEnv, where: str) -> VecEnv:
    if isinstance(wrapper, _WITHOUT_EFFECT):
        return made
    if type(wrapper) is VecNormalize:
        names = (*_NORMALISATION, "clip_reward", "gamma")
        settings = {name: getattr(wrapper, name) for name in names}
        return VecNormalize(made, training=False, norm_reward=False, **settings)
    if type(wrapper) is VecFrameStack:
        stacked: Any = wrapper.stacked_obs
        first = getattr(stacked, "channels_first", None)
        order = None if first is None else "first" if first else "last"
        return VecFrameStack(made, stacked.n_stack, order)
    if type(wrapper) is VecTransposeImage:
        return VecTransposeImage(made, skip=wrapper.skip)
    if type(wrapper) is VecExtractDictObs:
        return VecExtractDictObs(made, wrapper.key)
    raise UsageError(
        f"{where} cannot put another environment into {type(wrapper).__name__}; give it env=…, an "
        "environment wrapped as the one in training."
    )


def check_alike(training: VecEnv, evaluation: VecEnv, where: str) -> None:
    """Raise UsageError where returns in `evaluation` would not be those of the trained agent.

    Refused: the training environments themselves, another normalisation, other observations.
    Wrappers that only one of the two has, and that cannot be judged, are warned of.
    """
    if {id(e) for e in _singles(training)} & {id(e) for e in _singles(evaluation)}:
        raise UsageError(
            f"{where} was given the environment that is trained in, whose episodes it would break "
            "off; make another one."
        )
    normalisations = [_normalisation(env) for env in (training, evaluation)]
    if normalisations[0] != normalisations[1]:
        raise UsageError(
            f"{where}: the training environment has {_named(normalisations[0])} and the one for "
            f"evaluation {_named(normalisations[1])}; wrap both in the same way."
        )
    shapes = [_shapes(env.observation_space) for env in (training, evaluation)]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"{where}: observations are {training.observation_space} in training and "
            f"{evaluation.observation_space} in evaluation; wrap both in the same way."
        )
    names = [_other_wrappers(env) for env in (training, evaluation)]
    if names[0] != names[1]:
        warnings.warn(
            f"{where}: the training environment is wrapped in {', '.join(names[0]) or 'nothing'} "
            f"and the one for evaluation in {', '.join(names[1]) or 'nothing'}; returns may not be "
            "those of the trained agent.",
            UserWarning,
            stacklevel=2,
        )


@contextmanager
def normalised_as(training: VecEnv, evaluation: VecEnv) -> Iterator[None]:
    """Take over VecNormalize's statistics, which evaluation leaves; rewards are the raw ones."""
    mine, theirs = (unwrap_vec_wrapper(env, VecNormalize) for env in (evaluation, training))
    if mine is None or theirs is None:
        yield
        return
    if hasattr(theirs, "obs_rms"):
        mine.obs_rms = deepcopy(theirs.obs_rms)
    mine.ret_rms = deepcopy(theirs.ret_rms)
    before = mine.training, mine.norm_reward
    mine.training = mine.norm_reward = False
    try:
        yield
    finally:
        mine.training, mine.norm_reward = before


def _layers(env: VecEnv) -> tuple[list[VecEnvWrapper], VecEnv]:
    wrappers = []
    while isinstance(env, VecEnvWrapper):
        wrappers.append(env)
        env = env.venv
    return wrappers, env


def _singles(env: VecEnv) -> list[Any]:
    base = env.unwrapped
    return [single.unwrapped for single in base.envs] if hasattr(base, "envs") else [base]


def _normalisation(env: VecEnv) -> dict[str, Any] | None:
    wrapper = unwrap_vec_wrapper(env, VecNormalize)
    if wrapper is None:
        return None
    return {name: getattr(wrapper, name) for name in _NORMALISATION}


def _named(normalisation: dict[str, Any] | None) -> str:
    if normalisation is None:
        return "no VecNormalize"
    return f"VecNormalize({', '.join(f'{k}={v}' for k, v in normalisation.items())})"


def _shapes(space: spaces.Space[Any]) -> Any:
    """Return a space's shapes; an image's whatever its channels' place, which policies mend."""
    if isinstance(space, spaces.Dict):
        return {key: _shapes(inner) for key, inner in space.spaces.items()}
    return sorted(space.shape or ()), str(space.dtype)


def _other_wrappers(env: VecEnv) -> list[str]:
    plain = (*_WITHOUT_EFFECT, VecNormalize, VecTransposeImage)
    return sorted(type(w).__name__ for w in _layers(env)[0] if not isinstance(w, plain))
