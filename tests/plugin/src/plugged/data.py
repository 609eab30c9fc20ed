"""A dataset: four kinds of bright corners in noise."""

import numpy as np


def blobs():
    """400 + 80 noisy pictures with one bright corner, 1×8×8, 4 classes."""
    draw = np.random.default_rng(0)

    def part(count):
        labels = np.arange(count) % 4
        images = draw.random((count, 8, 8)) * 0.6
        for corner in range(4):
            row, column = 4 * (corner // 2), 4 * (corner % 2)
            images[labels == corner, row : row + 4, column : column + 4] += 0.3
        return images, labels

    return part(400), part(80)
