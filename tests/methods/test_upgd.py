"""UPGD: by hand, against a NumPy loop; the optimizer's move replaced, the maximum corrected."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.upgd import UPGD

from .conftest import Array, Make, TwoLayers, assert_equal, copied, descend, train_step
from .stacks import assert_a_stack_is_its_seeds, push, stack


def sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-values)))


def test_by_hand() -> None:
    """θ = (1, −2), g = (−3, −1), β = 0: U = −gθ = (3, −2), over max U (1, −2/3); lr 0.5, α = 2."""
    net = nn.Linear(2, 1, bias=False)
    net.weight.data.copy_(torch.tensor([[1.0, -2.0]]))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.5)
    method = UPGD(scale=2.0, decay=0.0, noise=0.0, weight_decay=0.1).attach(net, optimizer)
    net.weight.grad = torch.tensor([[-3.0, -1.0]])
    optimizer.step()
    assert torch.equal(method.state_dict()["utilities"]["weight"], torch.tensor([[3.0, -2.0]]))
    gates = 1 - torch.sigmoid(torch.tensor([1.0, -2 / 3]))
    expected = torch.tensor([1.0, -2.0]) * (1 - 0.5 * 0.1) + 1.0 * torch.tensor([3.0, 1.0]) * gates
    torch.testing.assert_close(net.weight.data[0], expected)


class Reference:
    """The rule in NumPy on TwoLayers, with the bias corrections written out.

    corrects_maximum: as the paper has it; the authors' code does not (fault 8).
    """

    def __init__(self, ours: TwoLayers, method: UPGD, corrects_maximum: bool = True) -> None:
        self.ours, self.method, self.corrects_maximum = ours, method, corrects_maximum
        self.utilities = {name: np.zeros_like(w) for name, w in ours.weights.items()}
        self.steps = 0

    def step(self, gradients: dict[str, Array], lr: float, noise: dict[str, Array]) -> None:
        m, self.steps = self.method, self.steps + 1
        correction = 1 - m.decay**self.steps
        for name, gradient in gradients.items():
            new = -gradient * self.ours.weights[name]
            self.utilities[name] = m.decay * self.utilities[name] + (1 - m.decay) * new
        largest = max(u.max() for u in self.utilities.values())
        largest = largest / correction if self.corrects_maximum else largest
        for name, gradient in gradients.items():
            gate = 1 - sigmoid(self.utilities[name] / correction / largest)
            moved = m.scale * lr * (gradient + m.noise * noise[name]) * gate
            kept = self.ours.weights[name] * (1 - lr * m.weight_decay)
            self.ours.weights[name] = kept - moved


def drawn(generator: torch.Generator, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """The noise of one step: one draw for the network, in the order of its parameters."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    flat = torch.randn(sum(sizes), generator=generator).double()
    parts = flat.split(sizes)
    return {
        name: part.reshape(shape).numpy()
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_it_is_a_numpy_loop_whatever_the_optimizer(make: type[torch.optim.Optimizer]) -> None:
    run_beside_numpy(UPGD(scale=2.0, decay=0.9, noise=0.05, weight_decay=0.2), make)


def run_beside_numpy(
    method: UPGD, make: type[torch.optim.Optimizer], corrects_maximum: bool = True
) -> None:
    ours = TwoLayers()
    net = ours.twin()
    optimizer = make(net.parameters(), lr=0.3)  # type: ignore[call-arg]
    method.attach(net, optimizer, generator=torch.Generator().manual_seed(5))
    reference = Reference(ours, method, corrects_maximum)
    generator = torch.Generator().manual_seed(5)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    for step in range(15):
        inputs, labels = ours.batch(step)
        reference.step(ours.gradients(inputs, labels), 0.3, drawn(generator, shapes))
        descend(net, optimizer, inputs, labels)
    ours.assert_equals(net)


def test_an_uncorrected_maximum_would_be_found() -> None:
    """Fault 8: with decay 0.9 the first step's Û / max U is ten times too large."""
    with pytest.raises(AssertionError):
        run_beside_numpy(UPGD(decay=0.9, noise=0.0), torch.optim.SGD, corrects_maximum=False)


def test_a_stack_is_its_seeds() -> None:
    """So the maximum is each seed's own; noise apart, which comes from each seed's generator."""
    assert_a_stack_is_its_seeds(UPGD(noise=0.0, decay=0.9))


def test_one_maximum_for_all_seeds_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own = UPGD._largest

    def one(self: UPGD, utilities: list[Tensor]) -> Tensor:
        return own(self, utilities).amax().expand(len(utilities[0]) if self.stacked else 1)

    monkeypatch.setattr(UPGD, "_largest", one)
    with pytest.raises(AssertionError):
        assert_a_stack_is_its_seeds(UPGD(noise=0.0, decay=0.9))


def test_a_seeds_noise_does_not_depend_on_its_place() -> None:
    ends = []
    for seeds in ((1, 2, 3), (3, 1, 2)):
        net = stack()
        order = torch.tensor([s - 1 for s in seeds])
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(parameter[order])
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        UPGD(noise=1.0).attach(net, optimizer, generator=generators)
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        ends.append({n: p.detach()[order.argsort()] for n, p in net.named_parameters()})
    assert_equal(*ends)


def test_noise_leaves_torchs_generator_alone_and_zero_noise_draws_nothing(make_net: Make) -> None:
    for noise, moves in ((0.1, True), (0.0, False)):
        net = make_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        generator = torch.Generator().manual_seed(1)
        before, own = torch.get_rng_state(), generator.get_state()
        UPGD(noise=noise).attach(net, optimizer, generator=[generator])
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(generator.get_state(), own) is not moves


def test_gradients_of_zero_divide_by_nothing(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    UPGD(noise=0.0).attach(net, optimizer)
    before = copied(net)
    optimizer.step()  # none at all
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert_equal(net.state_dict(), before)


def test_buffers_and_what_has_no_gradient_stay_and_resync_forgets(make_net: Make) -> None:
    net = make_net()
    frozen = next(net.parameters()).requires_grad_(False)
    before = frozen.clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    method = UPGD().attach(net, optimizer)
    train_step(net, optimizer, 0)
    assert torch.equal(frozen, before)
    utilities = method.state_dict()["utilities"]
    assert not next(iter(utilities.values())).any()
    assert list(utilities.values())[-1].any()
    method.resync()
    assert not any(u.any() for u in method.state_dict()["utilities"].values())


def test_a_plain_step_comes_of_utilities_alike() -> None:
    """Where every weight has the same utility, 1 − sigmoid(1) of the plain step is left."""
    net = nn.Linear(3, 1, bias=False)
    nn.init.ones_(net.weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    dataclasses.replace(UPGD(scale=1.0, noise=0.0)).attach(net, optimizer)
    net.weight.grad = -torch.ones(1, 3)
    optimizer.step()
    left = 1 - torch.sigmoid(torch.tensor(1.0))
    torch.testing.assert_close(net.weight.data, 1 + 0.1 * left.expand(1, 3))


def test_it_is_not_captured() -> None:
    assert not UPGD().captures
    net = stack()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    UPGD().attach(net, optimizer)  # without generators: torch's own
    push(net, optimizer, 0, None)
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


@pytest.mark.parametrize(
    "values", [{"decay": 1.0}, {"scale": -1.0}, {"noise": -1.0}, {"weight_decay": -1.0}]
)
def test_values_it_cannot_take(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(values))} = "):
        UPGD(**values)
