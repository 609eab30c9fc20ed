"""A Task and a seed → phases of indices and labels. NumPy only; nothing is copied but indices."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ht_bench.errors import UsageError
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.families import get_family
from ht_bench.streams.randomness import Purpose, generator
from ht_bench.streams.task import Phase, Task

Split = Literal["test", "validation"]
Indices = npt.NDArray[np.int64]
Crop = npt.NDArray[np.int16]

Draws = npt.NDArray[np.uint8]
Blocks = Callable[[int, int], npt.NDArray[Any]]

PADDING = 4
"""Random crop after padding by this many pixels on each side (Lee et al. 2024)."""

MOST_EPOCHS, BLOCK = 64, 2**16
"""Epochs, and examples over all of them, whose orders are drawn at once; a large epoch is alone."""

MOST_FLOATS = 2**30
"""Numbers of one batch, or of all indices, of a stack of seeds."""


@dataclass(frozen=True)
class PhaseData:
    """What one seed trains on in one phase.

    indices: int64 [n] into the dataset's training images. labels: int64 [n], wrong ones
    included. permutation: int64 [features] to read each flattened input by, or None.
    """

    from_training: ClassVar[bool] = True
    indices: Indices
    labels: Indices
    permutation: Indices | None


@dataclass(frozen=True)
class TestView:
    """What one seed is tested on after one phase.

    from_training: whether indices point into the training images (validation) or the test ones.
    labels and permutation are changed as the phase's own are (a wrong label never is).
    """

    __test__ = False  # pytest: not a test class
    from_training: bool
    indices: Indices
    labels: Indices
    permutation: Indices | None


class Stream:
    """One seed's stream: `phase(i)`, `test(i)`, `order(i, epoch)`, all keyed, none stateful."""

    def __init__(self, task: Task, data: Dataset, seed: int, split: Split = "test") -> None:
        """Bind a task to its data; raises UsageError when the task asks for more than there is."""
        self.task, self.data, self.seed, self.split = task, data, seed, split
        _check_size(task, data)
        self.training, self.evaluation = self._divide()
        self._held: dict[str, tuple[tuple[int, int], npt.NDArray[Any]]] = {}
        if get_family(task.family).by_class:
            self._check_classes()

    def _draw(self, purpose: Purpose, phase: int = 0, block: int = 0) -> np.random.Generator:
        return generator(self.task.name, self.seed, purpose, phase, block)

    def _divide(self) -> tuple[Indices, Indices]:
        """Return (training indices, validation indices or test indices)."""
        available, drawn = len(self.data.train_labels), self.task.data.train
        test = np.arange(len(self.data.test_labels))
        if drawn is None and self.split == "test":
            return np.arange(available), test
        order = self._draw("split").permutation(available)
        cut = available * 9 // 10 if drawn is None else drawn
        held_out = order[cut:] if drawn is None else order[cut : cut + len(test)]
        return order[:cut], test if self.split == "test" else held_out

    def _check_classes(self) -> None:
        """Refuse data whose classes leave a phase empty, or a stack's seeds unlike in size.

        Each seed meets the classes in its own order: what one seed's phases hold is no matter.
        """
        phases, data = self.task.phases, self.data
        tests = data.train_labels if self.split == "validation" else data.test_labels
        parts = {
            "training": (data.train_labels[self.training], min(p.classes or 0 for p in phases)),
            self.split: (tests[self.evaluation], phases[0].classes or 0),
        }
        for part, (labels, brought) in parts.items():
            counts = np.bincount(labels, minlength=data.classes)
            absent = np.flatnonzero(counts == 0)
            if len(absent) >= brought:
                raise UsageError(
                    f"Task {self.task.name}: {len(absent)} of {data.name}'s {data.classes} classes "
                    f"(class {absent[0]} …) have no {part} examples, and a phase may bring no "
                    "others; let each phase bring more classes, or use data that have all."
                )
            whole = phases[0].classes == data.classes
            if self.task.stack > 1 and counts.min() != counts.max() and not whole:
                raise UsageError(
                    f"Task {self.task.name}: {data.name}'s classes have {counts.min()} to "
                    f"{counts.max()} {part} examples, so that seeds, which meet them in different "
                    "orders, cannot train as one stack; set stack = 1 under [training]."
                )

    @functools.cached_property
    def _arrivals(self) -> list[Indices]:
        """The new training indices of each phase."""
        if get_family(self.task.family).by_class:
            return self._class_arrivals()
        order = self.training[self._draw("arrival").permutation(len(self.training))]
        shares = np.cumsum([phase.new for phase in self.task.phases])
        ends = np.floor(shares * len(order) + 1e-6).astype(int)
        return np.split(order, ends)[: len(ends)]

    @functools.cached_property
    def _class_order(self) -> Indices:
        return self._draw("arrival").permutation(self.data.classes)

    def _class_arrivals(self) -> list[Indices]:
        counts = [phase.classes or 0 for phase in self.task.phases]
        groups = np.split(self._class_order, np.cumsum(counts))[: len(counts)]
        labels = self.data.train_labels[self.training]
        return [self.training[np.isin(labels, group)] for group in groups]

    def _old(self, index: int) -> Indices:
        """The examples of earlier phases that phase `index` keeps."""
        old = np.concatenate([np.empty(0, dtype=np.int64), *self._arrivals[:index]])
        if self.task.phases[index].keep == 1:
            return old
        order = self._draw("kept", index).permutation(len(old))
        return old[np.sort(order[: self._kept(index)])]

    def _kept(self, index: int) -> int:
        old, keep = sum(map(len, self._arrivals[:index])), self.task.phases[index].keep
        return old if keep == 1 else int(old * keep + 1e-6)

    def phase(self, index: int) -> PhaseData:
        """Return what is trained on in phase `index`; raises UsageError if that is nothing."""
        indices = np.concatenate([self._old(index), self._arrivals[index]])
        if len(indices) == 0:
            raise UsageError(
                f"Task {self.task.name}: phase {index} has no examples; raise 'new' or 'keep'."
            )
        labels = self.data.train_labels[indices].astype(np.int64)
        return PhaseData(indices, self._relabel(labels, index), self._input_permutation(index))

    def _relabel(self, labels: Indices, index: int) -> Indices:
        spec, classes = self.task.phases[index], self.data.classes
        if spec.labels == "random":
            return self._draw("permutation", index).integers(0, classes, len(labels))
        labels = self._rename(labels, index)
        draw = self._draw("wrong labels", index)
        wrong = draw.permutation(len(labels))[: int(len(labels) * spec.wrong + 1e-6)]
        labels[wrong] = (labels[wrong] + draw.integers(1, classes, len(wrong))) % classes
        return labels

    def _rename(self, labels: Indices, index: int) -> Indices:
        if self.task.phases[index].labels != "permuted":
            return labels.copy()
        return self._permutation("labels", index, self.data.classes)[labels]

    def _input_permutation(self, index: int) -> Indices | None:
        if self.task.phases[index].inputs != "permuted":
            return None
        features = int(np.prod(self.data.train_images.shape[1:]))
        return self._permutation("inputs", index, features)

    def _permutation(self, what: Literal["inputs", "labels"], index: int, size: int) -> Indices:
        """Return a phase's permutation; where `change` < 1, most of it is the phase before's."""
        spec = self.task.phases[index]
        if index < 0 or getattr(spec, what) != "permuted":
            return np.arange(size)
        order = self._draw("permutation", index).permutation(size)
        if spec.change == 1:
            return order
        before = self._permutation(what, index - 1, size)
        moved = order[: int(size * spec.change + 1e-6)]
        after = before.copy()
        after[np.sort(moved)] = before[moved]
        return after

    def test(self, index: int) -> TestView:
        """Return what is tested on after phase `index`: same permutations, no wrong labels."""
        from_training = self.split == "validation"
        source = self.data.train_labels if from_training else self.data.test_labels
        indices = self.evaluation
        if get_family(self.task.family).by_class:
            seen = self._class_order[: sum(p.classes or 0 for p in self.task.phases[: index + 1])]
            indices = indices[np.isin(source[indices], seen)]
        labels = self._rename(source[indices].astype(np.int64), index)
        return TestView(from_training, indices, labels, self._input_permutation(index))

    def block_epochs(self, index: int) -> int:
        """Return how many epochs of phase `index` one block holds: k of `orders`."""
        return max(1, min(MOST_EPOCHS, BLOCK // self._count(index)))

    def orders(self, index: int, block: int) -> Indices:
        """Return the orders of a block's epochs, int64 [k, n]: row i is epoch block · k + i's.

        A generator costs as much as the order of a few hundred examples: one draws k epochs.
        """
        shape = self.block_epochs(index), self._count(index)
        rows = np.broadcast_to(np.arange(shape[1]), shape)
        return self._draw("batch order", index, block).permuted(rows, axis=1)

    def order(self, index: int, epoch: int) -> Indices:
        """Return the order, int64 [n], in which epoch `epoch` of phase `index` visits examples.

        It is read-only: a row of the block, which is held for the epochs that follow.
        """
        return self._of_block(self.orders, index, epoch)

    def augmentations(self, index: int, block: int) -> Draws:
        """Return the augmentation of a block's epochs, uint8 [k, n, 3], in the order of visits.

        The last dimension: rows (0 to 2 · PADDING) and columns by which the padded image is
        shifted, and whether it is flipped, 0 or 1.
        """
        shape = self.block_epochs(index), self._count(index)
        draw, draws = self._draw("augmentation", index, block), np.empty((*shape, 3), np.uint8)
        draws[..., :2] = draw.integers(0, 2 * PADDING + 1, (*shape, 2), np.uint8)
        draws[..., 2] = draw.integers(0, 2, shape, np.uint8)
        return draws

    def augmentation(self, index: int, epoch: int) -> tuple[Draws, npt.NDArray[np.bool_]]:
        """Return one epoch's (shifts, uint8 [n, 2]; flips, bool [n]), as `crop_indices` takes them.

        Entry i belongs to the i-th example that the epoch visits, `order(index, epoch)[i]`.
        """
        draws = self._of_block(self.augmentations, index, epoch)
        return draws[:, :2], draws[:, 2].astype(bool)

    def _of_block(self, blocks: Blocks, index: int, epoch: int) -> npt.NDArray[Any]:
        """One epoch's row of what `blocks` draws by block; the last block is held."""
        block, row = divmod(epoch, self.block_epochs(index))
        name = blocks.__name__
        if name not in self._held or self._held[name][0] != (index, block):
            rows = blocks(index, block)
            rows.flags.writeable = False
            self._held[name] = (index, block), rows
        return self._held[name][1][row]

    def _count(self, index: int) -> int:
        return self._kept(index) + len(self._arrivals[index])


def crop_indices(
    shifts: Draws, flips: npt.NDArray[np.bool_], size: Sequence[int]
) -> tuple[Crop, Crop]:
    """Return where each example's crop comes from: rows int16 [n, H], columns int16 [n, W].

    They point into its image of `size` (H, W) padded by PADDING on each side; where the image is
    flipped, its columns run backwards. shifts, flips: as `Stream.augmentation` draws them.
    """
    down, across = (np.arange(length, dtype=np.int16) for length in size)
    offsets = shifts.astype(np.int16)
    columns = np.where(flips[:, None], across[::-1], across) + offsets[:, 1:]
    return down + offsets[:, :1], columns


def phase_steps(spec: Phase, examples: int, batch: int) -> tuple[int, int]:
    """Return (optimizer steps of the phase, steps of one epoch); partial batches are kept."""
    per_epoch = -(-examples // batch)
    return (spec.updates or (spec.epochs or 0) * per_epoch), per_epoch


def planned_steps(stream: Stream) -> list[int]:
    """Return the optimizer steps of each phase of a stream."""
    batch = stream.task.training.batch
    sizes = [len(stream.phase(index).indices) for index in range(len(stream.task.phases))]
    return [
        phase_steps(spec, size, batch)[0]
        for spec, size in zip(stream.task.phases, sizes, strict=True)
    ]


def _check_size(task: Task, data: Dataset) -> None:
    if task.data.train is not None and task.data.train >= len(data.train_labels):
        raise UsageError(
            f"Task {task.name}: [data] train = {task.data.train}, but {data.name} has "
            f"{len(data.train_labels)} training examples and some must be left for validation."
        )
    features = int(np.prod(data.train_images.shape[1:]))
    examples = min(max(task.training.batch, 1_000), len(data.train_labels))
    floats = task.stack * max(examples * features, 8 * len(data.train_labels))
    if floats > MOST_FLOATS:
        raise UsageError(
            f"Task {task.name}: {task.stack} seeds in one stack, of batches of "
            f"{task.training.batch} of {data.name}'s {len(data.train_labels)} images, take "
            f"{floats:,} numbers at once, more than {MOST_FLOATS:,}; lower 'stack' or 'batch'."
        )
    if data.classes < 2 and any(phase.wrong for phase in task.phases):
        raise UsageError(
            f"Task {task.name}: {data.name} has one class, so that no label can be a wrong one; "
            "leave 'wrong' out."
        )
    _check_changes(task, features, data.classes)
    classes = sum(phase.classes or 0 for phase in task.phases)
    if classes > data.classes:
        raise UsageError(
            f"Task {task.name}: its phases bring {classes} classes, but {data.name} has "
            f"{data.classes}."
        )


def _check_changes(task: Task, features: int, classes: int) -> None:
    """Raise UsageError for a permutation of which too little changes: one alone cannot move."""
    for index, phase in enumerate(task.phases):
        for what, size in (("inputs", features), ("labels", classes)):
            if getattr(phase, what) == "permuted" and int(size * phase.change + 1e-6) < 2 <= size:
                least = math.ceil(200 / size) / 100
                raise UsageError(
                    f"Task {task.name}: 'change' = {phase.change:g} of {size} permuted {what} "
                    f"moves none of them (phase {index}); raise it to {least:g} at least."
                )
