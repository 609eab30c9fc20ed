"""An agent and its environment in the middle of a phase, as a checkpoint holds them.

What an exact continuation needs beside the policy: counters, replay buffer, all random states, and
the environment. Environments whose state is plain numbers can be saved: Gymnasium's classic
control and toy text. Games of the ALE and MuJoCo's simulations cannot.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from ht_bench.streams.reinforcement import ReinforcementTask

_PLAIN_ENVIRONMENTS = ("gymnasium.envs.classic_control", "gymnasium.envs.toy_text")
_PLAIN_WRAPPERS = ("time-limit", "task-id")
_REMADE = (
    *("env", "spec", "_cached_spec", "_saved_kwargs", "metadata", "_metadata"),
    *("action_space", "observation_space", "_action_space", "_observation_space"),
    *("screen", "surf", "clock", "window_surface", "results_writer"),
)
"""Attributes that a new environment has alike."""
_COUNTERS = (
    *("num_timesteps", "_episode_num", "_n_updates", "_n_calls"),
    *("exploration_rate", "_current_progress_remaining", "_last_obs", "_last_episode_starts"),
)


def is_resumed_inside_phases(task: ReinforcementTask) -> bool:
    """Whether a run of the task can be saved in the middle of a phase, and not at its end alone."""
    plain = all(wrapper["name"] in _PLAIN_WRAPPERS for wrapper in task.environment.wrappers)
    ids = {task.environment_of(index)[0] for index in range(len(task.phases))}
    places = [gymnasium.registry[i].entry_point for i in ids if i in gymnasium.registry]
    known = len(places) == len(ids) and all(
        isinstance(place, str) and place.startswith(_PLAIN_ENVIRONMENTS) for place in places
    )
    # A noise matrix of gSDE is drawn before a rollout, and so would be drawn twice.
    return known and plain and not task.agent.settings.get("use_sde", False)


def agent_state(model: Any, env: DummyVecEnv) -> dict[str, Any]:
    """Return the state of agent and environment at a rollout's start: tensors, numbers, lists."""
    state = {
        "counters": {name: encode(vars(model)[name]) for name in _COUNTERS if name in vars(model)},
        "environments": [[_attributes(layer) for layer in _layers(single)] for single in env.envs],
        "random": _random_states(model),
    }
    if getattr(model, "replay_buffer", None) is not None:
        state["buffer"] = _buffer_state(model.replay_buffer)
    if getattr(model, "ent_coef_optimizer", None) is not None:
        state["entropy"] = [model.log_ent_coef.detach(), model.ent_coef_optimizer.state_dict()]
    return state


def restore_agent(model: Any, env: DummyVecEnv, state: Mapping[str, Any]) -> None:
    """Take over what `agent_state` returned, in a new environment of the same phase."""
    for name, value in state["counters"].items():
        setattr(model, name, decode(value))
    for single, layers in zip(env.envs, state["environments"], strict=True):
        for layer, attributes in zip(_layers(single), layers, strict=True):
            vars(layer).update({name: decode(value) for name, value in attributes.items()})
    if "buffer" in state:
        _restore_buffer(model.replay_buffer, state["buffer"])
    if "entropy" in state:
        with torch.no_grad():
            model.log_ent_coef.copy_(state["entropy"][0])
        model.ent_coef_optimizer.load_state_dict(state["entropy"][1])
    _restore_random_states(model, state["random"])


# ---- environments ----


def _layers(environment: Any) -> Iterator[Any]:
    while isinstance(environment, gymnasium.Wrapper):
        yield environment
        environment = environment.env
    yield environment


def _attributes(layer: Any) -> dict[str, Any]:
    return {name: encode(value) for name, value in vars(layer).items() if name not in _REMADE}


# ---- random states ----


def _random_states(model: Any) -> dict[str, Any]:
    device = torch.device(model.device)
    return {
        "python": encode(random.getstate()),
        "numpy": encode(np.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        "actions": encode(model.action_space.np_random),
    }


def _restore_random_states(model: Any, states: Mapping[str, Any]) -> None:
    random.setstate(decode(states["python"]))
    np.random.set_state(decode(states["numpy"]))
    torch.set_rng_state(states["torch"].cpu())
    for state in states["cuda"]:
        torch.cuda.set_rng_state(state.cpu(), torch.device(model.device))
    model.action_space._np_random = decode(states["actions"])


# ---- replay buffers ----


def _buffer_state(buffer: Any) -> dict[str, Any]:
    # The row after the last one may hold the last next observation (optimize_memory_usage).
    rows = buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)
    kept: dict[str, Any] = {}
    for name, value in vars(buffer).items():
        if _is_rows(value, buffer):
            kept[name] = _encode_rows(value[:rows])
        elif isinstance(value, dict) and value and all(_is_rows(v, buffer) for v in value.values()):
            kept[name] = {key: _encode_rows(part[:rows]) for key, part in value.items()}
        elif isinstance(value, torch.Generator):
            kept[name] = value.get_state()
    return {"pos": buffer.pos, "full": buffer.full, "rows": rows, "kept": kept}


def _restore_buffer(buffer: Any, state: Mapping[str, Any]) -> None:
    buffer.pos, buffer.full = state["pos"], state["full"]
    for name, saved in state["kept"].items():
        value = getattr(buffer, name)
        if isinstance(value, torch.Generator):
            value.set_state(saved.cpu())
        elif isinstance(value, dict):
            for key, part in saved.items():
                value[key][: state["rows"]] = _decode_rows(part, value[key])
        else:
            value[: state["rows"]] = _decode_rows(saved, value)


def _is_rows(value: Any, buffer: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.shape[:1] == (buffer.buffer_size,)


def _encode_rows(rows: Any) -> Any:
    return rows.cpu() if isinstance(rows, Tensor) else encode(rows)


def _decode_rows(saved: Any, into: Any) -> Any:
    """Return rows for an array or a tensor, whichever they were saved from."""
    rows = saved.cpu() if isinstance(saved, Tensor) else torch.from_numpy(decode(saved))
    return rows if isinstance(into, Tensor) else rows.numpy()


# ---- values ----


def encode(value: Any) -> Any:
    """Return a value as lists, numbers and tensors, which are read without running code.

    Raises TypeError for what is neither data nor a generator of NumPy's.
    """
    if value is None or (isinstance(value, bool | int | float | str) and not _is_numpy(value)):
        return value
    if isinstance(value, np.ndarray):
        name = value.dtype.str
        # Whatever the type: torch has no 32-bit numbers without sign, of which seeds are made.
        return [
            "array",
            name,
            list(value.shape),
            torch.frombuffer(_bytes(value), dtype=torch.uint8),
        ]
    if _is_numpy(value):
        return ["scalar", value.dtype.str, value.item()]
    if isinstance(value, np.random.Generator):
        return ["generator", encode(value.bit_generator.state)]
    if isinstance(value, Mapping):
        return ["dict", [[encode(key), encode(item)] for key, item in value.items()]]
    if isinstance(value, deque):
        return ["deque", value.maxlen, [encode(item) for item in value]]
    if isinstance(value, list | tuple):
        return ["list" if isinstance(value, list) else "tuple", [encode(item) for item in value]]
    raise TypeError(f"{type(value).__name__} cannot be part of a checkpoint")


def decode(value: Any) -> Any:
    """Return what `encode` was given."""
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == "array":
        name, shape, content = rest
        flat = np.frombuffer(content.cpu().numpy().tobytes(), name, math.prod(shape))
        return flat.reshape(shape).copy()
    if kind == "scalar":
        return np.dtype(rest[0]).type(rest[1])
    if kind == "generator":
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = decode(rest[0])
        return generator
    if kind == "dict":
        return {decode(key): decode(item) for key, item in rest[0]}
    if kind == "deque":
        return deque([decode(item) for item in rest[1]], rest[0])
    items = [decode(item) for item in rest[0]]
    return items if kind == "list" else tuple(items)


def _is_numpy(value: Any) -> bool:
    return isinstance(value, np.generic)


def _bytes(array: np.ndarray[Any, Any]) -> bytearray:
    return bytearray(np.ascontiguousarray(array).tobytes() or bytes(array.itemsize))
