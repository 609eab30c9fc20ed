"""A convolutional network's forward and backward, compiled where that pays on a GPU."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ht_bench.networks.stacking import is_stacked
from ht_bench.streams.cache import cache_folder
from ht_bench.training.device import Compute

LONG = 20_000
"""Steps of a run from which on a millisecond saved at each pays half a minute of compiling."""


def pays(module: nn.Module, planned: Sequence[int], compute: Compute) -> bool:
    """Whether to compile: a convolutional net, on CUDA, for a long run.

    Decided by the whole run, so that a resumed one computes as it did.
    """
    convolutions = any("Conv" in type(child).__name__ for child in module.modules())
    return compute.device == "cuda" and convolutions and sum(planned) >= LONG


class CompiledForward:
    """A module as training calls it: compiled at the first call, itself where that fails.

    The compiler's results are kept in the cache folder, so that it takes less time the next time.
    backend: `torch.compile`'s.
    """

    def __init__(self, module: nn.Module, backend: str = "inductor") -> None:
        folder = cache_folder() / "compiled"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
        self.stacked = is_stacked(module)
        self._module = module
        self._forward: Any = torch.compile(module, dynamic=False, backend=backend)
        tqdm.write(
            f"Compiling the network: half a minute the first time on a machine, less from then on "
            f"(kept in {os.environ['TORCHINDUCTOR_CACHE_DIR']}); it counts as training time.",
            file=sys.stderr,
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the module's outputs."""
        if self._forward is self._module:
            return self._module(inputs)
        try:
            return self._forward(inputs)
        except RuntimeError as error:
            warnings.warn(
                f"The network cannot be compiled here and trains uncompiled, slower "
                f"({str(error).splitlines()[0]}).",
                stacklevel=2,
            )
            self._forward = self._module
            return self._module(inputs)
