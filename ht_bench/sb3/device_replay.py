"""Replay buffers that sample with torch: stored on the CPU as before, on CUDA as tensors there.

What a batch consists of is first drawn on the host, from the generators stable-baselines3 draws
from and in its order, as one tensor of whole numbers; `gather` is then tensor arithmetic alone, so
that a captured CUDA graph can hold it. Images lie with their channels last.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.sb3.random_shift import (
    RandomShiftNStepReplayBuffer,
    RandomShiftReplayBuffer,
    shift_last,
)

_ROWS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_IMAGE_AXES = (0, 1, 3, 4, 2)  # of [row, environment, channel, height, width], channels last


class Rows(NamedTuple):
    """What is stored, [row × environment, …] each, sharing memory with the buffer's own arrays.

    powers: of an n-step buffer, gamma to the power of 0 … n_steps.
    """

    observations: Tensor
    next_observations: Tensor | None
    actions: Tensor
    rewards: Tensor
    dones: Tensor
    timeouts: Tensor
    powers: Tensor | None


class DeviceStorage(ABC):  # noqa: B024 (as the stock class, or no instance could change to it)
    """Mixin before a ReplayBuffer of stable-baselines3: samples with torch, on `device`.

    Index draws, dtypes and values are the stock buffer's. On the CPU the arrays stay NumPy's, those
    of images in another memory order; elsewhere they are tensors. Raises UsageError for a batch
    that VecNormalize is to normalise elsewhere than on the CPU.
    """

    _rows: Rows | None = None
    _rows_device: torch.device | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows = None

    @property
    def rows(self: Any) -> Rows:
        """The stored tensors, on the device that the buffer is told to be on."""
        device = torch.device(self.device)
        if self._rows is None or self._rows_device != device:
            self._rows, self._rows_device = self._place(device), device
        rows: Rows = self._rows
        return rows

    def _place(self: Any, device: torch.device) -> Rows:
        """Lay out the arrays for `device`, and return them flat."""
        begun = self.pos > 0 or self.full
        flat: dict[str, Any] = {"next_observations": None}
        for name in _ROWS:
            if not hasattr(self, name):
                continue
            array = getattr(self, name)
            images = array.ndim == 5 and str(array.dtype).endswith("uint8")
            laid = _laid_out(array, images, device, begun)
            setattr(self, name, laid)
            tensor = laid if isinstance(laid, Tensor) else torch.from_numpy(laid)
            tensor = tensor.permute(_IMAGE_AXES) if images else tensor
            flat[name] = tensor.flatten(0, 1)
        steps = getattr(self, "n_steps", None)
        powers = None
        if steps is not None:
            powers = torch.from_numpy(self.gamma ** np.arange(steps + 1, dtype=np.float32))
            powers = powers.to(device)
        return Rows(**flat, powers=powers)

    def add(
        self: Any, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: Any
    ) -> None:
        """Store a transition of each environment; arguments are those of ReplayBuffer."""
        self._rows = self.rows  # placed, before anything is stored
        if isinstance(self.rewards, np.ndarray):
            super().add(obs, next_obs, action, reward, done, infos)  # type: ignore[misc]
            return
        ahead = (self.pos + 1) % self.buffer_size if self.optimize_memory_usage else self.pos
        later = self.observations if self.optimize_memory_usage else self.next_observations
        self._write(self.observations, self.pos, obs)
        self._write(later, ahead, next_obs)
        self._write(self.actions, self.pos, action)
        self._write(self.rewards, self.pos, reward)
        self._write(self.dones, self.pos, done)
        if self.handle_timeout_termination:
            cut = [info.get("TimeLimit.truncated", False) for info in infos]
            self._write(self.timeouts, self.pos, np.array(cut))
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def _write(self, into: Tensor, row: int, values: Any) -> None:
        given = torch.from_numpy(np.ascontiguousarray(values))
        into[row].copy_(given.reshape(into.shape[1:]), non_blocking=True)

    def reset(self: Any) -> None:
        """Empty the buffer."""
        super().reset()  # type: ignore[misc]

    # ---- sampling ----

    def draw(self: Any, batch_size: int) -> Tensor:
        """Return what a batch is made of, int64 [k] on the CPU, drawn as the stock buffer does."""
        if not self.optimize_memory_usage:
            rows = np.random.randint(0, self.size(), size=batch_size)
        elif self.full:
            drawn = np.random.randint(1, self.buffer_size, size=batch_size)
            rows = (drawn + self.pos) % self.buffer_size
        else:
            rows = np.random.randint(0, self.pos, size=batch_size)
        return self._complete(rows)  # type: ignore[no-any-return]

    def _complete(self: Any, rows: Any) -> Tensor:
        """Return rows, environments, the newest row and the shifts of both images as one tensor."""
        environments = np.random.randint(0, self.n_envs, size=len(rows))
        newest = [(self.pos - 1) % self.buffer_size]
        whole = torch.from_numpy(np.concatenate([rows, environments, newest]).astype(np.int64))
        if not getattr(self, "pad", 0):
            return whole
        offsets = [
            torch.randint(2 * self.pad + 1, (len(rows), 2), generator=self._shifts) for _ in "ab"
        ]
        return torch.cat([whole, *(offset.flatten() for offset in offsets)])

    def gather(self: Any, drawn: Tensor, batch_size: int) -> ReplayBufferSamples:
        """Return the batch that `drawn` (of `draw`, on the buffer's device) names."""
        stored = self.rows
        rows, environments = drawn[:batch_size], drawn[batch_size : 2 * batch_size]
        places = rows * self.n_envs + environments
        observations = stored.observations.index_select(0, places)
        actions = stored.actions.index_select(0, places)
        newest = drawn[2 * batch_size]
        following, rewards, dones, discounts = self._follow(stored, rows, environments, newest)
        if getattr(self, "pad", 0):
            offsets = drawn[2 * batch_size + 1 :].view(2, batch_size, 2)
            observations = shift_last(observations, offsets[0], self.pad)
            following = shift_last(following, offsets[1], self.pad)
        if self.observations.ndim == 5 and observations.dtype is torch.uint8:
            observations, following = (t.permute(0, 3, 1, 2) for t in (observations, following))
        return ReplayBufferSamples(observations, actions, following, dones, rewards, discounts)

    def _follow(self: Any, stored: Rows, rows: Tensor, environments: Tensor, _: Tensor) -> Any:
        """Return next observations, rewards, dones and discounts (None) of single steps."""
        places = rows * self.n_envs + environments
        if self.optimize_memory_usage:
            later = (rows + 1) % self.buffer_size * self.n_envs + environments
            following = stored.observations.index_select(0, later)
        else:
            following = stored.next_observations.index_select(0, places)  # type: ignore[union-attr]
        ended = stored.dones[places] * (1 - stored.timeouts[places])
        return following, stored.rewards[places][:, None], ended[:, None], None

    def _get_samples(self: Any, batch_inds: Any, env: VecNormalize | None = None) -> Any:
        stored = self.rows
        if env is not None:
            if stored.rewards.device.type != "cpu":
                raise UsageError(
                    "fast=True: a replay buffer on the GPU cannot be normalised by VecNormalize; "
                    "leave fast out."
                )
            return super()._get_samples(batch_inds, env)  # type: ignore[misc]
        drawn = self._complete(batch_inds).to(stored.rewards.device)
        return self.gather(drawn, len(batch_inds))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the views out, and bring tensors to the host."""
        state = {k: v for k, v in vars(self).items() if k not in ("_rows", "_rows_device")}
        return {k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in state.items()}


class _NSteps(DeviceStorage):
    def _follow(self: Any, stored: Rows, rows: Tensor, environments: Tensor, newest: Tensor) -> Any:
        """Return what follows n steps, or fewer where an episode ends or is cut before."""
        ahead = torch.arange(self.n_steps, device=rows.device)
        indices = (rows[:, None] + ahead) % self.buffer_size
        places = indices * self.n_envs + environments[:, None]
        dones, cut = stored.dones[places], stored.timeouts[places]
        # The newest row is followed by another episode's, or by none: returns end there.
        cut = torch.where(indices == newest, torch.maximum(cut, 1 - dones), cut)
        ends = (dones + cut > 0).long()
        within = (ends.cumsum(1) - ends) == 0
        count = within.sum(1, keepdim=True)
        last = count - 1
        powers: Any = stored.powers
        rewards = (stored.rewards[places] * powers[: self.n_steps] * within).sum(1, keepdim=True)
        following = stored.next_observations.index_select(0, places.gather(1, last).flatten())  # type: ignore[union-attr]
        ended = dones.gather(1, last) * (1 - cut.gather(1, last))
        return following, rewards, ended, powers[count]


class DeviceReplayBuffer(DeviceStorage, ReplayBuffer):
    """A ReplayBuffer that samples with torch."""


class DeviceNStepReplayBuffer(_NSteps, NStepReplayBuffer):
    """An NStepReplayBuffer that samples with torch."""


class DeviceRandomShiftReplayBuffer(DeviceStorage, RandomShiftReplayBuffer):
    """A RandomShiftReplayBuffer that samples with torch."""


class DeviceRandomShiftNStepReplayBuffer(_NSteps, RandomShiftNStepReplayBuffer):
    """A RandomShiftNStepReplayBuffer that samples with torch."""


ON_DEVICE: dict[type, type] = {
    ReplayBuffer: DeviceReplayBuffer,
    NStepReplayBuffer: DeviceNStepReplayBuffer,
    RandomShiftReplayBuffer: DeviceRandomShiftReplayBuffer,
    RandomShiftNStepReplayBuffer: DeviceRandomShiftNStepReplayBuffer,
}


def move_to_device(buffer: Any) -> bool:
    """Make a stock buffer one of this file, the same object with what it holds; whether it is."""
    if isinstance(buffer, DeviceStorage):
        return True
    cls = ON_DEVICE.get(type(buffer))
    if cls is None or not all(_is_served(getattr(buffer, n)) for n in _ROWS if hasattr(buffer, n)):
        return False
    buffer.__class__ = cls
    return True


def _is_served(array: Any) -> bool:
    try:
        torch.from_numpy(array[:0])
    except TypeError:  # a dtype that torch has not
        return False
    return True


def _laid_out(array: Any, images: bool, device: torch.device, begun: bool) -> Any:
    """Return NumPy's array (CPU) or a tensor, images with their channels last in memory."""
    shape = [array.shape[axis] for axis in _IMAGE_AXES] if images else list(array.shape)
    back = (0, 1, 4, 2, 3) if images else tuple(range(array.ndim))
    if device.type == "cpu":
        array = array.cpu().numpy() if isinstance(array, Tensor) else array
        if array.transpose(_IMAGE_AXES if images else back).flags.c_contiguous:
            return array
        # Zeros that were never written take no memory; an empty buffer stays one of them.
        new = np.zeros(shape, array.dtype).transpose(back)
        if begun:
            new[...] = array
        return new
    if isinstance(array, Tensor) and not images and array.device == device:
        return array
    source = array if isinstance(array, Tensor) else torch.from_numpy(array)
    moved = torch.zeros(shape, dtype=source.dtype, device=device).permute(back)
    if begun:
        moved.copy_(source)
    return moved
