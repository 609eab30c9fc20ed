"""ht-bench diagnose: does this network, with these data, have plasticity loss?"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ht_bench.errors import UsageError, telling
from ht_bench.loading import is_reference, load_reference

if TYPE_CHECKING:
    from torch import nn

    from ht_bench.diagnosis.training import MakeOptimizer


def diagnose(
    network: str = "",
    data: str = "",
    weights: Path | None = None,
    part: str = "",
    slot: int = 0,
    test: str = "",
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    steps: int = 1_000,
    pairs: int = 8,
    batch: int = 64,
    margin: float = 0.02,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 0,
    format: Literal["text", "json"] = "text",
    figure: Path | None = None,
) -> int:
    """Say whether a network, with given data, has plasticity loss.

    It is trained beside freshly drawn twins, on the same batches; the answer is a gap with its
    interval, and what of the network's units goes with it.

    Example: ht-bench diagnose --network my_net.py:build --weights checkpoint.pt --data digits

    Args:
        network: file.py:Name of a function or class that, without arguments, makes the network.
        data: what it is to learn: a dataset's name, file.py:Name of a function that returns
            (inputs, labels) or a torch Dataset, or a .pt file of both tensors.
        weights: the network's state: a state dict, a checkpoint of `ht-bench run`, or the zip file
            of a stable-baselines3 agent.
        part: what the names of the network's weights begin with there, e.g. q_net.
        slot: which network of a checkpoint that holds a stack of them.
        test: test data, in the same forms; else a share of the data that pairs split off.
        optimizer: of both networks.
        lr: learning rate.
        weight_decay: of the optimizer.
        steps: optimizer steps of each training.
        pairs: networks beside fresh twins; more make the interval narrower.
        batch: examples of a step.
        margin: the smallest gap in test accuracy that counts.
        seed: of everything that is drawn.
        device: where to train; auto takes CUDA where there is one.
        threads: of the CPU; 0 is one for a small network, which more only slow down.
        format: text or json, which has the curves too.
        figure: also draw the learning curves, PNG and SVG, here.

    """
    check_named(network, data)
    import torch

    from ht_bench.diagnosis.diagnose import diagnose as run
    from ht_bench.diagnosis.weights import load_weights

    module, build = network_of(network)
    set_threads(module, threads)
    if weights is not None:
        load_weights(module, weights, part, slot)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    answer = run(
        module.to(device),
        data_of(data),
        test=data_of(test) if test else None,
        fresh=build,
        optimizer=_optimizer(optimizer, lr, weight_decay),
        margin=margin,
        steps=steps,
        pairs=pairs,
        batch=batch,
        seed=seed,
    )
    print(json.dumps(answer.to_dict(), indent=1) if format == "json" else answer)
    if figure is not None:
        from ht_bench.diagnosis.figure import draw

        print(f"Figures: {', '.join(map(str, draw(answer, figure)))}", file=sys.stderr)
    return 0


def check_named(network: str, data: str) -> None:
    """Raise UsageError unless a network and data are named."""
    for name, value in (("--network", network), ("--data", data)):
        if not value:
            raise UsageError(f"{name} is missing: --network my_net.py:build --data digits.")


SMALL = 500_000
"""Weights below which a second thread waits longer than it computes."""


def set_threads(module: nn.Module, threads: int) -> None:
    """Give torch so many CPU threads; 0 is one for a small network, else torch's own number."""
    import torch

    if threads < 0:
        raise UsageError(f"--threads {threads}: give 1 or more, or 0 to have it chosen.")
    if threads or sum(p.numel() for p in module.parameters()) < SMALL:
        torch.set_num_threads(threads or 1)


def network_of(reference: str) -> tuple[nn.Module, Any]:
    """Return the network and, where a function makes it, that function: fresh twins come of it."""
    from torch import nn

    if not is_reference(reference):
        raise UsageError(f"--network {reference}: write path/to/file.py:build.")
    thing = load_reference(reference)
    if isinstance(thing, nn.Module):
        return thing, None
    module = _called(thing, reference)
    if not isinstance(module, nn.Module):
        raise UsageError(f"{reference} makes a {type(module).__name__}, no torch module.")
    return module, functools.partial(_called, thing, reference)


def data_of(reference: str) -> Any:
    """Return the data that `--data` names, as `ht_bench.diagnose` takes them."""
    if reference.endswith((".pt", ".pth")):
        from ht_bench.diagnosis.weights import read_saved

        return read_saved(Path(reference), "pair of tensors, torch.save((inputs, labels), path)")
    if not is_reference(reference):
        return reference
    thing = load_reference(reference)
    return _called(thing, reference) if callable(thing) else thing


def _called(thing: Any, reference: str) -> Any:
    with telling(f"{reference} failed", "; it is called without arguments"):
        return thing()


def _optimizer(name: str, lr: float, weight_decay: float) -> MakeOptimizer:
    import torch

    kinds: dict[str, Any] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
    }
    if not lr > 0 or weight_decay < 0:
        raise UsageError(f"--lr {lr} --weight-decay {weight_decay}: give positive numbers.")
    return functools.partial(kinds[name], lr=lr, weight_decay=weight_decay)
