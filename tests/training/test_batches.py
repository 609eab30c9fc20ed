"""Batches: images are augmented as a plain loop does it, and normalised channel by channel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ht_bench.streams.dataset import make_dataset
from ht_bench.streams.randomness import generator
from ht_bench.streams.stream import PADDING, Stream
from ht_bench.streams.task import Task
from ht_bench.training.batches import Images, crop


def test_crop_and_flip_equal_a_plain_loop(make_task: Callable[..., Task]) -> None:
    images = np.random.default_rng(0).integers(1, 256, (80, 3, 6, 8)).astype(np.uint8)
    data = make_dataset("made up", (images, np.arange(80) % 10), (images, np.arange(80) % 10), 10)
    task = make_task(data={"name": "made up"}, phases=[{"new": 0.5, "updates": 1}])
    stream = Stream(task, data, 3)
    pixels = data.train_images[stream.phase(0).indices]
    draw = generator("tiny", 3, "augmentation", 0, 5)
    shifts = draw.integers(0, 2 * PADDING + 1, (40, 2))
    flips = draw.integers(0, 2, 40).astype(bool)
    padded = np.pad(pixels, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    expected = np.zeros_like(pixels)
    for n, (down, right) in enumerate(shifts.tolist()):
        view = padded[n, :, down : down + 6, right : right + 8]
        expected[n] = view[:, :, ::-1] if flips[n] else view
    rows, columns = map(torch.from_numpy, stream.augmentation(0, 5))
    np.testing.assert_array_equal(crop(torch.from_numpy(pixels), rows, columns), expected)
    assert flips.any() and not flips.all()


def test_images_are_normalised_channel_by_channel() -> None:
    shades = np.arange(1, 4)[:, None, None]
    pixels = shades * np.random.default_rng(0).integers(0, 80, (50, 3, 4, 4))
    part = pixels.astype(np.uint8), np.arange(50) % 5
    images = Images(make_dataset("made up", part, part, 5), "cpu")
    values = images.normalise(images.train).numpy()
    np.testing.assert_allclose(values.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(values.std((0, 2, 3)), 1, rtol=1e-5)
