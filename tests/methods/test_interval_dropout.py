"""Interval dropout: by hand, against NumPy over steps, its masks in stacks and captured steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.interval_dropout import IntervalDropout
from ht_bench.methods.resolve import resolve
from ht_bench.networks import activations
from ht_bench.networks.noise import give_noise
from ht_bench.streams.randomness import torch_seed
from ht_bench.training.supervised import SupervisedRun
from ht_bench.training.tape import Tapes

from .conftest import CNN, MLP, Array, TwoLayers, copied, descend, digits, make_run, softmax, tiny

INPUTS = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 4.0]])


def test_evaluation_by_hand() -> None:
    """0.9 of what is positive, 0.1 of what is negative; at 0 the slope is p."""
    layer = activations.IntervalDropout(0.9).eval()
    inputs = INPUTS.clone().requires_grad_()
    outputs = layer(inputs)
    torch.testing.assert_close(outputs, torch.tensor([[-0.2, -0.1, 0.0, 0.9, 3.6]]))
    outputs.sum().backward()
    torch.testing.assert_close(inputs.grad, torch.tensor([[0.1, 0.1, 0.9, 0.9, 0.9]]))


def test_training_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept where the draw lies below p, of negative numbers where it does not; never scaled."""
    draws = torch.tensor([[0.95, 0.85, 0.5, 0.95, 0.85]])
    monkeypatch.setattr(activations.IntervalDropout, "uniform", lambda self, inputs: draws)
    inputs = INPUTS.clone().requires_grad_()
    outputs = activations.IntervalDropout(0.9)(inputs)
    assert outputs.tolist() == [[-2.0, 0.0, 0.0, 0.0, 4.0]]
    outputs.sum().backward()
    assert inputs.grad is not None and inputs.grad.tolist() == [[1.0, 0.0, 1.0, 0.0, 1.0]]


def test_evaluation_is_the_mean_of_training() -> None:
    layer, inputs = activations.IntervalDropout(0.8), INPUTS.expand(40_000, -1)
    mean = layer(inputs).mean(0)
    torch.testing.assert_close(mean, layer.eval()(INPUTS)[0], rtol=0, atol=0.04)


def test_keep_one_is_relu_and_keep_half_linear_dropout() -> None:
    inputs = torch.randn(100, 20)
    assert torch.equal(activations.IntervalDropout(1.0)(inputs), inputs.relu())
    assert torch.equal(activations.IntervalDropout(1.0).eval()(inputs), inputs.relu())
    assert torch.equal(activations.IntervalDropout(0.5).eval()(inputs), 0.5 * inputs)


class TwoDroppedLayers(TwoLayers):
    """linear – interval dropout – linear; the masks are given."""

    def twin(self, keep: float = 0.8) -> nn.Sequential:
        dropout = activations.IntervalDropout(keep)
        net = nn.Sequential(nn.Linear(4, 5), dropout, nn.Linear(5, 3)).double()
        net.load_state_dict({name: torch.tensor(value) for name, value in self.weights.items()})
        return net

    def dropped(self, inputs: Array, labels: Any, draws: Array, keep: float) -> dict[str, Array]:
        w = self.weights
        before = inputs @ w["0.weight"].T + w["0.bias"]
        mask = np.where(before >= 0, draws < keep, draws >= keep)
        hidden = before * mask
        logits = hidden @ w["2.weight"].T + w["2.bias"]
        error = (softmax(logits) - np.eye(3)[labels]) / len(labels)
        back = (error @ w["2.weight"]) * mask
        first = {"0.weight": back.T @ inputs, "0.bias": back.sum(0)}
        return {**first, "2.weight": error.T @ hidden, "2.bias": error.sum(0)}


@pytest.mark.parametrize("planted", [None, "scaled by 1/p", "negatives with p"])
def test_several_steps_agree_with_numpy(
    planted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, keep = TwoDroppedLayers(), 0.8
    net = theirs.twin(keep)
    plain = activations.IntervalDropout.forward
    if planted == "scaled by 1/p":
        forward = lambda self, inputs: plain(self, inputs) / keep  # noqa: E731
        monkeypatch.setattr(activations.IntervalDropout, "forward", forward)
    if planted == "negatives with p":
        forward = lambda self, inputs: inputs * (self.uniform(inputs) < keep)  # noqa: E731
        monkeypatch.setattr(activations.IntervalDropout, "forward", forward)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    draws = torch.Generator().manual_seed(0)
    for step in range(6):
        inputs, labels = theirs.batch(step)
        torch.manual_seed(step)
        drawn = torch.rand(7, 5, generator=draws.manual_seed(step)).numpy()
        descend(net, optimizer, inputs, labels)
        theirs.step(theirs.dropped(inputs, labels, drawn, keep), lr=0.3)
    if planted is None:
        return theirs.assert_equals(net)
    with pytest.raises(AssertionError):
        theirs.assert_equals(net)


@pytest.mark.parametrize(
    ("table", "shape", "count"),
    [
        ({"name": "mlp", "hidden": [9]}, (1, 8, 8), 1),
        ({"name": "cnn", "channels": [3], "hidden": [8]}, (3, 8, 8), 2),
        ({"name": "resnet18"}, (3, 8, 8), 18),  # behind residual sums too
        ({"name": "vgg16"}, (3, 32, 32), 15),
        ({"name": "vit"}, (3, 8, 8), 12),
    ],
)
def test_it_replaces_every_activation(
    table: dict[str, Any], shape: tuple[int, int, int], count: int
) -> None:
    changes = IntervalDropout(keep=0.75).network_changes()
    plain, net = (networks.build(t, shape, 10) for t in (table, {**table, **changes}))
    found = [m for m in net.modules() if isinstance(m, activations.IntervalDropout)]
    assert len(found) == count and {layer.keep for layer in found} == {0.75}
    assert not any(isinstance(m, nn.ReLU | nn.GELU) for m in net.modules())
    assert plain.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize("keep", [0.4, 1.1])
def test_a_probability_below_a_half_is_refused(keep: float) -> None:
    with pytest.raises(UsageError, match="must lie between 0.5"):
        IntervalDropout(keep=keep)


def test_its_trait_is_the_same_for_every_hyperparameter() -> None:
    specs = [resolve("interval-dropout", "", {"keep": keep}) for keep in (0.7, 0.9)]
    traits = [spec.traits()["network"] for spec in specs]
    assert traits[0] == traits[1] == {"activation": {"name": "interval-dropout", "keep": "$keep"}}
    filled = [networks.filled(traits[0], spec.hyperparameters) for spec in specs]
    assert filled == [spec.build().network_changes() for spec in specs]
    assert filled[0]["activation"]["keep"] == 0.7
    with pytest.raises(UsageError, match="'\\$kept' names no hyperparameter"):
        networks.filled({"activation": {"keep": "$kept"}}, {"keep": 0.9})


def test_in_a_combination_its_probability_reaches_the_network() -> None:
    """There the hyperparameter has another name."""
    spec = resolve("interval-dropout+layer-norm", "", {"interval-dropout.keep": 0.7})
    changes = spec.build().network_changes()
    assert changes["activation"]["keep"] == 0.7 and changes["linear_norm"] == "layer"
    assert networks.filled(spec.traits()["network"], spec.hyperparameters) == changes


# ---- in this package's loop ----


@pytest.mark.parametrize("table", [MLP, CNN])
def test_the_loop_trains_every_weight(table: dict[str, Any]) -> None:
    run = make_run(IntervalDropout(), table, trained=False)
    start = copied(run.recorder.initial)
    run.train()
    assert all(not torch.equal(p, start[name]) for name, p in run.module.named_parameters())


STACK = {"training": {"batch": 16, "points": 3, "stack": 3}}
TABLES = {name: {**net, "linear_norm": "none"} for name, net in (("mlp", MLP), ("cnn", CNN))}


def run_of(seeds: tuple[int, ...], table: str = "mlp", graphs: Any = None) -> SupervisedRun:
    task = tiny(TABLES[table], **STACK)
    return SupervisedRun(task, digits(), IntervalDropout(keep=0.8), seeds, graphs=graphs)


def weights(run: SupervisedRun, seed: int) -> list[Tensor]:
    slot = run.seeds.index(seed)
    return [tensor[slot].clone() for tensor in run.module.state_dict().values()]


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("table", ["mlp", "cnn"])
def test_a_seed_trains_alike_whatever_its_mates_and_slot(table: str, planted: bool) -> None:
    trained = []
    for seeds in [(100, 101, 102), (103, 104, 100)]:
        run = run_of(seeds, table)
        if planted:
            give_noise(run.module, None)  # from torch's own generator, slot after slot
        run.train()
        trained.append(weights(run, 100))
    assert all(map(torch.equal, *trained)) is not planted


@pytest.mark.parametrize("table", ["mlp", "cnn"])
def test_captured_steps_draw_the_same_masks(table: str) -> None:
    runs = [run_of((100, 101, 102), table, graphs) for graphs in (None, Tapes())]
    for run in runs:
        run.train()
    for one, other in zip(*(run.module.state_dict().values() for run in runs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_every_epoch_is_keyed_by_task_seed_phase_and_epoch() -> None:
    """Whatever was drawn before: step 2 begins the second of phase 0's epochs."""
    run = run_of((100, 101, 102))
    assert run.noise is not None
    run.step.open(0)
    keyed = []
    for before in (0, 5):
        run.noise.uniform((3, before))
        run.position.step = 2
        run._key_dropout()
        keyed.append(run.noise.uniform((3, 4)))
    assert torch.equal(*keyed)
    for slot, seed in enumerate((100, 101, 102)):
        draws = torch.Generator().manual_seed(torch_seed("tiny", seed, "dropout", 0, 1))
        assert torch.equal(keyed[0][slot], torch.rand(4, generator=draws))
    run.position.step = 3  # within the epoch it goes on
    run._key_dropout()
    assert not torch.equal(run.noise.uniform((3, 4)), keyed[0])


def test_networks_that_draw_nothing_have_no_noise() -> None:
    assert make_run(Method(), MLP, trained=False).noise is None
    assert make_run(IntervalDropout(), CNN, trained=False).noise is None  # lone: torch's own
