"""Full reset, head reset, shrink and perturb: by hand, against NumPy, and their contracts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.resets import FullReset, HeadReset, ShrinkPerturb, output_layers
from ht_bench.training import build

from .conftest import CNN, MLP, Make, TwoLayers, assert_equal, copied, descend, make_run


def filled(value: int) -> nn.Sequential:
    """Linear 2 → 2, BatchNorm, ReLU, linear 2 → 1, every number in it `value`."""
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(value)
    return net


def attached(method: Method) -> nn.Sequential:
    """Attach at θ0 = 1 with θ' = 8, train to θ = 2 with moments."""
    net = filled(1)
    optimizer = torch.optim.Adam(net.parameters())
    method.attach(net, optimizer, initialize=lambda: filled(8).state_dict())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    net.load_state_dict(filled(2).state_dict())
    return net


# ---- by hand ----


@pytest.mark.parametrize(
    ("method", "hidden", "head", "statistics", "batches", "cleared"),
    [
        (FullReset(), 8.0, 8.0, 8.0, 8, "013"),
        (HeadReset(layers=1), 2.0, 8.0, 2.0, 2, "3"),
        (HeadReset(layers=2), 8.0, 8.0, 8.0, 8, "013"),
        (HeadReset(layers=0), 2.0, 2.0, 2.0, 2, ""),
        (ShrinkPerturb(amount=0.25), 1.75, 1.75, 1.75, 2, ""),  # 0.75 · 2 + 0.25 · 1
        (ShrinkPerturb(0.25, toward="fresh"), 3.5, 3.5, 3.5, 2, ""),  # 0.75 · 2 + 0.25 · 8
        (ShrinkPerturb(amount=1.0, toward="fresh"), 8.0, 8.0, 8.0, 2, ""),
        (ShrinkPerturb(amount=1.0), 1.0, 1.0, 1.0, 2, ""),
        (ShrinkPerturb(amount=0.5, perturb=0.125, toward="fresh"), 2.0, 2.0, 5.0, 2, ""),
        (ShrinkPerturb(amount=0.0, perturb=0.5), 2.5, 2.5, 2.0, 2, ""),
        (ShrinkPerturb(amount=0.0), 2.0, 2.0, 2.0, 2, ""),
    ],
)
def test_the_rule_by_hand(
    method: Method, hidden: float, head: float, statistics: float, batches: int, cleared: str
) -> None:
    """θ0 = 1, θ = 2, θ' = 8; BatchNorm's statistics interpolate with the amount alone.

    Its count of batches is redrawn with its layer only, and the optimizer's moments are cleared
    exactly where weights are redrawn, in the modules named in `cleared`.
    """
    net = attached(method)
    moments = method.optimizer.state
    before = {name: copied(moments[p]) for name, p in net.named_parameters()}
    method.enter_phase(1, steps=10, epoch_steps=5, phases=2)
    expected = dict.fromkeys(("0.weight", "0.bias", "1.weight", "1.bias"), hidden)
    expected |= dict.fromkeys(("1.running_mean", "1.running_var"), statistics)
    expected |= {"1.num_batches_tracked": batches, "3.weight": head, "3.bias": head}
    assert {name: tensor.flatten()[0] for name, tensor in net.state_dict().items()} == expected
    for name, parameter in net.named_parameters():
        assert (parameter not in moments) == (name[0] in cleared), name
        if parameter in moments:
            assert_equal(moments[parameter], before[name])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_only_a_change_of_data_is_acted_on(index: int) -> None:
    method = FullReset()
    net = attached(method)
    assert method.enter_phase(index, 10, 5, 3) == 10
    assert_equal(net.state_dict(), filled(8 if index else 2).state_dict())


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
def test_it_is_a_numpy_loop(method: Method, rule: Callable[..., Any]) -> None:
    """Three phases of ten SGD steps, the rule applied between them."""
    ours = TwoLayers()
    net, initial = ours.twin(), dict(ours.weights)
    drawn = [TwoLayers(seed).weights for seed in (5, 6)]
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
            descend(net, optimizer, inputs, labels)
        ours.assert_equals(net)


# ---- what must change and what must not ----


@pytest.mark.parametrize("method", [FullReset(), HeadReset(layers=2)])
def test_fresh_weights_are_new_weights(make_net: Make, method: Method) -> None:
    """Without `initialize` each layer's reset_parameters draws, from the method's generator."""
    net, twin, other = make_net(), make_net(), make_net()
    heads = []
    for each, seed in ((net, 1), (twin, 1), (other, 2)):
        optimizer = torch.optim.Adam(each.parameters())
        generator = torch.Generator().manual_seed(seed)
        bound = replace(method).attach(each, optimizer, generator=generator)
        head, state = list(each.parameters())[-2], torch.get_rng_state()
        draws = [head.clone()]
        for phase in (1, 2):
            bound.enter_phase(phase, 10, 5, 3)
            draws.append(head.clone())
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(map(torch.equal, draws, draws[1:]))
        heads.append(draws)
    assert all(map(torch.equal, heads[0], heads[1]))
    assert not torch.equal(heads[0][1], heads[2][1])


@pytest.mark.parametrize("net", [MLP, CNN])
def test_after_a_full_reset_the_loop_starts_from_the_keyed_fresh_network(
    net: dict[str, Any],
) -> None:
    starts: list[dict[str, Tensor]] = []

    class Watched(FullReset):
        def on_phase(self, index: int) -> None:
            super().on_phase(index)
            starts.append(copied(self.tensors()))

    run = make_run(Watched(), net)
    fresh = build.network(run.task, run.data, run.seeds, {}, "fresh weights", phase=1)
    assert_equal(fresh.state_dict(), starts[0])
    first = f"{run.module.layers()[0]}.weight"
    initial = build.network(run.task, run.data, run.seeds, {}).state_dict()
    assert not torch.equal(starts[0][first], initial[first])


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


def test_a_layer_that_cannot_be_redrawn_is_refused_by_name() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    net = nn.Sequential(nn.Linear(3, 3), Scale())
    method = FullReset().attach(net, torch.optim.Adam(net.parameters()))
    with pytest.raises(UsageError, match=r"layer '1' holds parameters but has no reset_parameters"):
        method.enter_phase(1, 10, 5, 2)
