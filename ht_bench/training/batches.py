"""Batches as indices: uint8 images stay on the device, and are picked, augmented, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ht_bench.streams.dataset import Dataset
from ht_bench.streams.randomness import generator
from ht_bench.streams.stream import Stream, TestView

PADDING = 4
"""Random crop after padding by this many pixels on each side (Lee et al. 2024)."""


class Images:
    """A dataset's uint8 images on a device; `pick` gives normalised floats."""

    def __init__(self, data: Dataset, device: str) -> None:
        self.train = torch.from_numpy(np.array(data.train_images)).to(device)
        self.test = torch.from_numpy(np.array(data.test_images)).to(device)
        self.device = device
        scale = torch.tensor(data.std, device=device) * data.max_value
        mean = torch.tensor(data.mean, device=device) * data.max_value
        self._mean, self._scale = mean.view(-1, 1, 1), scale.view(-1, 1, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels [..., C, H, W] as floats of zero mean and unit deviation per channel."""
        return (pixels.float() - self._mean) / self._scale


def permute(images: Tensor, permutation: Tensor | None) -> Tensor:
    """Reorder each flattened image [S, B, C, H, W] by its seed's permutation [S, features]."""
    if permutation is None:
        return images
    flat = images.flatten(2)
    return flat.gather(2, permutation[:, None].expand(flat.shape)).view(images.shape)


def crop_and_flip(pixels: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    """Return [N, C, H, W] cropped after padding and flipped, each image by its own draw.

    shifts: int64 [N, 2] in 0 … 2·PADDING. flips: bool [N].
    """
    count, _, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, [PADDING] * 4)
    rows = shifts[:, 0, None] + torch.arange(height, device=pixels.device)
    across = torch.arange(width, device=pixels.device).expand(count, width)
    across = torch.where(flips[:, None], width - 1 - across, across) + shifts[:, 1, None]
    each = torch.arange(count, device=pixels.device)
    picked = padded[each[:, None, None], :, rows[:, :, None], across[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


class PhaseBatches:
    """The batches of one phase for a stack of seeds, each with its own order and labels."""

    def __init__(self, streams: Sequence[Stream], index: int, images: Images) -> None:
        self._streams, self._index, self._images = streams, index, images
        phases = [stream.phase(index) for stream in streams]
        self.examples = len(phases[0].indices)
        self._indices = _stack([phase.indices for phase in phases], images.device)
        self._labels = _stack([phase.labels for phase in phases], images.device)
        permutations = [phase.permutation for phase in phases]
        self.permutation = (
            None
            if permutations[0] is None
            else _stack([p for p in permutations if p is not None], images.device)
        )
        self._augment = streams[0].task.phases[index].augment
        self._batch = streams[0].task.training.batch
        self._epoch = -1

    def batch(self, epoch: int, position: int) -> tuple[Tensor, Tensor]:
        """Return (inputs [S, B, C, H, W], labels [S, B]) of one step of an epoch."""
        if epoch != self._epoch:
            self._start(epoch)
        chosen = self._order[:, position * self._batch : (position + 1) * self._batch]
        return self._pick(chosen, augmented=self._augment)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first `count` training examples of every seed, unaugmented, in order."""
        count = min(count, self.examples)
        chosen = torch.arange(count, device=self._images.device).expand(len(self._streams), count)
        return self._pick(chosen, augmented=False)

    def slice(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return training examples start … stop of every seed, unaugmented."""
        chosen = torch.arange(start, min(stop, self.examples), device=self._images.device)
        return self._pick(chosen.expand(len(self._streams), -1), augmented=False)

    def _start(self, epoch: int) -> None:
        self._epoch = epoch
        orders = [stream.order(self._index, epoch) for stream in self._streams]
        self._order = _stack(orders, self._images.device)
        if self._augment:
            self._draw_augmentation(epoch)

    def _draw_augmentation(self, epoch: int) -> None:
        shifts, flips = [], []
        for stream in self._streams:
            draw = generator(stream.task.name, stream.seed, "augmentation", self._index, epoch)
            shifts.append(draw.integers(0, 2 * PADDING + 1, (self.examples, 2)))
            flips.append(draw.integers(0, 2, self.examples).astype(bool))
        self._shifts = _stack(shifts, self._images.device)
        self._flips = _stack(flips, self._images.device)

    def _pick(self, chosen: Tensor, augmented: bool) -> tuple[Tensor, Tensor]:
        pixels = self._images.train[self._indices.gather(1, chosen)]
        if augmented:
            seeds = torch.arange(len(self._streams), device=chosen.device)[:, None]
            shifts, flips = self._shifts[seeds, chosen], self._flips[seeds, chosen]
            flat = crop_and_flip(pixels.flatten(0, 1), shifts.flatten(0, 1), flips.flatten())
            pixels = flat.view(pixels.shape)
        inputs = permute(self._images.normalise(pixels), self.permutation)
        return inputs, self._labels.gather(1, chosen)


class TestBatches:
    """The test examples of one phase for a stack of seeds."""

    __test__ = False  # pytest: not a test class

    def __init__(self, views: Sequence[TestView], images: Images) -> None:
        self._images = images
        self._source = images.train if views[0].from_training else images.test
        self._indices = _stack([view.indices for view in views], images.device)
        self._labels = _stack([view.labels for view in views], images.device)
        permutations = [view.permutation for view in views if view.permutation is not None]
        self._permutation = _stack(permutations, images.device) if permutations else None
        self.examples = self._indices.shape[1]

    def slice(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return (inputs [S, B, C, H, W], labels [S, B]) of test examples start … stop."""
        pixels = self._source[self._indices[:, start:stop]]
        inputs = permute(self._images.normalise(pixels), self._permutation)
        return inputs, self._labels[:, start:stop]


def _stack(arrays: Sequence[np.ndarray], device: str) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)
