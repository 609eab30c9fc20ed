"""Spectral decoupling: by hand, against a NumPy loop, each seed's mean."""

from __future__ import annotations

import pytest
import torch

from ht_bench.errors import UsageError
from ht_bench.methods.spectral_decoupling import SpectralDecoupling

from .conftest import TwoLayers, descend


def test_by_hand() -> None:
    """λ mean(logits²) = 0.5 · (1 + 4 + 9 + 16)/4, and None for λ = 0."""
    logits = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    assert SpectralDecoupling(0.5).auxiliary_loss(logits, logits) == 0.5 * 30 / 4
    assert SpectralDecoupling(0.0).auxiliary_loss(logits, logits) is None


def test_each_seed_of_a_stack_has_its_own_mean() -> None:
    logits = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(1))
    method = SpectralDecoupling(0.2)
    alone = [method.auxiliary_loss(seed, seed) for seed in logits]
    together = method.auxiliary_loss(logits, logits)
    assert together is not None
    torch.testing.assert_close(together, sum(a for a in alone if a is not None))


def test_it_is_a_numpy_loop() -> None:
    ours = TwoLayers()
    net = ours.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method = SpectralDecoupling(0.1).attach(net, optimizer)
    for step in range(15):
        inputs, labels = ours.batch(step)
        logits = ours.logits(inputs)
        ours.step(ours.gradients(inputs, labels, 0.1 * 2 * logits / logits.size), 0.3)
        descend(net, optimizer, inputs, labels, method)
    ours.assert_equals(net)


def test_values_it_cannot_take() -> None:
    with pytest.raises(UsageError, match="strength = -1.0: a penalty is zero or more"):
        SpectralDecoupling(-1.0)
