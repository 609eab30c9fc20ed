"""What one phase of a stream of data serves: the training loop's examples, as NumPy arrays."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ht_bench.streams.dataset import Dataset
from ht_bench.streams.stream import PADDING, Indices, Stream, crop_indices, phase_steps

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Examples = Literal["train", "test"]


def normalise(data: Dataset, pixels: Pixels) -> Floats:
    """Return pixels [..., C, H, W] as float32 of zero mean and unit deviation per channel."""
    mean, deviation = data.normalisation
    return (pixels.astype(np.float32) - mean) / deviation


def pixel_box(data: Dataset, shape: tuple[int, ...]) -> spaces.Box:
    """Return the space that no normalised pixel of any channel leaves."""
    black = np.zeros((len(data.mean), 1, 1), np.uint8)
    low, high = normalise(data, black).min(), normalise(data, black + data.max_value).max()
    return spaces.Box(low, high, shape, np.float32)


class PhaseExamples:
    """What one phase of a stream serves: its examples, their order in an epoch, their labels.

    labels: int64 [count], those the stream gives. true_labels: the same with no label wrong.
    budget: examples that the phase lasts, those of its optimizer steps ("test": one pass).
    """

    def __init__(self, stream: Stream, index: int, examples: Examples) -> None:
        self._stream, self._index, self._training = stream, index, examples == "train"
        view = stream.phase(index) if self._training else stream.test(index)
        self._indices, self._permutation = view.indices, view.permutation
        self._images = stream.data.train_images if view.from_training else stream.data.test_images
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
            self._order = np.arange(self.count)
            return self._order
        if self._augment:
            draws = self._stream.augmentation(self._index, epoch)
            self._rows, self._columns = crop_indices(*draws, self._images.shape[2:])
        self._order = self._stream.order(self._index, epoch)
        return self._order

    def pixels(self, start: int, stop: int) -> Pixels:
        """Return the images [N, C, H, W] at these places of the epoch's order, as stored.

        They are augmented where the phase says so.
        """
        picked = self._images[self._indices[self._order[start:stop]]]
        if not self._augment:
            return picked
        padded = np.pad(picked, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        rows, columns = self._rows[start:stop, :, None], self._columns[start:stop, None, :]
        return padded[np.arange(len(picked))[:, None, None], :, rows, columns].transpose(0, 3, 1, 2)

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
