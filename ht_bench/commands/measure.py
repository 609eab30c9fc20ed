"""ht-bench measure: every diagnostic of one network, as it is now or in a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ht_bench.commands.diagnose import check_named, data_of, network_of, set_threads
from ht_bench.errors import UsageError


def measure(
    network: str = "",
    data: str = "",
    weights: Path | None = None,
    part: str = "",
    slot: int = 0,
    examples: int = 512,
    costly: bool = True,
    format: Literal["text", "json"] = "text",
) -> int:
    """Measure a network on given data: units, ranks, norms, curvature, a trainability probe.

    Example: ht-bench measure --network my_net.py:build --weights checkpoint.pt --data digits

    Args:
        network: file.py:Name of a function or class that, without arguments, makes the network.
        data: what it is measured on: a dataset's name, file.py:Name of a function that returns
            (inputs, labels) or a torch Dataset, or a .pt file of both tensors.
        weights: the network's state: a state dict, a checkpoint of `ht-bench run`, or the zip file
            of a stable-baselines3 agent.
        part: what the names of the network's weights begin with there, e.g. q_net.
        slot: which network of a checkpoint that holds a stack of them.
        examples: the first so many are used.
        costly: also curvature and the probe, which take seconds to minutes.
        format: text or json.

    """
    check_named(network, data)
    if examples < 2:
        raise UsageError(f"--examples {examples}: give 2 or more.")
    import torch

    from ht_bench.diagnosis.examples import read
    from ht_bench.diagnosis.weights import load_weights
    from ht_bench.networks.measure import measure as measured
    from ht_bench.networks.stacking import is_stacked

    module, _ = network_of(network)
    set_threads(module, 0)
    if weights is not None:
        load_weights(module, weights, part, slot)
    given = read(data_of(data), torch.Generator().manual_seed(0))[0]
    if not given.are_classes:
        raise UsageError(f"--data {data}: its labels are no classes, which these measures need.")
    batch = given.take(torch.arange(min(examples, len(given))))
    lone = batch.inputs, batch.labels
    inputs, labels = (tensor[None] for tensor in lone) if is_stacked(module) else lone
    found = measured(module, inputs, labels, costly=costly)
    values = {key: float(value[0]) for key, value in found.items()}
    print(json.dumps(values, indent=1) if format == "json" else _table(values))
    return 0


def _table(values: dict[str, float]) -> str:
    from ht_bench.records.keys import DIAGNOSTICS

    wide = max(map(len, values))
    lines = [
        f"{key:<{wide}}  {value:>10.4g}  {DIAGNOSTICS.get(key, '')}"
        for key, value in values.items()
    ]
    return "\n".join(lines)
