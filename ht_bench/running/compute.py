"""Where and how precisely each task is computed: as asked for, else as the task says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.running.kinds import dataset
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.spec import Precision
from ht_bench.streams.task import AnyTask
from ht_bench.training.device import Compute

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", *get_args(Precision))
FEWEST_WEIGHTS = 500_000
"""Weights, over the stack, from which on a perceptron gains from a GPU."""


@dataclass(frozen=True)
class ComputeRequest:
    """What was asked for; "auto" leaves device or precision to each task.

    threads: CPU threads of a process. elsewhere: other machines train, whose devices cannot be
    looked at. gpu: whether there is a CUDA device; None: as this machine has.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int = 1
    elsewhere: bool = False
    gpu: bool | None = None

    @property
    def has_gpu(self) -> bool:
        """Whether "auto" may take a CUDA device."""
        return torch.cuda.is_available() if self.gpu is None else self.gpu


def choose(task: AnyTask, asked: ComputeRequest) -> Compute:
    """Return what a task is computed with.

    Raises UsageError for what this machine, or the task's loop, does not have.
    """
    _check(asked)
    device = asked.device
    if device == "auto":
        device = "cuda" if asked.has_gpu and gains_from_gpu(task) else "cpu"
    precision = asked.precision
    if precision == "auto":
        precision = task.precision_on(device)
    if device == "cpu" and precision == "tf32":
        raise UsageError(
            f"--precision tf32: {task.name} trains on a CPU, which has no TF32; use --precision "
            "fp32, or --device cuda."
        )
    if precision == "bf16" and isinstance(task, ReinforcementTask):
        raise UsageError(
            f"--precision bf16: the agents of {task.name} train in fp32; leave --precision out."
        )
    return Compute(device, precision, asked.threads)


def _check(asked: ComputeRequest) -> None:
    if asked.precision not in PRECISIONS:
        raise UsageError(f"--precision {asked.precision}: choose one of {', '.join(PRECISIONS)}.")
    if asked.device not in DEVICES:
        raise UsageError(f"--device {asked.device}: choose one of {', '.join(DEVICES)}.")
    if asked.device == "cuda" and not asked.elsewhere and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu.")
    if asked.threads < 1:
        raise UsageError(f"--threads {asked.threads}: give 1 or more.")


def gains_from_gpu(task: AnyTask) -> bool:
    """Whether "auto" takes a CUDA device that is there for the task.

    Convolutions, attention, agents that see pixels, and stacks of many weights do; the digits
    tasks and classic control, whose anchors are runs on a CPU, do not, nor MinAtar's small boards.
    """
    if isinstance(task, ReinforcementTask):
        return task.agent.policy in ("cnn", "data-efficient")
    if task.net["name"] != "mlp":
        return True
    data = dataset(task.data.name)
    channels, height, width = map(int, data.train_images.shape[1:])
    with torch.device("meta"):
        network = networks.build(task.net, (channels, height, width), data.classes)
    weights = sum(parameter.numel() for parameter in network.parameters())
    return weights * task.stack >= FEWEST_WEIGHTS


def notes(task: AnyTask, asked: ComputeRequest, compute: Compute) -> list[str]:
    """Say where a task is not computed as its published figures are."""
    if asked.precision != "auto" or compute.precision == task.precision:
        return []
    return [f"{task.name} is published in TF32, which a CPU does not have: it trains in fp32 here."]


def remarks(task: AnyTask, asked: ComputeRequest, compute: Compute) -> list[str]:
    """Say what is as it should be, and worth knowing."""
    said = []
    if task.superseded_by:
        said.append(f"{task.name} is superseded by {task.superseded_by}.")
    if asked.device == "auto" and compute.device == "cpu" and asked.has_gpu:
        said.append(
            f"{task.name} trains on the CPU, its networks being small; --device cuda takes the GPU."
        )
    return said
