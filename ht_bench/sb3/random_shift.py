"""Replay buffers that shift the images they hand out: the augmentation of DrQ.

Source: Kostrikov et al. 2021, 2004.13649, Section 3.1: pad by 4 pixels, repeating the edge, and
crop at random to the size before. DrQ's change of intensity on Atari is left out.
"""

from __future__ import annotations

from abc import ABC
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from ht_bench.errors import UsageError

_SHIFTS = 0x5417  # keeps the generator apart from others that start at the same seed


def shift(images: Tensor, offsets: Tensor, pad: int) -> Tensor:
    """Return `images` [batch, channels, height, width] padded by `pad` pixels and cropped again.

    offsets: int64 [batch, 2] in 0 … 2 pad, the crop's first row and column in the padded image; an
    offset of `pad` leaves an image as it is. The padding repeats the edge. All channels of an
    image, and so all frames of a stack, move together. Any dtype, any device, same layout out.
    """
    batch, channels, height, width = images.shape
    reach = torch.arange(max(height, width), device=images.device) - pad
    rows = (reach[:height] + offsets[:, :1]).clamp(0, height - 1)
    columns = (reach[:width] + offsets[:, 1:]).clamp(0, width - 1)
    # One flat gather: on a CPU ten times faster than indexing by row and column.
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, -1)
    return images.flatten(2).gather(2, pixels.expand(-1, channels, -1)).view_as(images)


def shift_last(images: Tensor, offsets: Tensor, pad: int) -> Tensor:
    """As `shift`, of contiguous uint8 images [batch, height, width, channels], channels last."""
    batch, height, width, channels = images.shape
    reach = torch.arange(max(height, width), device=images.device) - pad
    rows = (reach[:height] + offsets[:, :1]).clamp(0, height - 1)
    columns = (reach[:width] + offsets[:, 1:]).clamp(0, width - 1)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(batch, -1)
    if channels == 4:  # a pixel is one number of 32 bits, moved at once
        whole = images.view(torch.int32).view(batch, -1)
        return whole.gather(1, pixels).view(torch.uint8).view_as(images)
    flat = images.view(batch, -1, channels)
    return flat.gather(1, pixels[:, :, None].expand(-1, -1, channels)).view_as(images)


class RandomShift(ABC):  # noqa: B024 (as ReplayBuffer is, so that instances can change class)
    """Shifts observations and next observations, each anew, whenever a batch is sampled.

    It stands before a ReplayBuffer in the bases; what is stored stays as it was. pad: the largest
    shift in pixels; 0 hands out what the stock buffer does, bit for bit.

    The shifts have a generator of their own, on the CPU wherever the buffer is, seeded from
    `torch.initial_seed()`, which is the agent's `seed` when it makes its buffer, and so nothing is
    taken from the streams stable-baselines3 draws from. `reset` seeds it anew in the same way.

    Raises UsageError for observations that are not uint8 images with channels first, and for a
    pad that is no whole number of pixels.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *args: Any,
        pad: int = 4,
        **kwargs: Any,
    ) -> None:
        _check_images(observation_space)
        if isinstance(pad, bool) or not isinstance(pad, int) or pad < 0:
            raise UsageError(f"pad = {pad!r}: give 0 pixels or more, e.g. 4.")
        self.pad = pad
        super().__init__(  # type: ignore[call-arg]
            buffer_size, observation_space, action_space, *args, **kwargs
        )
        self._seed_shifts()

    def _seed_shifts(self) -> None:
        mixed = np.random.SeedSequence((torch.initial_seed(), _SHIFTS))
        self._shifts = torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint64)[0]))

    def reset(self) -> None:
        """Empty the buffer, and start the shifts anew from the seed that torch has now."""
        super().reset()  # type: ignore[misc]
        self._seed_shifts()

    def _get_samples(
        self, batch_inds: np.ndarray[Any, Any], env: VecNormalize | None = None
    ) -> ReplayBufferSamples:
        samples: ReplayBufferSamples = super()._get_samples(batch_inds, env)  # type: ignore[misc]
        if self.pad == 0:
            return samples
        return samples._replace(
            observations=self._shift(samples.observations),
            next_observations=self._shift(samples.next_observations),
        )

    def _shift(self, images: Tensor) -> Tensor:
        size = (len(images), 2)
        offsets = torch.randint(2 * self.pad + 1, size, generator=self._shifts)
        return shift(images, offsets.to(images.device), self.pad)


class RandomShiftReplayBuffer(RandomShift, ReplayBuffer):
    """A ReplayBuffer whose images are shifted: `replay_buffer_kwargs=dict(pad=4)`."""


class RandomShiftNStepReplayBuffer(RandomShift, NStepReplayBuffer):
    """An NStepReplayBuffer whose images are shifted.

    `replay_buffer_kwargs=dict(pad=4, n_steps=3, gamma=0.99)`: DQN's own `n_steps` and `gamma` do
    not reach a buffer that is given by class, so `gamma` must be written here too.
    """


def _check_images(space: spaces.Space[Any]) -> None:
    if not (isinstance(space, spaces.Box) and is_image_space(space)):
        raise UsageError(
            f"Random shifts need uint8 images between 0 and 255, but the observations are {space}; "
            "leave replay_buffer_class out."
        )
    if not is_image_space_channels_first(space):
        raise UsageError(
            f"Random shifts need channels first, but the observations have shape {space.shape}; "
            "wrap the environment in VecTransposeImage."
        )
