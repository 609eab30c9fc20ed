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
        """Return one array per seed as a tensor [S, ...] on the device, without waiting for it."""
        stacked = torch.from_numpy(np.stack(arrays))
        if self.device == "cuda":  # a copy from other memory waits for the work that is queued
            return stacked.pin_memory().to(self.device, non_blocking=True)
        return stacked.to(self.device)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels [..., C, H, W] as floats of zero mean and unit deviation per channel."""
        return (pixels.float() - self._mean) / self._scale


def crop(pixels: Tensor, draws: Tensor) -> Tensor:
    """Return images [..., C, H, W] as `Stream.augmentations` draws them: [..., 3] uint8.

    Padded by PADDING, shifted by the first two numbers, then flipped where the third is 1. The
    result lies in memory channels last.
    """
    flat, drawn = pixels.flatten(0, -4), draws.flatten(0, -2).long()
    height, width = pixels.shape[-2:]
    down, across = (torch.arange(n, device=pixels.device) for n in (height, width))
    rows = down + drawn[:, :1]
    columns = torch.where(drawn[:, 2:] == 1, width - 1 - across, across) + drawn[:, 1:2]
    padded = torch.nn.functional.pad(flat, [PADDING] * 4)
    each = torch.arange(len(flat), device=pixels.device)[:, None, None]
    picked = padded[each, :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2).unflatten(0, pixels.shape[:-3])


class Examples:
    """The examples of one phase, or of its test, for a stack of seeds; unaugmented, in order."""

    def __init__(self, views: Sequence[PhaseData | TestView], images: Images) -> None:
        self.examples = len(views[0].labels)
        self._images = images
        self._source = images.train if views[0].from_training else images.test
        self.indices = images.stack([view.indices for view in views])
        self.labels = images.stack([view.labels for view in views])
        permutations = [view.permutation for view in views if view.permutation is not None]
        self.permutation = images.stack(permutations) if permutations else None

    def slice(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return (inputs [S, B, C, H, W], labels [S, B]) of examples start … stop of every seed."""
        return self._inputs(self.indices[:, start:stop]), self.labels[:, start:stop]

    def pick(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same of the examples at `places` [S, B], each seed's own."""
        return self._inputs(self.indices.gather(1, places)), self.labels.gather(1, places)

    def _inputs(self, indices: Tensor) -> Tensor:
        return permuted(self._images.normalise(self._source[indices]), self.permutation)


def permuted(images: Tensor, permutation: Tensor | None) -> Tensor:
    """Reorder each flattened image [S, B, C, H, W] by its seed's permutation [S, features]."""
    if permutation is None:
        return images
    flat = images.flatten(2)
    return flat.gather(2, permutation[:, None].expand(flat.shape)).view(images.shape)


PREPARED = 2**26
"""Bytes of a phase's inputs up to which they are normalised and permuted once, not at each step."""


class Batches:
    """The batches of a stream for a stack of seeds, each with its own order and labels.

    A block of consecutive epochs lies on the device in the order in which it is visited: which
    images, labels, augmentations; a step takes the next of them. With `captured` the place in the
    block is a tensor too, and every tensor keeps its storage from phase to phase, so that a
    captured step reads what the host has put there.
    examples: the open phase's. epoch_steps: of it. full: the examples of a batch, of which an
    epoch's last may have fewer.
    """

    examples: Examples
    epoch_steps: int

    def __init__(self, streams: Sequence[Stream], images: Images, captured: bool = False) -> None:
        self._streams, self._images, self._captured = streams, images, captured
        task = streams[0].task
        self._phases, self.full = task.phases, task.training.batch
        self._permutes = any(phase.inputs == "permuted" for phase in self._phases)
        self._at, self._block, self._next = 0, -1, -1
        self._augments = self._prepared = False
        self._held: dict[str, Tensor] = {}
        if captured:
            self._cursor = torch.zeros(1, dtype=torch.long, device=images.device)
            self._range = torch.arange(self.full, device=images.device)

    def open(self, index: int) -> None:
        """Turn to a phase."""
        self._index, self._block, self._next = index, -1, -1
        self.examples = Examples([stream.phase(index) for stream in self._streams], self._images)
        count = self.examples.examples
        self.epoch_steps = phase_steps(self._phases[index], count, self.full)[1]
        self._block_epochs = self._streams[0].block_epochs(index)
        self._augments = self._phases[index].augment
        floats = len(self._streams) * count * self._images.train[0].numel()
        self._prepared = not self._augments and 4 * floats <= PREPARED
        if self._prepared:
            self._hold("inputs", self.examples.slice(0, count)[0].flatten(0, 1))
        elif self._permutes:
            self._hold("permutation", self._permutation())

    def _permutation(self) -> Tensor:
        """Return the phase's, or one that leaves inputs as they are: a step gathers by it."""
        if self.examples.permutation is not None:
            return self.examples.permutation
        features = torch.arange(self._images.train[0].numel(), device=self._images.device)
        return features.expand(len(self._streams), -1)

    @property
    def kind(self) -> tuple[bool, bool]:
        """What a step of the phase computes, beside the numbers that it reads."""
        return self._augments, self._prepared

    def seek(self, step: int) -> int:
        """Turn to a step of the phase; returns how many examples of each seed it takes."""
        epoch, place = divmod(step, self.epoch_steps)
        block, row = divmod(epoch, self._block_epochs)
        count = self.examples.examples
        self._at = row * count + place * self.full
        moved = step != self._next or block != self._block
        if block != self._block:
            self._load(block)
        if self._captured and moved:
            self._cursor.fill_(self._at)
        self._next = step + 1
        return min(self.full, count - place * self.full)

    def _load(self, block: int) -> None:
        self._block = block
        orders = [stream.orders(self._index, block).reshape(-1) for stream in self._streams]
        order = self._images.stack(orders)
        self._hold("labels", self.examples.labels.gather(1, order))
        if self._prepared:  # rows of all seeds' inputs
            seeds = torch.arange(len(orders), device=order.device)[:, None]
            self._hold("rows", order + seeds * self.examples.examples)
        else:
            self._hold("rows", self.examples.indices.gather(1, order))
        if self._augments:
            draws = [stream.augmentations(self._index, block) for stream in self._streams]
            self._hold("augmentations", self._images.stack(draws).flatten(1, 2))

    def _hold(self, name: str, values: Tensor) -> None:
        """Keep values for the steps; where these are captured, in the storage of before."""
        if not self._captured:
            self._held[name] = values
            return
        held = self._held.get(name)
        if held is None:
            held = self._held[name] = values.new_zeros(self._room(name, values))
        held[tuple(map(slice, values.shape))].copy_(values)

    def _room(self, name: str, values: Tensor) -> list[int]:
        """Return the shape of the longest values of this name in any phase."""
        stream, phases = self._streams[0], range(len(self._phases))
        counts = [len(stream.phase(index).labels) for index in phases]
        if name == "permutation":
            return list(values.shape)
        if name == "inputs":
            fitting = PREPARED // (4 * values[0].numel())
            seeds = len(self._streams)
            return [max(seeds * n for n in counts if seeds * n <= fitting), *values.shape[1:]]
        longest = max(stream.block_epochs(i) * n for i, n in zip(phases, counts, strict=True))
        return [len(values), longest, *values.shape[2:]]

    def take(self, size: int) -> tuple[Tensor, Tensor]:
        """Return (inputs [S, B, C, H, W], labels [S, B]) of the next `size` examples."""
        window = self._window(size)
        rows, labels = self._pick("rows", window), self._pick("labels", window)
        if self._prepared:
            inputs = self._held["inputs"].index_select(0, rows.reshape(-1))
            return inputs.unflatten(0, rows.shape), labels
        images = self._images.train[rows]
        if self._augments:
            images = crop(images, self._pick("augmentations", window))
        permutation = self._held["permutation"] if self._permutes else None
        return permuted(self._images.normalise(images), permutation), labels

    def _window(self, size: int) -> Tensor | slice:
        if not self._captured:
            return slice(self._at, self._at + size)
        places = self._cursor + self._range[:size]
        self._cursor += size
        return places

    def _pick(self, name: str, window: Tensor | slice) -> Tensor:
        held = self._held[name]
        return held[:, window] if isinstance(window, slice) else held.index_select(1, window)
