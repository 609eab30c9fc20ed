"""What an update of an exponential moving average costs: `python -m benchmarks.ema`.

This package's (as the optimizer's hook calls it, and the arithmetic alone) in turns with a Python
loop over the tensors, torch's AveragedModel and ema-pytorch, at the sizes of three networks.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.common import (
    Options,
    Row,
    calls_for,
    finish,
    in_turns,
    median_of,
    read_options,
    timed,
)
from ht_bench import networks
from ht_bench.methods.ema import ExponentialMovingAverage

DECAY = 0.999
STRETCH = 0.05
"""Seconds."""
Update = Callable[[], object]


def perceptron(*widths: int) -> nn.Module:
    """Return a plain perceptron, as a program without this package has it."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "26k": lambda: perceptron(64, 128, 128, 10),
    "537k": lambda: perceptron(784, 512, 256, 10),
    "11m": lambda: networks.build({"name": "resnet18"}, (3, 32, 32), 10),
}


def averaged(module: nn.Module) -> list[Tensor]:
    """Return what is averaged: parameters and floating buffers."""
    return [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]


def own_hook(module: nn.Module) -> Update:
    """Return this package's update as a training program pays for it: the optimizer's hooks."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ExponentialMovingAverage(decay=DECAY).attach(module, optimizer)
    hooks = [*optimizer._optimizer_step_post_hooks.values()]

    def update() -> None:
        for hook in hooks:
            hook(optimizer, (), {})

    return update


def allocating_loop(module: nn.Module) -> Update:
    """Return the update that many programs write: a new tensor for each."""
    slow = copy.deepcopy(module)
    pairs = list(zip(averaged(slow), averaged(module), strict=True))

    @torch.no_grad()
    def update() -> None:
        for mine, theirs in pairs:
            mine.copy_(DECAY * mine + (1 - DECAY) * theirs)

    return update


def loop_in_place(module: nn.Module) -> Update:
    """Return a loop that allocates nothing."""
    slow = copy.deepcopy(module)
    pairs = list(zip(averaged(slow), averaged(module), strict=True))

    @torch.no_grad()
    def update() -> None:
        for mine, theirs in pairs:
            mine.lerp_(theirs, 1 - DECAY)

    return update


def averaged_model(module: nn.Module) -> Update:
    """Return torch's own, in its multi-tensor form."""
    slow = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    return partial(slow.update_parameters, module)


def ema_pytorch(module: nn.Module) -> Update:
    """Return ema-pytorch's, in its multi-tensor form, updating at every step."""
    from ema_pytorch import EMA

    slow = EMA(module, beta=DECAY, update_after_step=0, update_every=1, use_foreach=True)
    slow.update()  # the first two only copy
    slow.update()
    return slow.update


PEERS = {
    "ema-loop": ("loop that allocates", allocating_loop),
    "ema-loop-in-place": ("loop in place", loop_in_place),
    "ema-averaged": ("AveragedModel", averaged_model),
    "ema-pytorch": ("ema-pytorch", ema_pytorch),
}


def measure(options: Options) -> Iterator[Row]:
    """Yield a row per network and peer."""
    has_pytorch = importlib.util.find_spec("ema_pytorch") is not None
    peers = {k: v for k, v in PEERS.items() if k != "ema-pytorch" or has_pytorch}
    if not has_pytorch:
        print("Left out: ema-pytorch is not installed; pip install -e '.[bench]'.")
    sizes = ["26k"] if options.tiny else list(NETWORKS)
    for size in sizes:
        module = NETWORKS[size]().to(options.device)
        updates = [own_hook(module), *(make(module) for _, make in peers.values())]
        yield from rows(options, size, updates, [(k, name) for k, (name, _) in peers.items()])


def rows(
    options: Options, size: str, updates: Sequence[Update], peers: Sequence[tuple[str, str]]
) -> Iterator[Row]:
    """Measure one network's updates in turns; the first is this package's."""
    seconds = 0.002 if options.tiny else STRETCH
    calls = [calls_for(update, options.device, seconds) for update in updates]
    stretches = [
        partial(timed, update, options.device, count)
        for update, count in zip(updates, calls, strict=True)
    ]
    found = in_turns(stretches, options.turns)
    for column, (key, name) in enumerate(peers, start=1):
        yield Row(
            f"{key}-{size}",
            float(median_of(found[:, 0]).median * 1e6),
            "µs",
            float(median_of(found[:, column]).median * 1e6),
            name,
            median_of(found[:, column] / found[:, 0]),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = read_options(__doc__, arguments)
    torch.set_num_threads(1)
    finish("ema", options, measure(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
