"""Weights from a file into a network: state dicts, this package's checkpoints, SB3's zip files.

Nothing but tensors and plain values is read (`weights_only=True`).
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ht_bench.errors import UsageError, reason, shown, telling
from ht_bench.training.saved import check_sizes, load_tensors

HASH = 32
"""Bytes before what torch saved, in a checkpoint of `ht_bench.training.checkpoint`."""
WRAPPINGS = ("state", "state_dict", "model_state_dict", "model", "module", "network")
"""Keys under which programs keep a network's state dict, outermost first."""


def load_weights(module: nn.Module, path: Path, part: str = "", slot: int = 0) -> None:
    """Load the weights in a file into `module`.

    Args:
        module: the network.
        path: a state dict, a dict that holds one under a usual key, a checkpoint of `ht-bench run`,
            or the zip file of a stable-baselines3 agent (its policy).
        part: what the names of the network's weights begin with in the file, e.g. "q_net.".
        slot: which seed of a file that holds a stack of them.

    Raises:
        UsageError: for a file that cannot be read, or that holds another network's weights.

    """
    state = _state_dict(path)
    tensors = {k[len(part) :]: v for k, v in state.items() if k.startswith(part)}
    if not tensors:
        raise UsageError(f"No weight in {path} is called '{part}…'; it has {_some(state)}.")
    own = module.state_dict()
    try:
        module.load_state_dict({k: _of_seed(v, own.get(k), slot) for k, v in tensors.items()})
    except (RuntimeError, IndexError) as error:
        raise UsageError(
            f"The weights in {path} are not this network's: {reason(error)}; name the network that "
            "they are of, or the part of them."
        ) from error


def read_saved(path: Path, what: str = "weights") -> Any:
    """Return what torch saved in a file, or the policy in an agent's zip file; no code runs.

    Raises UsageError, which says that the file holds no `what`, for anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Could not read {path}: {error.strerror or error}.") from error
    if content[HASH : HASH + 2] == b"PK":
        content = content[HASH:]
    try:
        with telling(f"{path} holds no {what}"):
            return load_tensors(io.BytesIO(_policy(content)))
    except UsageError as error:
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise UsageError(
                f"{path} holds more than weights, and only weights are read: save the network's "
                "state_dict(), or tensors alone."
            ) from error
        raise


def _policy(content: bytes) -> bytes:
    """Return the policy's file where `content` is an agent's zip file, else `content`."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if "policy.pth" not in archive.namelist():
            return content
        check_sizes(archive, len(content))
        return _policy(archive.read("policy.pth"))


def _state_dict(path: Path) -> dict[str, Tensor]:
    state = read_saved(path)
    for key in WRAPPINGS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    weights = {k: v for k, v in state.items() if isinstance(v, Tensor)} if _is_dict(state) else {}
    if not weights:
        raise UsageError(f"{path} holds no state dict; save the network's state_dict().")
    return weights


def _is_dict(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(key, str) for key in state)


def _of_seed(tensor: Tensor, own: Tensor | None, slot: int) -> Tensor:
    """Return one seed of a stack's tensor, where the network's own is of a lone one."""
    if own is None or tensor.shape == own.shape or not tensor.dim():
        return tensor
    if tensor.shape[1:] == own.shape:
        return tensor[slot]
    if own.shape[:1] == (1,) and tensor.shape[1:] == own.shape[1:]:
        return tensor[slot][None]
    return tensor


def _some(state: dict[str, Tensor]) -> str:
    names = [shown(name).strip("'") for name in list(state)[:4]]
    return ", ".join(names[:3]) + (f" and {len(state) - 3} more" if len(state) > 3 else "")
