"""What one phase of a stream of data serves: the training loop's examples, as NumPy arrays."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ht_bench.streams.dataset import Dataset
from ht_bench.streams.randomness import generator
from ht_bench.streams.stream import Indices, Stream, TestView, phase_steps

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Examples = Literal["train", "test"]

PADDING = 4
"""Random crop after padding by this many pixels on each side, as in the training loop."""


class Normaliser:
    """Pixels → float32 of zero mean and unit deviation per channel; the training loop's numbers."""

    def __init__(self, data: Dataset) -> None:
        self._mean = _per_channel(data.mean) * data.max_value
        self._scale = _per_channel(data.std) * data.max_value
        self._largest = data.max_value

    def __call__(self, pixels: Pixels) -> Floats:
        """Return pixels [..., C, H, W] normalised."""
        return (pixels.astype(np.float32) - self._mean) / self._scale

    def box(self, shape: tuple[int, ...]) -> spaces.Box:
        """Return the space that no normalised pixel of any channel leaves."""
        one_pixel = np.zeros((len(self._mean), 1, 1), np.uint8)
        low, high = self(one_pixel).min(), self(one_pixel + np.uint8(self._largest)).max()
        return spaces.Box(low, high, shape, np.float32)


def _per_channel(values: tuple[float, ...]) -> Floats:
    return np.array(values, np.float32)[:, None, None]


def crop_and_flip(pixels: Pixels, shifts: Indices, flips: npt.NDArray[np.bool_]) -> Pixels:
    """Return [N, C, H, W] cropped after padding and flipped, each image by its own draw.

    shifts: int64 [N, 2] in 0 … 2·PADDING. flips: bool [N].
    """
    count, _, height, width = pixels.shape
    padded = np.pad(pixels, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    rows = shifts[:, :1] + np.arange(height)
    across = np.broadcast_to(np.arange(width), (count, width))
    across = np.where(flips[:, None], width - 1 - across, across) + shifts[:, 1:]
    each = np.arange(count)[:, None, None]
    return padded[each, :, rows[:, :, None], across[:, None, :]].transpose(0, 3, 1, 2)


class PhaseExamples:
    """What one phase of a stream serves: its examples, their order in an epoch, their labels.

    labels: int64 [count], those the stream gives. true_labels: the same with no label wrong.
    budget: examples that the phase lasts, those of its optimizer steps ("test": one pass).
    """

    def __init__(self, stream: Stream, index: int, examples: Examples) -> None:
        self._stream, self._index, self._training = stream, index, examples == "train"
        view = stream.phase(index) if self._training else stream.test(index)
        self._indices, self._permutation = view.indices, view.permutation
        from_training = not isinstance(view, TestView) or view.from_training
        self._images = stream.data.train_images if from_training else stream.data.test_images
        self._augment = self._training and stream.task.phases[index].augment
        self.labels = self.true_labels = view.labels
        self.count = self.budget = len(view.labels)
        if self._training:
            self.true_labels = _without_wrong_labels(stream).phase(index).labels
            self.budget = self._examples_of_steps()

    def _examples_of_steps(self) -> int:
        batch = self._stream.task.training.batch
        steps, per_epoch = phase_steps(self._stream.task.phases[self._index], self.count, batch)
        epochs, rest = divmod(steps, per_epoch)
        return epochs * self.count + rest * batch

    def start_epoch(self, epoch: int) -> Indices:
        """Return the order, int64 [count], of one epoch; the test examples stay in theirs.

        The augmentation of `pixels` is this epoch's from then on.
        """
        if not self._training:
            return np.arange(self.count)
        if self._augment:
            self._draw_augmentation(epoch)
        return self._stream.order(self._index, epoch)

    def _draw_augmentation(self, epoch: int) -> None:
        """The training loop's draws, from the training loop's key."""
        name, seed = self._stream.task.name, self._stream.seed
        draw = generator(name, seed, "augmentation", self._index, epoch)
        self._shifts = draw.integers(0, 2 * PADDING + 1, (self.count, 2))
        self._flips = draw.integers(0, 2, self.count).astype(bool)

    def pixels(self, chosen: Indices) -> Pixels:
        """Return the images [len(chosen), C, H, W] as stored, augmented where the phase says so."""
        picked = self._images[self._indices[chosen]]
        if self._augment:
            picked = crop_and_flip(picked, self._shifts[chosen], self._flips[chosen])
        return picked

    def permute(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Reorder each flattened image [N, C, H, W] by the phase's permutation, if it has one."""
        if self._permutation is None:
            return images
        flat = images.reshape(len(images), len(self._permutation))
        return flat[:, self._permutation].reshape(images.shape)


def _without_wrong_labels(stream: Stream) -> Stream:
    """The same stream with no label wrong: every draw has its own key, so all else is equal."""
    phases = tuple(dataclasses.replace(phase, wrong=0.0) for phase in stream.task.phases)
    task = dataclasses.replace(stream.task, phases=phases)
    return Stream(task, stream.data, stream.seed, stream.split)
