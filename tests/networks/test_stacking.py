"""Arithmetic over the seeds of a stack: a slot's bits are its own."""

import torch
from torch import nn

from ht_bench.networks.stacking import clip_gradients, squared_norms


def test_norms_and_clipping_keep_a_slots_bits_whatever_its_mates_and_place() -> None:
    shapes = [(1,), (3, 5), (127,), (33, 7), (128, 64), (4097,)]
    rows = [torch.randn(shape) for shape in shapes]
    found = []
    for slot in (0, 1, 3):
        gradients = [torch.randn(4, *shape) for shape in shapes]
        for gradient, row in zip(gradients, rows, strict=True):
            gradient[slot] = row
        stack = nn.Module()
        stack.stacked = True  # type: ignore[assignment]
        for place, gradient in enumerate(gradients):
            parameter = nn.Parameter(torch.zeros_like(gradient))
            parameter.grad = gradient
            stack.register_parameter(str(place), parameter)
        norm = squared_norms(gradients, stacked=True)[slot]
        clip_gradients(stack, 0.5)
        found.append([norm, *(gradient[slot] for gradient in gradients)])
    for others in found[1:]:
        assert all(map(torch.equal, others, found[0]))
