"""Spectral regularization: by hand, against NumPy's SVD, how near power iteration stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.spectral_regularization import SpectralRegularization, first_right_vectors

from .conftest import Array, Make, TwoLayers, assert_equal, copied, descend, make_run, train_step
from .stacks import assert_a_stack_is_its_seeds


def penalties(net: nn.Module, strength: float, power: int, iterations: int = 4) -> list[Tensor]:
    """What one step adds to gradients of zero."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    SpectralRegularization(strength, power, iterations).attach(net, optimizer)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return [p.grad for p in net.parameters() if p.grad is not None]


def test_by_hand() -> None:
    """W = diag(3, 1), b = (0, 2): λ 2·2 (9 − 1) 3 at the first entry, λ 4 ‖b‖² b for the bias."""
    net = nn.Linear(2, 2)
    net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    net.bias.data.copy_(torch.tensor([0.0, 2.0]))
    weight, bias = penalties(net, 0.1, 2)
    torch.testing.assert_close(weight, torch.tensor([[9.6, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(bias, torch.tensor([0.0, 0.1 * 4 * 4 * 2]))


@pytest.mark.parametrize("power", [1, 2, 3])
def test_it_is_the_gradient_of_the_penalty(power: int, make_net: Make) -> None:
    """By autograd through torch's own SVD; kernels as [out, in · taps], normalisations left out."""
    net, twin = make_net().double(), make_net().double()
    layers = [m for m in twin.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    terms = []
    for layer in layers:
        assert layer.bias is not None
        sigma = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        terms += [(sigma**power - 1) ** 2, layer.bias.norm() ** (2 * power)]
    (0.3 * torch.stack(terms).sum()).backward()
    found = penalties(net, 0.3, power, iterations=50)
    for parameter, gradient in zip(twin.parameters(), found, strict=True):
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7)


def slope(weights: Array) -> Array:
    left, values, right = np.linalg.svd(weights)
    return np.asarray(4 * (values[0] ** 2 - 1) * values[0] * np.outer(left[:, 0], right[0]))


def test_it_is_a_numpy_loop() -> None:
    ours = TwoLayers()
    net = ours.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    SpectralRegularization(0.005, iterations=200).attach(net, optimizer)
    for step in range(15):
        inputs, labels = ours.batch(step)
        gradients = ours.gradients(inputs, labels)
        for name, w in ours.weights.items():
            pull = slope(w) if w.ndim == 2 else 4 * np.sum(w**2) * w
            gradients[name] = gradients[name] + 0.005 * pull
        ours.step(gradients, 0.05)
        descend(net, optimizer, inputs, labels)
    for name, tensor in net.state_dict().items():
        np.testing.assert_allclose(tensor, ours.weights[name], rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 4, 7), (2, 7, 4), (1, 3, 3)])
def test_the_first_vectors_are_numpys(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape)
    right = np.linalg.svd(matrices.double().numpy())[2][:, 0]
    found = first_right_vectors(matrices)[..., 0].numpy()
    np.testing.assert_allclose(np.abs((found * right).sum(1)), 1, rtol=1e-6)
    assert first_right_vectors(torch.zeros(shape)).norm(dim=1).numpy() == pytest.approx(1)


def test_a_stack_is_its_seeds() -> None:
    assert_a_stack_is_its_seeds(SpectralRegularization(0.01, iterations=5))


def test_the_vectors_stay_those_of_the_present_weights() -> None:
    """After 24 steps with four iterations each: σ₁ within 2 % of NumPy's; the penalty holds it."""
    free, held = SpectralRegularization(0.0), SpectralRegularization(1.0)
    largest = {}
    for method in (free, held):
        run = make_run(method)
        weights = dict(run.module.named_parameters())["linear0.weight"].detach()
        largest[method.strength] = np.linalg.svd(weights.numpy(), compute_uv=False)[:, 0]
    right = held.state_dict()["right"]["linear0.weight"][:, 0]
    by_iteration = (weights @ right).norm(dim=(1, 2)).numpy()
    np.testing.assert_allclose(by_iteration, largest[1.0], rtol=0.02)
    assert (np.abs(largest[1.0] - 1) < np.abs(largest[0.0] - 1)).all()


def test_a_layer_of_zeros_does_not_lose_its_direction() -> None:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    method = SpectralRegularization(1.0).attach(net, optimizer)
    for parameter in net.parameters():
        parameter.data.zero_()
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)
    net.weight.data.copy_(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]))
    for _ in range(8):
        optimizer.step()
    torch.testing.assert_close(
        method.state_dict()["right"]["weight"].flatten().abs(),
        torch.tensor([0.0, 1.0, 0.0]),
        atol=1e-3,
        rtol=0,
    )


def test_normalisations_buffers_and_frozen_weights_are_left_alone(make_net: Make) -> None:
    net = make_net()
    frozen = next(net.parameters()).requires_grad_(False)
    before = copied(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    SpectralRegularization(0.1).attach(net, optimizer)
    for parameter in list(net.parameters())[1:]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert frozen.grad is None
    kept = [n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    after = net.state_dict()
    names = [n for n in after if n.rpartition(".")[0] in kept] + [next(iter(after))]
    assert_equal({n: after[n] for n in names}, {n: before[n] for n in names})
    assert not torch.equal(after[list(after)[-2]], before[list(after)[-2]])


def test_resync_takes_the_present_matrices(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method = SpectralRegularization(0.1).attach(net, optimizer)
    train_step(net, optimizer, 0)
    net.load_state_dict(
        {n: torch.flip(t, (0,)) if t.dim() > 1 else t for n, t in net.state_dict().items()}
    )
    method.resync()
    right = method.state_dict()["right"]
    last = list(right)[-1]
    weights = dict(net.named_parameters())[last].detach()
    sigma = torch.linalg.matrix_norm(weights, 2)
    torch.testing.assert_close((weights @ right[last][0, 0]).norm(), sigma)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"strength": -1.0}, "strength = -1.0"),
        ({"power": 0}, "power = 0"),
        ({"iterations": 0}, "iterations = 0: give 1 or more"),
    ],
)
def test_values_it_cannot_take(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        SpectralRegularization(**values)  # type: ignore[arg-type]
