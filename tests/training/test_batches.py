"""Batches: images are augmented as a plain loop does it, and normalised channel by channel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ht_bench.streams.dataset import make_dataset
from ht_bench.streams.stream import PADDING, Stream
from ht_bench.streams.task import Task
from ht_bench.training.batches import Batches, Images


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize("room", [0, 2**26])
def test_batches_equal_a_plain_loop(
    captured: bool,
    stack: int,
    room: int,
    make_task: Callable[..., Task],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Order, labels and augmentation of all phases, from any step on, in blocks of epochs."""
    monkeypatch.setattr("ht_bench.training.batches.PREPARED", room)
    images = np.random.default_rng(0).integers(1, 256, (80, 3, 6, 8)).astype(np.uint8)
    data = make_dataset("made up", (images, np.arange(80) % 10), (images, np.arange(80) % 10), 10)
    phases = [
        {"new": 0.5, "wrong": 0.5, "updates": 1, "augment": True},
        {"new": 0.25, "updates": 1},
        {"new": 0.25, "updates": 1, "inputs": "permuted"},
    ]
    task = make_task(data={"name": "made up"}, family="permuted", phases=phases)
    streams = [Stream(task, data, seed) for seed in range(3, 3 + stack)]
    batches = Batches(streams, Images(data, "cpu"), captured)
    for index, steps in ((0, (0, 1, 2, 3, 200, 600)), (1, (0, 1, 4, 5)), (2, (0, 3, 9))):
        batches.open(index)
        for step in steps:
            epoch, place = divmod(step, batches.epoch_steps)
            size = batches.seek(step)
            inputs, labels = batches.take(size)
            for slot, stream in enumerate(streams):
                phase, window = stream.phase(index), slice(16 * place, 16 * place + 16)
                order = stream.order(index, epoch)[window]
                assert len(order) == size
                pixels = data.train_images[phase.indices[order]]
                if index == 0:
                    pixels = cropped(
                        pixels, *(part[window] for part in stream.augmentation(0, epoch))
                    )
                expected = Images(data, "cpu").normalise(torch.from_numpy(pixels)).flatten(1)
                if phase.permutation is not None:
                    expected = expected[:, torch.from_numpy(phase.permutation)]
                assert torch.equal(inputs[slot].flatten(1), expected)
                assert labels[slot].tolist() == phase.labels[order].tolist()


def cropped(pixels: np.ndarray, shifts: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Pad, cut out and flip image by image."""
    height, width = pixels.shape[2:]
    padded = np.pad(pixels, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    views = np.zeros_like(pixels)
    assert flips.any() and not flips.all()
    for n, (down, right) in enumerate(shifts.tolist()):
        view = padded[n, :, down : down + height, right : right + width]
        views[n] = view[:, :, ::-1] if flips[n] else view
    return views


def test_images_are_normalised_channel_by_channel() -> None:
    shades = np.arange(1, 4)[:, None, None]
    pixels = shades * np.random.default_rng(0).integers(0, 80, (50, 3, 4, 4))
    part = pixels.astype(np.uint8), np.arange(50) % 5
    images = Images(make_dataset("made up", part, part, 5), "cpu")
    values = images.normalise(images.train).numpy()
    np.testing.assert_allclose(values.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(values.std((0, 2, 3)), 1, rtol=1e-5)
