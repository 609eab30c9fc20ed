"""A dataset's canonical order, hash and statistics."""

import dataclasses

import numpy as np
import pytest

from ht_bench.streams.dataset import (
    Dataset,
    canonical_order,
    channel_statistics,
    content_hash,
    make_dataset,
)

Part = tuple[np.ndarray, np.ndarray]


def part(count: int, seed: int = 0, classes: int = 3) -> Part:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, 2, 3, 3), dtype=np.uint8)
    return images, draw.integers(0, classes, count)


def made(train: Part, test: Part) -> Dataset:
    return make_dataset("made-up", train, test, 3)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_file_does_not_count(seed: int) -> None:
    (x, y), test = part(40), part(9, 1)
    order = np.random.default_rng(seed).permutation(len(y))
    one, two = made((x, y), test), made((x[order], y[order]), test)
    assert one.sha256 == two.sha256
    np.testing.assert_array_equal(one.train_images, two.train_images)
    np.testing.assert_array_equal(one.train_labels, two.train_labels)


def test_examples_are_sorted_by_pixels_as_bytes_then_by_label() -> None:
    images = np.array([[200, 0], [3, 9], [3, 9], [3, 2], [3, 9]], dtype=np.uint8)
    labels = np.array([0, 2, 0, 1, 1])
    order = canonical_order(images.reshape(5, 1, 1, 2), labels)
    assert images[order].tolist() == [[3, 2], [3, 9], [3, 9], [3, 9], [200, 0]]
    assert labels[order].tolist() == [1, 0, 1, 2, 0]


def test_images_keep_their_labels() -> None:
    (x, y), test = part(40), part(9, 1)
    found = made((x, y), test)
    before = sorted((image.tobytes(), int(label)) for image, label in zip(x, y, strict=True))
    after = zip(found.train_images, found.train_labels, strict=True)
    assert [(image.tobytes(), int(label)) for image, label in after] == before


def test_the_hash_sees_pixels_labels_shape_and_which_part() -> None:
    train, test = part(12), part(12, 1)
    found = {content_hash(*train, *test), content_hash(*test, *train)}
    pixel, label = train[0].copy(), train[1].copy()
    pixel[3, 1, 2, 2] ^= 1
    label[0] = (label[0] + 1) % 3
    found |= {content_hash(pixel, train[1], *test), content_hash(train[0], label, *test)}
    found |= {content_hash(train[0].reshape(12, 1, 6, 3), train[1], *test)}
    found |= {content_hash(train[0], train[1], *part(11, 1))}
    assert len(found) == 6


def test_the_hash_does_not_see_memory_layout_or_label_width() -> None:
    (x, y), test = part(12), part(5, 1)
    expected = content_hash(x, y, *test)
    assert content_hash(np.asfortranarray(x), y.astype(np.int32), *test) == expected
    assert content_hash(x, y.astype(">i8"), *test) == expected


def test_a_dataset_has_bytes_and_whole_labels_and_is_frozen() -> None:
    found = made((part(12)[0], part(12)[1].astype(np.int16)), part(5, 1))
    assert (found.train_images.dtype, found.train_labels.dtype) == (np.uint8, np.int64)
    assert found.train_images.flags.c_contiguous
    assert (found.max_value, found.classes) == (255, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("max_value", [255, 16])
def test_statistics_are_those_of_the_training_images(max_value: int) -> None:
    (x, y), test = part(30), part(9, 1)
    images = np.minimum(x, max_value).astype(np.uint8)
    found = make_dataset("made-up", (images, y), test, 3, max_value)
    np.testing.assert_allclose(found.mean, (images / max_value).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, (images / max_value).std((0, 2, 3)), rtol=1e-12)
    assert {type(value) for value in found.mean + found.std} == {float}


def test_one_grey_everywhere_has_no_spread() -> None:
    mean, std = channel_statistics(np.full((4, 1, 2, 2), 51, dtype=np.uint8), 255)
    assert (mean, std) == ((0.2,), (0.0,))
