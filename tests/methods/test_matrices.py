"""Which weights of which network are matrices, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods.matrices import WeightMatrix, weight_matrices

from .stacks import stack


def of(module: nn.Module) -> dict[str, WeightMatrix]:
    return {matrix.name: matrix for matrix in weight_matrices(module, "fire")}


def test_a_stack_and_a_lone_network_alike() -> None:
    found = of(stack())
    assert list(found) == ["linear0.weight", "linear1.weight", "output.weight"]
    first = found["linear0.weight"]
    assert first.values().shape == (3, 1, 8, 6)
    assert first.taps().shape == (3, 1, 1, 8, 6)
    assert first.fan_in == 6
    assert first.bias is not None
    assert first.bias.shape == (3, 8)
    alone = of(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 5, bias=False)))
    assert [m.values().shape for m in alone.values()] == [(1, 1, 8, 6), (1, 1, 5, 8)]
    assert alone["2.weight"].bias is None


@pytest.mark.parametrize("stacked", [None, 2])
def test_kernels_tap_by_tap(stacked: int | None) -> None:
    table = {"name": "cnn", "channels": [4, 6], "hidden": [8]}
    net = networks.build(table, (3, 8, 8), 10, stack=stacked)
    if stacked is None:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = of(net)
    assert list(found) == ["conv0.weight", "conv1.weight", "linear0.weight", "output.weight"]
    kernel, seeds = found["conv1.weight"], stacked or 1
    assert kernel.values().shape == (seeds, 1, 6, 4 * 9)
    assert kernel.fan_in == 36
    weights = kernel.parameter.detach().reshape(seeds, 6, 4, 3, 3)
    assert torch.equal(kernel.values()[:, 0], weights.flatten(2))
    assert torch.equal(kernel.taps()[-1, 0, 5], weights[-1, :, :, 1, 2])
    before = kernel.parameter.detach().clone()
    with torch.no_grad():
        kernel.set(kernel.values().clone())
        kernel.set_taps(kernel.taps().clone())
        assert torch.equal(kernel.parameter, before)
        kernel.set_taps(kernel.taps() * torch.arange(9).view(9, 1, 1))
    assert torch.equal(kernel.parameter[..., 1, 2], before[..., 1, 2] * 5)


def test_attention_holds_three_and_tokens_are_none() -> None:
    found = of(networks.build({"name": "vit"}, (3, 8, 8), 10, stack=None))
    assert not any(name.startswith("tokens") for name in found)
    attention = found["blocks.0.attention.qkv.weight"]
    assert attention.is_attention
    assert attention.values().shape == (1, 3, 192, 192)
    keys = attention.parameter.detach()[192:384]
    assert torch.equal(attention.values()[0, 1], keys)
    assert of(nn.MultiheadAttention(4, 2))["in_proj_weight"].values().shape == (1, 3, 4, 4)
    assert of(nn.LSTM(3, 5))["weight_ih_l0"].values().shape == (1, 4, 5, 3)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 7, 4))
        self.words = nn.Embedding(9, 4)
        self.linear = nn.Linear(4, 1)


def test_positions_and_embeddings_are_no_matrices_and_one_output_is() -> None:
    assert list(of(Tokens())) == ["linear.weight"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: parametrizations.spectral_norm(nn.Linear(3, 3)),
        lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
        lambda: prune.random_unstructured(nn.Linear(3, 3), "weight", 0.5),
    ],
)
def test_derived_weights_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(UsageError, match="'1' is derived from other parameters .* 'fire' sets"):
        weight_matrices(nn.Sequential(nn.Linear(3, 3), make()), "fire")


def test_a_module_without_any_is_refused() -> None:
    with pytest.raises(UsageError, match="'fire' works on weight matrices, and LayerNorm has none"):
        weight_matrices(nn.LayerNorm(4), "fire")
