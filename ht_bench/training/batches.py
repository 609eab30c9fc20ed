"""Batches as indices: uint8 images stay on the device, and are picked, augmented, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ht_bench.streams.dataset import Dataset
from ht_bench.streams.stream import PADDING, PhaseData, Stream, TestView, phase_steps


class Images:
    """A dataset's uint8 images on a device, and its normalisation."""

    def __init__(self, data: Dataset, device: str) -> None:
        self.device = device
        self.train, self.test = self.tensor(data.train_images), self.tensor(data.test_images)
        self._mean, self._scale = map(self.tensor, data.normalisation)

    def tensor(self, array: np.ndarray) -> Tensor:
        """Return a copy of the array on the device."""
        return torch.from_numpy(np.array(array)).to(self.device)

    def stack(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Return one array per seed as a tensor [S, ...] on the device."""
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels [..., C, H, W] as floats of zero mean and unit deviation per channel."""
        return (pixels.float() - self._mean) / self._scale


def crop(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images [N, C, H, W] padded and cropped by `Stream.augmentation`: [N, H], [N, W]."""
    padded = torch.nn.functional.pad(pixels, [PADDING] * 4)
    each = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    picked = padded[each, :, rows.long()[:, :, None], columns.long()[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


class Examples:
    """The examples of one phase, or of its test, for a stack of seeds; unaugmented, in order."""

    def __init__(self, views: Sequence[PhaseData | TestView], images: Images) -> None:
        self.examples = len(views[0].labels)
        self._images = images
        self._source = images.train if views[0].from_training else images.test
        self._indices = images.stack([view.indices for view in views])
        self._labels = images.stack([view.labels for view in views])
        permutations = [view.permutation for view in views if view.permutation is not None]
        self._permutation = images.stack(permutations) if permutations else None

    def slice(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return (inputs [S, B, C, H, W], labels [S, B]) of examples start … stop of every seed."""
        pixels = self._source[self._indices[:, start:stop]]
        return self._inputs(pixels), self._labels[:, start:stop]

    def _inputs(self, pixels: Tensor) -> Tensor:
        """Normalise, and reorder each flattened image by its seed's permutation."""
        images = self._images.normalise(pixels)
        if self._permutation is None:
            return images
        flat = images.flatten(2)
        return flat.gather(2, self._permutation[:, None].expand(flat.shape)).view(images.shape)


class PhaseBatches(Examples):
    """The batches of one phase for a stack of seeds, each with its own order and labels."""

    def __init__(self, streams: Sequence[Stream], index: int, images: Images) -> None:
        super().__init__([stream.phase(index) for stream in streams], images)
        task = streams[0].task
        self._streams, self._index, self._epoch = streams, index, -1
        self._augment, self._batch = task.phases[index].augment, task.training.batch
        self.epoch_steps = phase_steps(task.phases[index], self.examples, self._batch)[1]

    def batch(self, epoch: int, position: int) -> tuple[Tensor, Tensor]:
        """Return (inputs [S, B, C, H, W], labels [S, B]) of one step of an epoch."""
        if epoch != self._epoch:
            self._start(epoch)
        batch = self._order[:, position * self._batch : (position + 1) * self._batch]
        pixels = self._source[self._indices.gather(1, batch)]
        if self._augment:
            seeds = torch.arange(len(self._streams), device=batch.device)[:, None]
            rows, columns = (index[seeds, batch].flatten(0, 1) for index in self._crops)
            pixels = crop(pixels.flatten(0, 1), rows, columns).view(pixels.shape)
        return self._inputs(pixels), self._labels.gather(1, batch)

    def _start(self, epoch: int) -> None:
        self._epoch = epoch
        orders = [stream.order(self._index, epoch) for stream in self._streams]
        self._order = self._images.stack(orders)
        if self._augment:
            crops = [stream.augmentation(self._index, epoch) for stream in self._streams]
            self._crops = [self._images.stack(part) for part in zip(*crops, strict=True)]
