"""SWA against NumPy and torch's own tools; when it begins; statistics measured, no trace left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.loop import Batch, Loop
from ht_bench.methods.swa import StochasticWeightAveraging, measure_statistics
from ht_bench.networks.mlp import StackedMLP

from .conftest import (
    CNN,
    Make,
    Net,
    TwoLayers,
    assert_equal,
    copied,
    descend,
    leaves_no_trace,
    make_run,
    train_step,
)


class Data:
    """Batches of 16, 16 and `last` examples; counts how often they are asked for."""

    def __init__(self, last: int = 16) -> None:
        draw = torch.Generator().manual_seed(5)
        self.inputs = [torch.randn(size, 6, generator=draw) for size in (16, 16, last)]
        self.asked = 0

    def batches(self) -> Iterator[Batch]:
        self.asked += 1
        return ((inputs, torch.zeros(len(inputs))) for inputs in self.inputs)

    def loop(self) -> Loop:
        return Loop(batches=self.batches, loss=lambda outputs, labels: outputs.sum())


def attached(
    net: nn.Module, data: Data, **values: Any
) -> tuple[StochasticWeightAveraging, torch.optim.AdamW]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    method = StochasticWeightAveraging(**values).attach(net, optimizer, loop=data.loop())
    return method, optimizer


def test_it_is_a_numpy_loop() -> None:
    """Phases of 10 and 8 steps, from a half on, every 2 steps: 5, 7, 9 and 4, 6, 8."""
    ours, models = TwoLayers(), []
    net = ours.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method = StochasticWeightAveraging(start=0.5, every=2)
    method.attach(net, optimizer, loop=Data().loop())
    for step in range(1, 19):
        if step in (1, 11):
            method.enter_phase(step // 10, 10 if step == 1 else 8, None, 2)
            models = []
        inputs, labels = ours.batch(step)
        ours.step(ours.gradients(inputs, labels), 0.3)
        descend(net, optimizer, inputs, labels)
        if step in (5, 7, 9, 14, 16, 18):
            models.append(dict(ours.weights))
        ours.assert_equals(net)
        with method.evaluating():
            for name, tensor in net.state_dict().items():
                mean = np.mean([model[name] for model in models or [ours.weights]], axis=0)
                np.testing.assert_allclose(tensor, mean, rtol=1e-10, err_msg=name)


def test_it_is_torchs_averaged_model_with_its_statistics(make_net: Make) -> None:
    """From the first step on, with batches of one size, for which torch weighs them alike."""
    net, data = make_net(), Data()
    method, optimizer = attached(net, data, start=0.0, every=1)
    method.enter_phase(0, 8, None, 1)
    average = AveragedModel(net)
    for step in range(8):
        train_step(net, optimizer, step)
        average.update_parameters(net)
    update_bn(data.inputs, average)
    with method.evaluating():
        judged = copied(net)
    for name, tensor in average.module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(judged[name], tensor)


def test_batches_weigh_by_their_sizes() -> None:
    """The mean over all 36 examples, where torch's own tool gives each batch a third."""
    net, data = nn.Sequential(nn.BatchNorm1d(6)), Data(last=4)
    net.eval()
    measure_statistics(net, data.inputs)
    torch.testing.assert_close(net[0].running_mean, torch.cat(data.inputs).mean(0))
    variances = torch.stack([inputs.var(0) * len(inputs) / 36 for inputs in data.inputs])
    torch.testing.assert_close(net[0].running_var, variances.sum(0))
    assert net[0].momentum == 0.1 and int(net[0].num_batches_tracked) == 0


def test_a_stacks_statistics_are_each_seeds_own() -> None:
    """The second dimension of a stack's inputs counts examples, not the first."""
    stack = StackedMLP((6, 5, 3), 2, "relu", "batch").eval()
    draw = torch.Generator().manual_seed(5)
    inputs = [torch.randn(2, size, 6, generator=draw) for size in (16, 4)]
    measure_statistics(stack, inputs)
    norm = next(child for child in stack.modules() if hasattr(child, "running_mean"))
    linear = {name: p for name, p in stack.named_parameters() if p.shape == (2, 5, 6)}
    (weight,) = linear.values()
    bias = next(p for p in stack.parameters() if p.shape == (2, 5))
    whole = torch.cat(inputs, 1) @ weight.mT + bias[:, None]
    torch.testing.assert_close(norm.running_mean, whole.mean(1).detach())


def test_evaluating_leaves_no_trace_and_draws_nothing() -> None:
    """Dropout is off while statistics are measured, and generators stand where they stood."""
    net, data = Net(), Data()
    method, optimizer = attached(net, data, start=0.0)
    method.every = 1
    method.enter_phase(0, 8, None, 1)
    for step in range(4):
        train_step(net, optimizer, step)
    with leaves_no_trace(method), method.evaluating():
        first = copied(net)
        assert not any(child.training for child in net.modules())
    method._is_settled = False
    torch.manual_seed(99)
    with method.evaluating():
        assert_equal(net.state_dict(), first)


def test_statistics_are_measured_only_when_the_average_changed(make_net: Make) -> None:
    net, data = make_net(), Data()
    method, optimizer = attached(net, data, start=0.5, every=3)
    method.enter_phase(0, 8, None, 2)
    asked = []
    for step in range(8):
        train_step(net, optimizer, step)
        for _ in range(2):
            with method.evaluating():
                pass
        asked.append(data.asked)
    assert asked == [0, 0, 0, 1, 1, 1, 2, 2]
    method.enter_phase(1, 8, None, 2)
    with method.evaluating():
        assert data.asked == 2


def test_a_network_without_statistics_reads_no_data() -> None:
    net, data = nn.Sequential(nn.Linear(6, 3)), Data()
    method, optimizer = attached(net, data, start=0.0, every=1)
    method.enter_phase(0, 8, None, 1)
    train_step(net, optimizer, 0)
    asked: list[Tensor] = []
    data.inputs = asked
    with method.evaluating():
        pass


def test_the_training_statistics_would_be_the_wrong_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the package's loop, a network with BatchNorm: unmeasured, other accuracies come out."""
    method = StochasticWeightAveraging(start=0.25, every=2)
    measured = make_run(method, CNN)
    with method.evaluating():
        name = next(n for n, _ in measured.module.named_buffers() if n.endswith("running_mean"))
        holder = measured.module.get_submodule(name.rpartition(".")[0])
        taken: list[Tensor] = []
        hook = holder.register_forward_pre_hook(lambda module, given: taken.append(given[0]))
        assert method.loop.batches is not None
        for inputs, _ in method.loop.batches():
            measured.module(inputs)
        hook.remove()
        dims = [dim for dim in range(taken[0].dim()) if dim != 1]
        sizes = torch.tensor([float(len(each)) for each in taken])
        means = torch.stack([each.mean(dims) for each in taken])
        expected = (sizes @ means.flatten(1)) / sizes.sum()
        judged = measured.module.get_buffer(name).flatten()
        torch.testing.assert_close(judged, expected.flatten(), atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(StochasticWeightAveraging, "settle", Method.setup)
    assert make_run(StochasticWeightAveraging(start=0.25, every=2), CNN).history.points != (
        measured.history.points
    )


def test_it_needs_the_length_of_a_phase_and_data(make_net: Make) -> None:
    net = make_net()
    _, optimizer = attached(net, Data())
    with pytest.raises(UsageError, match="not told the length of the phase; call enter_phase"):
        train_step(net, optimizer, 0)
    optimizer = torch.optim.AdamW(net.parameters())
    with pytest.raises(UsageError, match=r"does not offer \('data'\)"):
        StochasticWeightAveraging().attach(net, optimizer)


@pytest.mark.parametrize("start", [-0.1, 1.0])
def test_values_it_cannot_take_are_refused(start: float) -> None:
    with pytest.raises(UsageError, match=f"start = {start}: a share of the phase"):
        StochasticWeightAveraging(start=start)
