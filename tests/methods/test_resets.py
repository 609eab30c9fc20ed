"""Full reset, head reset, shrink and perturb: by hand, against NumPy, and their contracts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.resets import FullReset, HeadReset, ShrinkPerturb, output_layers
from ht_bench.training import build
from ht_bench.training.supervised import SupervisedRun

Make = Callable[[], nn.Sequential]
Step = Callable[[nn.Module, torch.optim.Optimizer, int], None]
Snapshot = Callable[[nn.Module], dict[str, Tensor]]
MLP = {"name": "mlp", "hidden": [16, 12], "linear_norm": "batch"}
CNN = {"name": "cnn", "channels": [4], "hidden": [8], "linear_norm": "batch"}


def two_layers_of(value: float) -> nn.Sequential:
    """Linear 2 → 2, BatchNorm, ReLU, linear 2 → 1, every number in it `value`."""
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            tensor.fill_(3 if name.endswith("tracked") else value)
    return net


def after_a_phase(method: Method, fresh: float = 8.0) -> nn.Sequential:
    """Attach at θ0 = 1, train to θ = 2 with moments, begin phase 1 with θ' = `fresh`."""
    net = two_layers_of(1.0)
    optimizer = torch.optim.Adam(net.parameters())
    method.attach(net, optimizer, initialize=lambda: two_layers_of(fresh).state_dict())
    fill_moments(net, optimizer)
    net.load_state_dict(two_layers_of(2.0).state_dict())
    method.enter_phase(1, steps=10, epoch_steps=5, phases=2)
    return net


def fill_moments(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def values(net: nn.Module) -> dict[str, float]:
    return {name: tensor.flatten()[0].item() for name, tensor in net.state_dict().items()}


# ---- by hand ----

HIDDEN = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
HEAD = ("3.weight", "3.bias")


@pytest.mark.parametrize(
    ("method", "hidden", "head", "statistics"),
    [
        (FullReset(), 8.0, 8.0, 8.0),
        (HeadReset(layers=1), 2.0, 8.0, 2.0),
        (HeadReset(layers=2), 8.0, 8.0, 8.0),
        (HeadReset(layers=0), 2.0, 2.0, 2.0),
        (ShrinkPerturb(amount=0.25), 1.75, 1.75, 1.75),  # 0.75 · 2 + 0.25 · 1
        (ShrinkPerturb(amount=0.25, toward="fresh"), 3.5, 3.5, 3.5),  # 0.75 · 2 + 0.25 · 8
        (ShrinkPerturb(amount=1.0, toward="fresh"), 8.0, 8.0, 8.0),
        (ShrinkPerturb(amount=1.0), 1.0, 1.0, 1.0),
        (ShrinkPerturb(amount=0.5, perturb=0.125, toward="fresh"), 2.0, 2.0, 5.0),
        (ShrinkPerturb(amount=0.0, perturb=0.5), 2.5, 2.5, 2.0),
        (ShrinkPerturb(amount=0.0), 2.0, 2.0, 2.0),
    ],
)
def test_the_rule_by_hand(method: Method, hidden: float, head: float, statistics: float) -> None:
    """θ0 = 1, θ = 2, θ' = 8; BatchNorm's statistics interpolate with the amount alone."""
    found = values(after_a_phase(method))
    assert [found[name] for name in HIDDEN[:4]] == [hidden] * 4
    assert [found[name] for name in HIDDEN[4:]] == [statistics] * 2
    assert [found[name] for name in HEAD] == [head] * 2
    assert found["1.num_batches_tracked"] == 3


def test_the_count_of_batches_is_redrawn_with_its_layer_and_only_then(
    make_net: Make, train_step: Step
) -> None:
    counts = {}
    for method in (FullReset(), HeadReset(layers=2), HeadReset(), ShrinkPerturb(amount=0.5)):
        net = make_net()
        optimizer = torch.optim.Adam(net.parameters())
        method.attach(net, optimizer)
        for step in range(3):
            train_step(net, optimizer, step)
        method.enter_phase(1, 1, 1, 2)
        tracked = [int(b) for name, b in net.named_buffers() if name.endswith("tracked")]
        counts[repr(method)] = tracked
    full, two, one, shrunk = counts.values()
    assert full == [0] * len(full)
    assert one == shrunk == [3] * len(full)
    assert two == ([3, 0] if len(full) == 2 else [0])


@pytest.mark.parametrize(
    ("make", "cleared"),
    [
        (lambda: FullReset(), {"0", "1", "3"}),
        (lambda: HeadReset(layers=1), {"3"}),
        (lambda: HeadReset(layers=2), {"0", "1", "3"}),
        (lambda: HeadReset(layers=0), set()),
        (lambda: ShrinkPerturb(amount=0.5), set()),
        (lambda: ShrinkPerturb(amount=1.0, toward="fresh"), set()),
    ],
)
def test_the_moments_are_cleared_exactly_where_weights_are_redrawn(
    make: Callable[[], Method], cleared: set[str]
) -> None:
    net = two_layers_of(1.0)
    optimizer = torch.optim.Adam(net.parameters())
    method = make().attach(net, optimizer, initialize=lambda: two_layers_of(8.0).state_dict())
    fill_moments(net, optimizer)
    kept = {p: {k: v.clone() for k, v in state.items()} for p, state in optimizer.state.items()}
    assert len(kept) == 6
    method.enter_phase(1, 10, 5, 2)
    for name, parameter in net.named_parameters():
        assert (parameter not in optimizer.state) == (name[0] in cleared), name
        for key, value in optimizer.state.get(parameter, {}).items():
            assert torch.equal(value, kept[parameter][key])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_only_a_change_of_data_is_acted_on(index: int) -> None:
    net = two_layers_of(1.0)
    optimizer = torch.optim.Adam(net.parameters())
    method = FullReset().attach(net, optimizer, initialize=lambda: two_layers_of(8.0).state_dict())
    assert method.enter_phase(index, 10, 5, 3) == 10
    assert values(net)["0.weight"] == (8.0 if index else 1.0)


# ---- against an independent loop ----


def shrink(amount: float, perturb: float, toward: str) -> Callable[..., Any]:
    def rule(name: str, weights: Any, initial: Any, fresh: Any) -> Any:
        target = initial if toward == "initial" else fresh
        return (1 - amount) * weights + perturb * target

    return rule


def redraw_head(name: str, weights: Any, initial: Any, fresh: Any) -> Any:
    return fresh if name.startswith("2.") else weights


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (FullReset(), lambda name, weights, initial, fresh: fresh),
        (HeadReset(), redraw_head),
        (ShrinkPerturb(), shrink(0.8, 0.8, "initial")),
        (ShrinkPerturb(0.6, 0.1, "fresh"), shrink(0.6, 0.1, "fresh")),  # Ash & Adams
        (ShrinkPerturb(0.3, toward="fresh"), shrink(0.3, 0.3, "fresh")),
    ],
)
def test_it_is_a_numpy_loop(
    two_layers: Callable[..., Any], method: Method, rule: Callable[..., Any]
) -> None:
    """Three phases of ten SGD steps, the rule applied between them."""
    ours = two_layers()
    net, initial = ours.twin(), dict(ours.weights)
    drawn = [two_layers(seed).weights for seed in (5, 6)]
    upcoming = iter(drawn)

    def fresh() -> Mapping[str, Tensor]:
        return {name: torch.tensor(value) for name, value in next(upcoming).items()}

    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method.attach(net, optimizer, initialize=fresh)
    for phase in range(3):
        method.enter_phase(phase, 10, 5, 3)
        if phase:
            redrawn = drawn[phase - 1]
            ours.weights = {
                name: rule(name, value, initial[name], redrawn[name])
                for name, value in ours.weights.items()
            }
        for step in range(10 * phase, 10 * phase + 10):
            inputs, labels = ours.batch(step)
            ours.step(ours.gradients(inputs, labels), 0.3)
            optimizer.zero_grad()
            logits = net(torch.from_numpy(inputs))
            nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
            optimizer.step()
        ours.assert_equals(net)


# ---- what must change and what must not ----


@pytest.mark.parametrize(
    "make",
    [
        lambda: FullReset(),
        lambda: HeadReset(layers=1),
        lambda: HeadReset(layers=2),
        lambda: ShrinkPerturb(amount=0.5),
        lambda: ShrinkPerturb(amount=0.5, toward="fresh"),
    ],
)
def test_every_parameter_stays_the_optimizers_and_moves_at_the_next_step(
    make_net: Make, train_step: Step, make: Callable[[], Method]
) -> None:
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    method = make().attach(net, optimizer)
    before = list(net.parameters())
    train_step(net, optimizer, 0)
    method.enter_phase(1, 10, 5, 2)
    owned = optimizer.param_groups[0]["params"]
    assert all(a is b is c for a, b, c in zip(before, net.parameters(), owned, strict=True))
    kept = [parameter.detach().clone() for parameter in before]
    train_step(net, optimizer, 1)
    train_step(net, optimizer, 2)  # a bias at zero is first moved by its second gradient
    assert all(not torch.equal(p, k) for p, k in zip(before, kept, strict=True))


@pytest.mark.parametrize("make", [lambda: FullReset(), lambda: HeadReset(layers=2)])
def test_fresh_weights_are_new_weights(
    make_net: Make, train_step: Step, snapshot: Snapshot, make: Callable[[], Method]
) -> None:
    """Without `initialize` each layer's reset_parameters draws, from the method's generator."""
    net, twin, other = make_net(), make_net(), make_net()
    heads = []
    for each, seed in ((net, 1), (twin, 1), (other, 2)):
        optimizer = torch.optim.Adam(each.parameters())
        method = make().attach(each, optimizer, generator=torch.Generator().manual_seed(seed))
        start, state = snapshot(each), torch.get_rng_state()
        method.enter_phase(1, 10, 5, 2)
        assert torch.equal(torch.get_rng_state(), state)
        first = list(each.parameters())[-2].clone()
        method.enter_phase(2, 10, 5, 3)
        second = list(each.parameters())[-2].clone()
        assert not torch.equal(first, second)
        assert not torch.equal(first, list(start.values())[-2])
        heads.append((first, second))
    assert all(torch.equal(a, b) for a, b in zip(heads[0], heads[1], strict=True))
    assert not torch.equal(heads[0][0], heads[2][0])


@pytest.mark.parametrize("net", [MLP, CNN])
def test_after_a_full_reset_the_loop_starts_from_the_keyed_fresh_network(
    make_run: Callable[..., SupervisedRun], net: dict[str, Any]
) -> None:
    found: dict[str, Tensor] = {}

    class Watched(FullReset):
        def on_phase(self, index: int) -> None:
            super().on_phase(index)
            found.update({name: tensor.clone() for name, tensor in self.tensors().items()})

    run = make_run(Watched(), net)
    run.train()
    seeds = run.seeds
    fresh = build.network(run.task, run.data, seeds, {}, "fresh weights", phase=1)
    start = build.network(run.task, run.data, seeds, {}).state_dict()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, found[name]), name
    layer = run.module.layers()[0]
    assert not torch.equal(found[f"{layer}.weight"], start[f"{layer}.weight"])


# ---- the head ----


@pytest.mark.parametrize(
    ("table", "count", "expected"),
    [
        (MLP, 1, ["output"]),
        (MLP, 2, ["linear1", "norm1", "output"]),
        (MLP, 3, ["linear0", "norm0", "linear1", "norm1", "output"]),
        (CNN, 1, ["output"]),
        (CNN, 2, ["linear0", "norm0", "output"]),
        (CNN, 3, ["conv0", "conv_norm0", "linear0", "norm0", "output"]),  # conv → linear
        (MLP, 0, []),
    ],
)
def test_the_head_runs_from_a_weight_layer_to_the_output(
    table: dict[str, Any], count: int, expected: list[str]
) -> None:
    assert output_layers(networks.build(table, (1, 8, 8), 10), count) == expected


def test_the_head_of_any_module_is_found_by_its_matrices(make_net: Make) -> None:
    net = make_net()
    last = str(len(net) - 1)
    assert output_layers(net, 1) == [last]
    assert len(output_layers(net, 2)) == 3  # two weight layers and the BatchNorm between them


def test_a_child_called_layers_is_no_list_of_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 3), nn.Linear(3, 2)])

    assert output_layers(Net(), 1) == ["layers.1"]


@pytest.mark.parametrize("layers", [-1, 4])
def test_a_head_longer_than_the_network_is_refused(layers: int) -> None:
    net = networks.build(MLP, (1, 8, 8), 10)
    with pytest.raises(UsageError, match=f"layers = {layers}: this network has 3 weight layers"):
        HeadReset(layers=layers).attach(net, torch.optim.Adam(net.parameters()))


# ---- strength nothing, resuming, refusals ----


@pytest.mark.parametrize(
    "make",
    [
        lambda: HeadReset(layers=0),
        lambda: ShrinkPerturb(amount=0.0),
        lambda: ShrinkPerturb(amount=0.0, toward="fresh"),
        lambda: ShrinkPerturb(amount=0.0, perturb=0.0, toward="fresh"),
    ],
)
def test_with_strength_nothing_it_trains_as_none(
    make: Callable[[], Method], assert_trains_as_none: Callable[..., None]
) -> None:
    assert_trains_as_none(make)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FullReset(),
        lambda: HeadReset(layers=1),
        lambda: ShrinkPerturb(amount=0.5),
        lambda: ShrinkPerturb(amount=0.5, toward="fresh"),
    ],
)
def test_a_stopped_run_resumes_to_the_same_bits(
    make: Callable[[], Method], assert_resumes: Callable[..., None]
) -> None:
    assert_resumes(make)


@pytest.mark.parametrize(
    ("hyperparameters", "sentence"),
    [
        ({"amount": 1.5}, "amount = 1.5: the share lies between 0 and 1"),
        ({"amount": -0.5}, "amount = -0.5"),
        ({"toward": "zero"}, "toward = 'zero': it must be 'fresh' or 'initial'"),
    ],
)
def test_values_it_cannot_take_are_refused(hyperparameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ShrinkPerturb(**hyperparameters)


def test_a_layer_that_cannot_be_redrawn_is_refused_by_name() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    net = nn.Sequential(nn.Linear(3, 3), Scale())
    method = FullReset().attach(net, torch.optim.Adam(net.parameters()))
    with pytest.raises(UsageError, match=r"layer '1' holds parameters but has no reset_parameters"):
        method.enter_phase(1, 10, 5, 2)


def test_numpy_weights_are_independent_of_torch(two_layers: Callable[..., Any]) -> None:
    """The reference itself, against autograd."""
    ours = two_layers()
    net = ours.twin()
    inputs, labels = ours.batch(0)
    logits = net(torch.from_numpy(inputs))
    nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    for name, gradient in ours.gradients(inputs, labels).items():
        np.testing.assert_allclose(net.get_parameter(name).grad, gradient, rtol=1e-12)
