"""Diagnostics by hand on known activations and matrices; the network is left as it was."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench import networks
from ht_bench.networks.diagnostics import diagnose
from ht_bench.networks.parts import Chain, CReLU
from ht_bench.networks.ranks import centred_ranks, ranks
from ht_bench.networks.unit_outputs import dormant_share, mean_activations

KEYS = {
    *(f"plasticity/{name}_fraction" for name in ("dormant", "saturated", "duplicate")),
    *(f"plasticity/{name}" for name in ("effective_rank", "stable_rank", "srank")),
    *(f"plasticity/centred_{name}" for name in ("effective_rank", "stable_rank", "srank")),
    "weights/norm",
    "weights/distance_from_init",
    "gradients/norm",
}


def by_hand(first: list[list[float]], second: list[list[float]]) -> Chain:
    """Linear, ReLU, linear without bias."""
    net = Chain()
    for name, rows in (("linear0", first), ("output", second)):
        layer = nn.Linear(len(rows[0]), len(rows), bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(rows))
        net.add_module(name, layer)
        if name == "linear0":
            net.add_module("activation0", nn.ReLU())
    return net


# ---- dormancy ----


def dormant_fraction(layers: list[Tensor], stacked: bool, threshold: float = 0.0) -> Tensor:
    return dormant_share([mean_activations(layer, stacked) for layer in layers], threshold)


def test_a_unit_is_dormant_when_its_share_of_the_mean_is_at_most_the_threshold() -> None:
    """Means of |h|: 0, 0.05, 1, 2.95; of the layer: 1; so are the scores."""
    hidden = torch.tensor([[0.0, 0.1, 1.0, 5.9], [0.0, 0.0, 1.0, 0.0]])
    shares = {0.0: 0.25, 0.04: 0.25, 0.0501: 0.5, 1.0: 0.75, 3.0: 1.0}
    for threshold, share in shares.items():
        assert dormant_fraction([hidden], False, threshold).tolist() == [share]


def test_units_of_all_layers_count_alike() -> None:
    """One of two and three of four: 4/6, not the mean of 1/2 and 3/4."""
    layers = [torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0, 0.0]])]
    assert dormant_fraction(layers, False).tolist() == [pytest.approx(4 / 6)]


def test_negative_outputs_are_alive_and_a_layer_of_zeros_is_dormant() -> None:
    assert dormant_fraction([torch.tensor([[-1.0, 2.0]])], False).tolist() == [0.0]
    assert dormant_fraction([torch.zeros(3, 4)], False).tolist() == [1.0]


def test_a_convolutions_unit_is_a_channel_and_a_transformers_a_feature() -> None:
    maps = torch.zeros(2, 4, 3, 3)
    maps[1, 2, 0, 1] = 1.0
    assert dormant_fraction([maps], False).tolist() == [0.75]
    tokens = torch.zeros(2, 7, 5)
    tokens[0, 3, 1] = tokens[1, 0, 4] = 1.0
    assert dormant_fraction([tokens], False).tolist() == [pytest.approx(0.6)]


def test_each_seed_of_a_stack_has_its_own() -> None:
    hidden = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]])
    assert dormant_fraction([hidden], True).tolist() == [0.5, 0.0]


def test_it_is_measured_after_the_non_linearity() -> None:
    """Units 1, −1, 2, −2 on positive inputs: two of four never fire."""
    net = by_hand([[1.0], [-1.0], [2.0], [-2.0]], [[1.0, 1.0, 1.0, 1.0]])
    found = measured(net, torch.tensor([[1.0], [3.0]]), lambda outputs: outputs.sum())
    assert found["plasticity/dormant_fraction"].tolist() == [0.5]


# ---- ranks ----


def spectrum(*singular: float) -> Tensor:
    """A [1, 6, n] matrix with these singular values, rotated on both sides."""
    draw = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(6, 6, generator=draw, dtype=torch.float64))[0]
    count = len(singular)
    right = torch.linalg.qr(torch.randn(count, count, generator=draw, dtype=torch.float64))[0]
    values = torch.diag(torch.tensor(singular, dtype=torch.float64))
    return (left[:, :count] @ values @ right)[None]


@pytest.mark.parametrize(
    ("singular", "effective", "stable", "srank"),
    [
        ((1.0, 1.0, 1.0, 1.0), 4.0, 4.0, 4.0),
        ((5.0, 0.0, 0.0), 1.0, 1.0, 1.0),
        ((3.0, 4.0), math.exp(-3 / 7 * math.log(3 / 7) - 4 / 7 * math.log(4 / 7)), 25 / 16, 2.0),
        ((0.5, 0.25, 0.25), math.exp(1.5 * math.log(2)), 1.5, 3.0),
        ((995.0, 4.0, 1.0), None, 1 + 17 / 995**2, 1.0),  # the first holds 99.5 %
        ((985.0, 10.0, 5.0), None, 1 + 125 / 985**2, 2.0),  # the first 98.5 %, two 99.5 %
    ],
)
def test_ranks_of_a_known_spectrum(
    singular: tuple[float, ...], effective: float | None, stable: float, srank: float
) -> None:
    found = ranks(spectrum(*singular))
    assert found["plasticity/stable_rank"].item() == pytest.approx(stable, rel=1e-9)
    assert found["plasticity/srank"].item() == srank
    if effective is not None:
        assert found["plasticity/effective_rank"].item() == pytest.approx(effective, rel=1e-6)


def test_each_seeds_rank_is_its_own_and_delta_is_a_parameter() -> None:
    both = torch.cat([spectrum(985.0, 10.0, 5.0), spectrum(1.0, 1.0, 1.0)])
    assert ranks(both)["plasticity/srank"].tolist() == [2.0, 3.0]
    assert ranks(both, delta=0.02)["plasticity/srank"].tolist() == [1.0, 3.0]
    assert ranks(both, delta=0.5)["plasticity/srank"].tolist() == [1.0, 2.0]


def test_ranks_of_dead_or_diverged_features_are_numbers() -> None:
    features = torch.stack([torch.zeros(3, 2), torch.full((3, 2), math.nan)])
    for values in ranks(features).values():
        assert torch.isfinite(values).all()


# ---- the whole ----


def measured(
    net: nn.Module, inputs: Tensor, loss: Callable[[Tensor], Tensor], moved: float = 0.0
) -> dict[str, Tensor]:
    initial = {name: p.detach() - moved for name, p in net.named_parameters()}
    return diagnose(net, inputs, loss, initial)


def test_norms_by_hand() -> None:
    """h = (3, 4)·relu(x) summed: weights 3, 4, 1, 1; x = 2; d loss = (2, 2, 6, 8)."""
    net = by_hand([[3.0], [4.0]], [[1.0, 1.0]])
    found = measured(net, torch.tensor([[2.0]]), lambda outputs: outputs.sum(), moved=0.5)
    assert found.keys() == KEYS
    assert found["weights/norm"].item() == pytest.approx(math.sqrt(9 + 16 + 1 + 1))
    assert found["weights/distance_from_init"].item() == pytest.approx(math.sqrt(4 * 0.25))
    assert found["gradients/norm"].item() == pytest.approx(math.sqrt(4 + 4 + 36 + 64))
    assert found["plasticity/dormant_fraction"].item() == 0.0
    assert found["plasticity/stable_rank"].item() == pytest.approx(1.0)


def test_the_ranks_are_of_the_last_hidden_features() -> None:
    """Inputs of rank 3, four units of which the last layer reads rank 1."""
    net = by_hand([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], [[1.0, 1.0]])
    inputs = torch.eye(3) + 0.1
    found = measured(net, inputs, lambda outputs: outputs.sum())
    features = torch.relu(inputs @ net.get_parameter("linear0.weight").T)[None]
    for key, value in ranks(features).items():
        assert torch.allclose(found[key], value)
    assert found["plasticity/srank"].item() == 1.0


def test_a_stack_is_measured_seed_by_seed() -> None:
    """As the lone networks of its slots."""
    table = {"name": "mlp", "hidden": [9, 7]}
    stack = networks.build(table, (1, 2, 3), 4, stack=3)
    inputs, labels = torch.randn(3, 20, 1, 2, 3), torch.randint(4, (3, 20))

    def loss(outputs: Tensor) -> Tensor:
        pairs = zip(outputs, labels[-len(outputs) :], strict=True)
        return torch.stack([cross_entropy(z, y) for z, y in pairs]).sum()

    together = measured(stack, inputs, loss, moved=0.25)
    lone = networks.build(table, (1, 2, 3), 4, stack=1)
    lone.load_state_dict({name: tensor[2:] for name, tensor in stack.state_dict().items()})
    alone = measured(lone, inputs[2:], loss, moved=0.25)
    assert together.keys() == alone.keys() == KEYS
    for key, value in together.items():
        assert value.shape == (3,)
        torch.testing.assert_close(value[2:], alone[key], rtol=1e-4, atol=1e-5)


def test_crelus_units_are_found() -> None:
    table = {"name": "mlp", "hidden": [8], "activation": "crelu"}
    net = networks.build(table, (1, 2, 3), 4)
    assert any(isinstance(child, CReLU) for child in net.modules())
    found = measured(net, torch.ones(1, 5, 1, 2, 3), lambda outputs: outputs.sum())
    assert found["plasticity/dormant_fraction"].tolist() == [0.5]  # of x and −x one is zero


TABLES: list[dict[str, Any]] = [
    {"name": "mlp", "hidden": [9, 7], "linear_norm": "batch"},
    {"name": "cnn", "channels": [4], "hidden": [6], "linear_norm": "batch"},
    {"name": "resnet18"},
    {"name": "vit"},
]


@pytest.mark.parametrize("table", TABLES, ids=[table["name"] for table in TABLES])
def test_the_network_and_every_generator_are_left_bit_identical(table: dict[str, Any]) -> None:
    net = networks.build(table, (3, 16, 16), 5)
    inputs = torch.randn(1, 6, 3, 16, 16) if net.stacked else torch.randn(6, 3, 16, 16)
    net(inputs).sum().backward()
    for index, child in enumerate(net.modules()):
        child.training = index % 3 != 1
    before, facts = state(net)
    found = measured(net, inputs, lambda outputs: outputs.square().mean())
    after, facts_after = state(net)
    assert facts == facts_after
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert found.keys() == KEYS
    assert all(torch.isfinite(value).all() for value in found.values())
    assert not any(value.requires_grad for value in found.values())


def state(net: nn.Module) -> tuple[list[Tensor], list[Any]]:
    tensors = [*net.state_dict().values(), torch.get_rng_state()]
    tensors += [p.grad for p in net.parameters() if p.grad is not None]
    facts: list[Any] = [random.getstate(), np.random.get_state()[1].tolist()]
    for child in net.modules():
        facts += [child.training, len(child._forward_hooks), len(child._forward_pre_hooks)]
    facts += [(p.data_ptr(), p.requires_grad, p.grad is None) for p in net.parameters()]
    return [tensor.clone() for tensor in tensors], facts


def test_the_network_is_left_as_it_was_when_the_loss_raises() -> None:
    net, inputs = networks.build(TABLES[1], (3, 16, 16), 5), torch.randn(6, 3, 16, 16)
    before, facts = state(net)

    def loss(outputs: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measured(net, inputs, loss)
    after, facts_after = state(net)
    assert facts == facts_after
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_it_sees_the_network_in_evaluation_mode() -> None:
    """BatchNorm by its running statistics: the same numbers twice, whatever the mode."""
    net = networks.build(TABLES[0], (1, 4, 4), 5)
    inputs = torch.randn(1, 6, 1, 4, 4)
    first = measured(net, inputs, lambda outputs: outputs.square().mean())
    second = measured(net.eval(), inputs, lambda outputs: outputs.square().mean())
    assert all(torch.equal(first[key], second[key]) for key in KEYS)


def test_ranks_are_those_of_numpy_s_singular_values() -> None:
    """Random features of three seeds, of falling rank, against numpy.linalg.svd."""
    draw = np.random.default_rng(0)
    features = np.stack([draw.normal(size=(40, r)) @ draw.normal(size=(r, 12)) for r in (2, 7, 12)])
    features[1] += 5.0  # a mean, which the centred ranks take away
    found = {**ranks(torch.tensor(features)), **centred_ranks(torch.tensor(features))}
    for prefix, matrices in (("", features), ("centred_", features - features.mean(1)[:, None])):
        for seed, matrix in enumerate(matrices):
            singular = np.linalg.svd(matrix, compute_uv=False)
            share = singular / singular.sum()
            present = share[share > 1e-12]
            expected = {
                "effective_rank": np.exp(-(present * np.log(present)).sum()),
                "stable_rank": (singular**2).sum() / singular[0] ** 2,
                "srank": 1 + int((np.cumsum(share) < 0.99).sum()),
            }
            for name, value in expected.items():
                mine = float(found[f"plasticity/{prefix}{name}"][seed])
                assert mine == pytest.approx(value, rel=1e-5), (prefix, name, seed)
