"""Networks and optimizers of a run: weights drawn per seed, as a lone network's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench import networks, registry
from ht_bench.networks import outside
from ht_bench.networks.mlp import copy_seed
from ht_bench.networks.noise import SeedNoise, give_noise
from ht_bench.networks.stacking import is_stacked
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.randomness import Purpose, torch_seed
from ht_bench.streams.task import OptimizerSpec, Task


def network(
    task: Task,
    data: Dataset,
    seeds: Sequence[int],
    changes: Mapping[str, Any],
    purpose: Purpose = "initial weights",
    phase: int = 0,
    draw: int = 0,
) -> nn.Module:
    """Build the task's network, `changes` merged into its `[net]`, one slot per seed.

    Each seed's weights are drawn from its own key (task, seed, purpose, phase, draw), whatever
    its mates and slot. torch's default generator is left as it was, and CUDA's are not touched.
    """
    table, shape, form = {**task.net, **changes}, _shape(data), _form(task)
    with torch.random.fork_rng(devices=[]):
        lone = []
        for seed in seeds:
            # Not torch.manual_seed: it would seed CUDA's generators too.
            torch.default_generator.manual_seed(torch_seed(task.name, seed, purpose, phase, draw))
            lone.append(networks.build(table, shape, data.classes, form))
        if not is_stacked(lone[0]):
            return lone[0]
        stack = networks.build(table, shape, data.classes, stack=len(seeds))
    for slot, source in enumerate(lone):
        copy_seed(source, stack, slot)
    return stack


def check(task: Task, data: Dataset, changes: Mapping[str, Any]) -> nn.Module:
    """Return the task's network for one seed, tried if it is a user's.

    Raises UsageError for what it refuses or a user's network does wrong.
    """
    module, name = network(task, data, [0], changes), {**task.net, **changes}["name"]
    if registry.networks.is_from_outside(name):
        outside.try_out(name, module, _shape(data), data.classes, _form(task))
    return module


def _shape(data: Dataset) -> tuple[int, int, int]:
    channels, height, width = data.train_images.shape[1:]
    return int(channels), int(height), int(width)


def _form(task: Task) -> int | None:
    """A task of single seeds trains the lone network itself, whatever form a stack would have."""
    return 1 if task.stack > 1 else None


def noise(module: nn.Module, stack: int, device: str) -> SeedNoise | None:
    """Give a stack whose layers draw random numbers a generator for each seed; None for others."""
    if is_stacked(module) and give_noise(module, own := SeedNoise(stack, device)):
        return own
    give_noise(module, None)
    return None


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the module's parameters and buffers by name."""
    named: dict[str, Tensor] = dict(module.named_parameters())
    named.update(module.named_buffers())
    return {name: tensor.detach() for name, tensor in named.items()}


def optimizer(
    spec: OptimizerSpec, module: nn.Module, captured: bool = False
) -> torch.optim.Optimizer:
    """Build the task's optimizer over all of the module's parameters.

    captured: its step is to be captured: one fused group, with a rate that `LearningRate` binds.
    """
    parameters = list(module.parameters())
    if spec.name == "sgd":
        fused = True if captured else None
        return torch.optim.SGD(
            parameters,
            lr=spec.lr,
            momentum=spec.betas[0],
            weight_decay=spec.weight_decay,
            fused=fused,
        )
    kind = torch.optim.AdamW if spec.name == "adamw" else torch.optim.Adam
    on_cuda = parameters[0].device.type == "cuda"
    groups = [{"params": parameters, "fused": True}] if captured or on_cuda else _groups(module)
    return kind(
        groups,
        lr=spec.lr,
        betas=spec.betas,
        weight_decay=spec.weight_decay,
        capturable=captured and on_cuda,
    )


VECTOR = 16
"""Numbers in the widest CPU vector (AVX-512, float32)."""


def _groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return a CPU's parameter groups: fused where every slot of a stack gets the same bits.

    The fused CPU kernel rounds the last numbers of a tensor, which fill no whole vector, in
    another way than the rest: they would make the last slot's bits differ from the others'.
    """
    parameters = list(module.parameters())
    if not is_stacked(module):
        return [{"params": parameters, "fused": True}]
    whole = [p for p in parameters if p.numel() % VECTOR == 0]
    ragged = [p for p in parameters if p.numel() % VECTOR]
    groups = [{"params": whole, "fused": True}, {"params": ragged, "foreach": False}]
    return [group for group in groups if group["params"]]
