"""What the arithmetic of this machine can do at most: `python -m benchmarks.peaks`.

Matrix products, 3 × 3 convolutions (channels last) and copies, per precision and, on a CPU, per
number of threads. Other benchmarks give their share of these.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import Options, calls_for, finish, read_options, timed
from benchmarks.loops import plain_settings
from ht_bench.running.cores import available_cores


@dataclasses.dataclass(frozen=True)
class Peak:
    """threads: of the CPU, None on CUDA. rate: in `unit`, the best of the turns."""

    what: str
    precision: str
    threads: int | None
    rate: float
    unit: str


def _best(work: Callable[[], object], device: str, tiny: bool, turns: int = 7) -> float:
    """Return the seconds of the fastest call: a peak is no median."""
    calls = calls_for(work, device, 0.002 if tiny else 0.2)
    return min(timed(work, device, calls) for _ in range(2 if tiny else turns))


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


def matrix_product(device: str, precision: str, tiny: bool = False) -> float:
    """Return floating-point operations per second of square products.

    precision: fp32, tf32, bf16; "medium" is fp32 at that setting of torch.
    """
    size = 64 if tiny else 8192 if device == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=_dtype(precision)) for _ in "ab")
    out = torch.empty_like(left)
    with plain_settings(precision):
        if precision == "medium":
            torch.set_float32_matmul_precision("medium")
        return 2 * size**3 / _best(partial(torch.mm, left, right, out=out), device, tiny)


@torch.no_grad()
def convolution(device: str, precision: str, tiny: bool = False) -> float:
    """Return floating-point operations per second of a forward 3 × 3 convolution, as ResNet's."""
    batch, channels, size = (2, 8, 8) if tiny else (1024 if device == "cuda" else 64, 128, 16)
    images = torch.randn(batch, channels, size, size, device=device, dtype=_dtype(precision))
    images = images.to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    layer = layer.to(device, _dtype(precision), memory_format=torch.channels_last)  # type: ignore[call-overload]
    work = 2 * 9 * channels**2 * size**2 * batch
    with plain_settings(precision):
        return work / _best(partial(layer, images), device, tiny)


def copying(device: str, tiny: bool = False) -> float:
    """Return bytes per second, read and written bytes both counted."""
    numbers = 2**10 if tiny else 2**28 if device == "cuda" else 2**26
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    return 8 * numbers / _best(partial(target.copy_, source), device, tiny)


def measure(options: Options) -> Iterator[Peak]:
    """Yield the peaks; on a CPU with one thread and with all."""
    cuda, tiny = options.device == "cuda", options.tiny
    precisions = ("fp32", "tf32", "bf16") if cuda else ("fp32", "medium", "bf16")
    for threads in [None] if cuda else sorted({1, available_cores()}):
        if threads is not None:
            torch.set_num_threads(threads)
        for precision in precisions:
            rate = matrix_product(options.device, precision, tiny)
            yield Peak("matrix product", precision, threads, rate / 1e9, "GFLOP/s")
        for precision in precisions:
            if precision != "medium":  # a setting of matrix products alone
                rate = convolution(options.device, precision, tiny)
                yield Peak("convolution", precision, threads, rate / 1e9, "GFLOP/s")
        yield Peak("copy", "fp32", threads, copying(options.device, tiny) / 1e9, "GB/s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = read_options(__doc__, arguments)
    peaks = list(measure(options))
    table = Table("what", "precision", "threads", "peak")
    for peak in peaks:
        table.add_row(
            peak.what, peak.precision, str(peak.threads or ""), f"{peak.rate:,.0f} {peak.unit}"
        )
    Console(width=100).print(table)
    finish("peaks", options, [], peaks=[dataclasses.asdict(peak) for peak in peaks])
    return 0


if __name__ == "__main__":
    sys.exit(main())
