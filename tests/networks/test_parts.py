"""What counts as a non-linearity, torch's own and others'."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ht_bench.networks.parts import (
    CReLU,
    features_per_unit,
    is_nonlinearity,
    layers_of,
    nonlinearities,
)


class Snake(nn.Module):
    """Of a user; made of a part that is a non-linearity by itself."""

    is_nonlinearity = True
    features = 3

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Tanh()

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.inner(inputs) ** 2


def test_torchs_own_are_known_and_others_say_so() -> None:
    known = (nn.ReLU(), nn.GELU(), nn.SiLU(), nn.LeakyReLU(0.1), nn.ReLU6(), nn.Tanh(), CReLU())
    assert all(map(is_nonlinearity, (*known, Snake())))
    others = (nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Dropout(), nn.MaxPool2d(2), nn.Identity())
    assert not any(map(is_nonlinearity, others))


def test_a_mark_on_a_module_decides() -> None:
    marked, unmarked = nn.Identity(), nn.ReLU()
    marked.is_nonlinearity, unmarked.is_nonlinearity = True, False  # type: ignore[assignment]
    assert is_nonlinearity(marked) and not is_nonlinearity(unmarked)


def test_one_made_of_others_counts_once() -> None:
    network = nn.Sequential(nn.Linear(1, 1), Snake(), nn.Sequential(nn.ReLU()), nn.Linear(1, 1))
    assert list(nonlinearities(network)) == ["1", "2.0"]
    assert list(nonlinearities(Snake())) == [""]


def test_layers_are_found_where_a_network_does_not_name_them() -> None:
    """In order; a child that is called `layers` is no method, a norm's weight no layer's."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    network.layers = nn.Sequential(nn.Linear(3, 3))  # type: ignore[assignment]
    assert layers_of(network) == ["0", "3", "layers.0"]
    network.stacked = True  # type: ignore[assignment]
    assert layers_of(network) == ["0"]


def test_features_per_unit() -> None:
    assert [features_per_unit(m) for m in (nn.ReLU(), CReLU(), Snake())] == [1, 2, 3]
    outputs = CReLU()(torch.tensor([[1.0, -2.0]]))
    assert outputs.tolist() == [[1.0, 0.0, 0.0, 2.0]]  # unit i: features i and w + i
