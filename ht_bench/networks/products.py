"""Whether this CPU multiplies in fp32 where torch is asked for "medium" precision."""

from __future__ import annotations

import functools

import torch


@functools.cache
def medium_is_fp32() -> bool:
    """Whether a CPU's products at "medium" are still fp32 (oneDNN's); with AMX they are bf16's."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(4, 64, 64, generator=generator) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    error = (torch.bmm(left, right).double() - torch.bmm(left.double(), right.double())).abs().max()
    torch.set_float32_matmul_precision(before)
    return bool(error < 1e-4)
