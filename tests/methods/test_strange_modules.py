"""Modules that are loaded, replaced, wrapped, tied or redrawn; numbers of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.ema import ExponentialMovingAverage, decay_for
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.penalties import L2, L2Init
from ht_bench.methods.resets import FullReset, HeadReset, ShrinkPerturb
from ht_bench.methods.resolve import resolve
from ht_bench.methods.self_distillation import SelfDistillation

from .conftest import copied, make_run
from .test_any_program import fit, sgd

# ---- weights loaded, parts replaced, other networks' checkpoints ----

KEEPERS: list[Callable[[], Method]] = [
    lambda: HareTortoise(decay=0.5, reset_every=3),
    lambda: L2Init(strength=0.1),
    lambda: ShrinkPerturb(amount=1.0),
]


@pytest.mark.parametrize("make", KEEPERS)
def test_resync_starts_at_loaded_weights(make: Callable[[], Method]) -> None:
    net = nn.Linear(4, 2)
    optimizer = sgd(net, 0.0)
    method = make().attach(net, optimizer)
    with torch.no_grad():
        net.weight.fill_(3.0)
    method.resync()
    fit(net, optimizer, 3)
    method.enter_phase(1, 5, None, 2)
    assert torch.equal(net.weight, torch.full((2, 4), 3.0))


@pytest.mark.parametrize("outputs", [2, 5])
@pytest.mark.parametrize("make", KEEPERS)
def test_a_replaced_part_is_noticed(make: Callable[[], Method], outputs: int) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = sgd(net)
    method = make().attach(net, optimizer)
    net[1] = nn.Linear(4, outputs)
    optimizer.add_param_group({"params": list(net[1].parameters())})

    def go_on() -> None:
        fit(net, optimizer)
        method.enter_phase(1, 5, None, 2)

    with pytest.raises(UsageError, match=r"call method\.resync\(\)"):
        go_on()
    method.resync()
    fit(net, optimizer)
    method.enter_phase(1, 5, None, 2)
    with method.evaluating() as judged:
        judged(torch.ones(1, 4))


def test_a_weight_that_grew_in_place_is_noticed() -> None:
    net = nn.Linear(4, 2)
    method = ExponentialMovingAverage(decay=0.5).attach(net, sgd(net))
    net.weight.data = torch.ones(3, 4)
    with pytest.raises(UsageError, match=r"'weight' is now \[3, 4\]"), method.evaluating():
        pass


@pytest.mark.parametrize("make", KEEPERS)
def test_a_checkpoint_of_another_network_is_refused_whole(make: Callable[[], Method]) -> None:
    def attached(net: nn.Module) -> Method:
        return make().attach(net, sgd(net))

    method = attached(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)))
    before = method.checkpoint()["state"]
    kept = {k: copied(v) for k, v in before.items() if isinstance(v, dict)}
    for other in (
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(3, 3)),
        nn.Sequential(nn.Linear(4, 4)),
    ):
        with pytest.raises(UsageError, match="another network's"):
            method.restore(attached(other).checkpoint(), None, None)
    after = method.checkpoint()["state"]
    for key, tensors in kept.items():
        assert all(torch.equal(after[key][name], tensor) for name, tensor in tensors.items())


def test_a_checkpoint_of_another_method_is_refused() -> None:
    net = nn.Linear(4, 2)
    method = HareTortoise().attach(net, sgd(net))
    for saved in (
        ExponentialMovingAverage().attach(net, sgd(net)).checkpoint(),
        L2Init().attach(net, sgd(net)).checkpoint(),
        {},
        FullReset().attach(net, sgd(net), generator=torch.Generator()).checkpoint(),
    ):
        with pytest.raises(UsageError, match="checkpoint"):
            method.restore(saved, None, None)


@pytest.mark.parametrize("make", KEEPERS)
@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda n: torch.compile(n, backend="eager")])
def test_wrappers_prefixes_do_not_count(make: Callable[[], Method], wrap: Any) -> None:
    net, other = nn.Linear(4, 2), nn.Linear(4, 2)
    wrapped = make().attach(wrap(net), sgd(net))
    bare = make().attach(other, sgd(other))
    key = next(k for k, v in bare.state_dict().items() if isinstance(v, dict))
    bare.restore(wrapped.checkpoint(), None, None)
    assert torch.equal(bare.state_dict()[key]["weight"], net.weight)  # load does something
    wrapped.restore(bare.checkpoint(), None, None)


# ---- redrawn ----


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.inner.bias, 0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.TransformerEncoderLayer(8, 2, 16),
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        lambda: nn.LSTM(4, 4),
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4))),
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4))),
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4))),
        lambda: nn.Sequential(prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)),
    ],
)
def test_a_full_reset_redraws_every_matrix(make: Callable[[], nn.Module]) -> None:
    net = make()
    method = FullReset().attach(net, sgd(net), generator=torch.Generator())
    masks = {n: b.clone() for n, b in net.named_buffers() if "mask" in n}
    before = {n: p.detach().clone() for n, p in net.named_parameters() if p.dim() > 1}
    method.enter_phase(1, 5, None, 2)
    for name, parameter in net.named_parameters():
        changed = name not in before or not torch.equal(parameter, before[name])
        assert changed or name.endswith("original0"), name  # weight norm's lengths may agree
    assert all(torch.equal(net.get_buffer(name), mask) for name, mask in masks.items())


def test_a_redraw_under_spectral_norm_has_norm_one() -> None:
    net = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)))
    FullReset().attach(net, sgd(net)).enter_phase(1, 5, None, 2)
    norm = torch.linalg.matrix_norm(net.eval()[0].weight.detach(), 2)
    torch.testing.assert_close(norm, torch.tensor(1.0), rtol=1e-3, atol=0)


def test_the_outermost_reset_parameters_has_the_last_word() -> None:
    net = Own()
    FullReset().attach(net, sgd(net)).enter_phase(1, 5, None, 2)
    assert torch.equal(net.inner.bias, torch.full((4,), 0.5))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.token


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_cannot_be_redrawn_is_said_before_anything_changes() -> None:
    for layer in (Bare(), nn.utils.weight_norm(nn.Linear(4, 4))):
        net = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2))
        optimizer = torch.optim.Adam(net.parameters())
        generator = torch.Generator().manual_seed(0)
        method = FullReset().attach(net, optimizer, generator=generator)
        fit(net, optimizer)
        before, states = copied(net), len(optimizer.state)
        with pytest.raises(UsageError, match="pass initialize="):
            method.enter_phase(1, 5, None, 2)
        assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
        assert len(optimizer.state) == states > 0
        assert generator.get_state().equal(torch.Generator().manual_seed(0).get_state())


def test_a_head_reset_asks_nothing_of_other_layers() -> None:
    net = nn.Sequential(Bare(), nn.Linear(4, 4), parametrizations.weight_norm(nn.Linear(4, 2)))
    method = HeadReset().attach(net, sgd(net))
    before = copied(net)
    method.enter_phase(1, 5, None, 2)
    changed = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    assert changed >= {"2.bias", "2.parametrizations.weight.original1"}
    assert all(name.startswith("2.") for name in changed)


def test_a_tied_head_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    with pytest.raises(UsageError, match=r"'1\.weight' is also the weight of '0\.weight'"):
        HeadReset().attach(net, sgd(net))


def test_kept_activations_do_not_stop_a_redraw() -> None:
    net = nn.Sequential(nn.Linear(4, 4))
    method = FullReset().attach(net, sgd(net))
    net.last = net(torch.ones(1, 4))
    method.enter_phase(1, 5, None, 2)


# ---- numbers ----


def test_sparse_gradients_are_refused_by_penalties() -> None:
    net = nn.Embedding(5, 3, sparse=True)
    optimizer = sgd(net)
    L2(strength=0.1).attach(net, optimizer)
    net(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="sparse=False"):
        optimizer.step()


@pytest.mark.parametrize(
    ("cls", "given", "expected"),
    [
        (HareTortoise, {"reset_every": np.int64(7)}, 7),
        (HareTortoise, {"reset_every": 1e4}, 10_000),
        (HareTortoise, {"decay": np.float32(0.9)}, 0.9),
        (HareTortoise, {"decay": torch.tensor(0.5)}, 0.5),
        (HeadReset, {"layers": np.int32(1)}, 1),
        (L2, {"strength": np.float64(0.25)}, 0.25),
    ],
)
def test_numbers_of_other_libraries_are_plain_ones(
    cls: type[Method], given: dict[str, Any], expected: float
) -> None:
    (name,) = given
    for value in (getattr(cls(**given), name), resolve(cls, "", given).hyperparameters[name]):
        assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    "value", [True, "0.9", float("nan"), float("inf"), None, np.float32("nan")]
)
@pytest.mark.parametrize(("cls", "name"), [(HareTortoise, "decay"), (L2, "strength")])
def test_what_is_no_number_is_refused(cls: type[Method], name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name} = "):
        cls(**{name: value})


# ---- defaults that scale ----


def test_the_papers_setting_is_the_fixed_point() -> None:
    assert decay_for(20_000) == decay_for(None) == 0.999
    assert decay_for(400) == 0.95


def test_defaults_follow_the_phase_and_survive_a_checkpoint() -> None:
    net = nn.Linear(4, 2)
    optimizer = sgd(net)
    method = HareTortoise().attach(net, optimizer)
    assert method.enter_phase(0, 400, 20, 2) == 400
    resets = []
    for step in range(1, 81):
        fit(net, optimizer)
        if torch.equal(net.weight, method.tortoise.named()["weight"]):
            resets.append(step)
    assert resets == [40, 80]
    other = nn.Linear(4, 2)
    resumed = HareTortoise().attach(other, sgd(other))
    resumed.restore(method.checkpoint(), 20, 2)
    assert (resumed._decay, resumed._interval()) == (0.95, 40)
    resumed.enter_phase(1, 20_000, 20, 2)
    assert (resumed._decay, resumed._interval()) == (0.999, 2_000)


@pytest.mark.parametrize("cls", [ExponentialMovingAverage, HareTortoise, SelfDistillation])
def test_the_packages_loop_tells_the_length(cls: type[ExponentialMovingAverage]) -> None:
    run = make_run(cls())
    assert isinstance(run.method, cls)
    assert run.method._decay == decay_for(12)


def test_outside_a_tortoise_judged_too_early_warns_once(recwarn: pytest.WarningsRecorder) -> None:
    net = nn.Linear(4, 2)
    optimizer = sgd(net)
    method = ExponentialMovingAverage(decay=0.9).attach(net, optimizer)
    fit(net, optimizer, 29)
    evaluation = method.evaluating()
    with pytest.warns(UserWarning, match=r"judged after 29 steps, too few for decay 0\.9"):
        evaluation.__enter__()
    evaluation.__exit__(None, None, None)
    recwarn.clear()
    other = ExponentialMovingAverage(decay=0.9).attach(net, optimizer)
    fit(net, optimizer, 30)
    with other.evaluating():
        pass
    assert not [w for w in recwarn if "judged" in str(w.message)]
