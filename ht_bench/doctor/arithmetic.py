"""Whether this machine computes as the published runs were: precision, repetition, curves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from ht_bench.doctor import golden
from ht_bench.doctor.finding import Finding, fault, note, ok
from ht_bench.records.record import Record, without_cost
from ht_bench.running.job import run_stack
from ht_bench.training.device import Compute, settings

EXPECTED = {"fp32": (0.0, 2e-6), "tf32": (2e-5, 2e-3), "bf16": (3e-4, 1e-2)}
"""Precision → the least and the most relative error of a product of normal numbers.

Inputs rounded to 24, 11 or 8 bits give about 1e-7, 3e-4 or 2e-3.
"""
SIDE = 192
CNN: dict[str, Any] = {"name": "cnn", "channels": [4], "hidden": [8]}


def devices() -> list[str]:
    """Return the kinds of device to try."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def precision(out: Path) -> Iterator[Finding]:
    """Compare products and convolutions in every precision with float64."""
    for device in devices():
        for name in ("fp32", "tf32", "bf16"):
            if device == "cpu" and name == "tf32":
                continue
            yield _judged(device, name, relative_errors(Compute(device, name)))


def _judged(device: str, name: str, errors: dict[str, float]) -> Finding:
    least, most = EXPECTED[name]
    told = ", ".join(f"{kind} {error:.1e}" for kind, error in errors.items())
    said = f"{name} on {device}: relative error beside float64 of {told}"
    if not all(error <= most for error in errors.values()):
        return fault(
            f"{said}; at most {most:.0e} is expected, so results would not be the published ones.",
            "unset NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE ONEDNN_DEFAULT_FPMATH_MODE"
            ", or install torch again",
        )
    if any(error < least for error in errors.values()):
        return note(
            f"{said}: more exact than {name} is, which this device or a variable leaves out."
        )
    return ok(f"{said}.")


def relative_errors(compute: Compute) -> dict[str, float]:
    """Return the relative error (Frobenius) of a product and of a convolution as runs make them."""
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, SIDE, SIDE, generator=draw) for _ in range(2))
    images, kernels = (
        torch.randn(*size, generator=draw) for size in ((4, 16, 16, 16), (16, 16, 3, 3))
    )
    with settings(compute), torch.no_grad(), compute.autocast():
        product = torch.bmm(left.to(compute.device), right.to(compute.device))
        convolved = functional.conv2d(images.to(compute.device), kernels.to(compute.device))
    exact = torch.bmm(left.double(), right.double())
    exact_images = functional.conv2d(images.double(), kernels.double())
    return {
        "products": _relative(product, exact),
        "convolutions": _relative(convolved, exact_images),
    }


def _relative(values: torch.Tensor, exact: torch.Tensor) -> float:
    return float((values.cpu().double() - exact).norm() / exact.norm())


def repeats(out: Path) -> Iterator[Finding]:
    """Train twice, a perceptron and a convolutional network: the bits must be the same."""
    for device in devices():
        unequal = [name for name, net in _nets().items() if not _is_repeated(device, net)]
        if unequal:
            yield fault(
                f"The same training on {device} gives other bits the second time "
                f"({', '.join(unequal)}): results cannot be verified.",
                "unset CUBLAS_WORKSPACE_CONFIG, test the memory, or install torch again",
            )
        else:
            yield ok(f"The same training twice on {device} gives the same bits.")


def _nets() -> dict[str, dict[str, Any]]:
    return {"perceptron": golden.TASK["net"], "convolutions": CNN}


def _is_repeated(device: str, net: dict[str, Any]) -> bool:
    first, second = (_trained(device, net) for _ in range(2))
    return [without_cost(record) for record in first] == [without_cost(r) for r in second]


def _trained(device: str, net: dict[str, Any]) -> list[Record]:
    return run_stack(golden.golden_job("hare-tortoise", Compute(device), net=net))


def curves(out: Path) -> Iterator[Finding]:
    """Train the two runs whose numbers are known to every version."""
    for method in golden.GOLDEN:
        [record, _] = run_stack(golden.golden_job(method))
        away, key = golden.largest_difference(method, record)
        if not away <= golden.TOLERANCE:
            yield fault(
                f"The golden run of '{method}' is off by {away:.1g} in {key}, more than "
                f"{golden.TOLERANCE:g}: this machine does not compute as the published runs were.",
                "pip install 'torch>=2.11' again; git status, for changes of the code",
            )
        else:
            yield ok(f"The golden run of '{method}' is met to {max(away, 1e-9):.0e}.")
