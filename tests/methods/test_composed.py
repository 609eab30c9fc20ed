"""Methods together: `a+b` attaches both in that order, and is a method like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import DQN, PPO

import ht_bench.sb3  # noqa: F401
from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.clear_moments import ClearMoments
from ht_bench.methods.composed import compose
from ht_bench.methods.cosine import Cosine
from ht_bench.methods.early_stop import EarlyStop
from ht_bench.methods.ema import ExponentialMovingAverage
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.penalties import L2, L2Init
from ht_bench.methods.resets import FullReset, HeadReset, ShrinkPerturb
from ht_bench.methods.resolve import resolve
from ht_bench.methods.sam import SharpnessAware
from ht_bench.methods.weight_decay import WeightDecay
from ht_bench.testing import check_method
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.history import Interrupted, Observer

from .conftest import CNN, INPUTS, LABELS, MLP, Make, copied, descend, make_run
from .test_contract import assert_same_run

STRENGTH, EVERY = 0.3, 3


def both(*classes: type[Method], **values: Any) -> Method:
    return compose(classes)(**values)


@dataclass(eq=False)
class Doubling(Method):
    """Doubles the weights after each step: order can be told from adding."""

    name = "doubling"
    capturable = True

    def after_step(self) -> None:
        for parameter in self.module.parameters():
            parameter.mul_(2)


@dataclass(eq=False)
class Adding(Method):
    """Adds one after each step."""

    name = "adding"
    capturable = True

    def after_step(self) -> None:
        for parameter in self.module.parameters():
            parameter.add_(1)


@pytest.mark.parametrize(("order", "expected"), [((Doubling, Adding), 7), ((Adding, Doubling), 8)])
def test_hooks_run_in_the_order_in_which_methods_are_named(
    order: tuple[type[Method], ...], expected: float
) -> None:
    net = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(net.weight, 3.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    both(*order).attach(net, optimizer)
    net(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert net.weight.item() == expected


@pytest.mark.parametrize("net", [MLP, CNN], ids=["mlp", "cnn"])
def test_it_trains_as_the_two_attached_by_hand(net: dict[str, Any], make_net: Make) -> None:
    module, other = make_net(), make_net()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    theirs = torch.optim.AdamW(other.parameters(), lr=1e-2)
    together = both(HareTortoise, L2, hare_tortoise__reset_every=2, l2__strength=STRENGTH)
    together.attach(module, optimizer)
    first = HareTortoise(reset_every=2).attach(other, theirs)
    L2(strength=STRENGTH).attach(other, theirs)
    for _ in range(5):
        descend(module, optimizer, INPUTS, LABELS)
        descend(other, theirs, INPUTS, LABELS)
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in module.state_dict().items())
    with together.evaluating() as judged, torch.no_grad():
        mine = judged(INPUTS)
    with first.evaluating() as judged, torch.no_grad():
        assert torch.equal(mine, judged(INPUTS))


@pytest.mark.parametrize(
    "method",
    [
        both(HareTortoise, L2Init, hare_tortoise__reset_every=2, hare_tortoise__decay=0.9),
        both(ShrinkPerturb, HareTortoise, shrink_perturb__toward="fresh"),
        both(SharpnessAware, HeadReset, EarlyStop),
    ],
    ids=lambda method: str(method.name),
)
def test_it_keeps_the_contract_of_a_method(method: Method, tmp_path: Path) -> None:
    check_method(method)
    whole, resumed = make_run(replace(method)), make_run(replace(method), trained=False)
    plan = CheckpointPlan(tmp_path / "tiny.pt", "tiny")
    stops = iter([False] * 12 + [True])
    with pytest.raises(Interrupted):
        make_run(replace(method), trained=False).train(plan, Observer(stop=lambda: next(stops)))
    resumed.train(plan)
    assert_same_run(resumed, whole)


def test_with_an_inert_part_it_is_the_other() -> None:
    alone = make_run(L2(strength=STRENGTH))
    for classes in ((HareTortoise, L2), (L2, HareTortoise)):
        method = both(*classes, l2__strength=STRENGTH, hare_tortoise__reset_every=None)
        assert_same_run(make_run(method), alone)


def test_a_name_with_a_plus_resolves_with_each_part_s_recipe_and_settings() -> None:
    task = "warm-start-digits-v1"
    spec = resolve("hare-tortoise+l2", task, {"l2.strength": 0.5, "reset_every": 7})
    alone = resolve("hare-tortoise", task).hyperparameters
    assert spec.name == "hare-tortoise+l2"
    assert spec.hyperparameters["hare_tortoise__decay"] == alone["decay"]
    assert spec.hyperparameters["hare_tortoise__reset_every"] == 7
    assert spec.hyperparameters["l2__strength"] == 0.5
    method = spec.build()
    assert [type(part) for part in method.parts] == [HareTortoise, L2]  # type: ignore[attr-defined]
    assert spec.source_sha256 == resolve("hare-tortoise+l2").source_sha256
    assert spec.source_sha256 != resolve("l2+hare-tortoise").source_sha256
    assert spec.traits()["needs_boundaries"] is False
    assert resolve("l2+full-reset").traits()["needs_boundaries"] is True


def test_a_part_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom ht_bench import Method\n\n\n"
        "@dataclass(eq=False)\nclass Mine(Method):\n    name = 'mine'\n    amount: float = 0.5\n"
    )
    spec = resolve(f"{file}:Mine+l2", overrides={"mine.amount": 0.25})
    assert spec.name == "mine+l2" and spec.hyperparameters["mine__amount"] == 0.25
    assert spec.build().name == "mine+l2"


@pytest.mark.parametrize(
    ("named", "settings", "sentence"),
    [
        ("l2+l2", {}, "names 'l2' twice"),
        ("l2+nosuch", {}, "Unknown method 'nosuch'"),
        ("hare-tortoise+ema", {"decay": 0.5}, "no hyperparameter 'decay'"),
        (
            "hare-tortoise+l2",
            {"l2.strenght": 1},
            "'hare-tortoise\\+l2' has no hyperparameter 'l2.strenght'. Did you mean 'l2.strength'?",
        ),
        ("hare-tortoise+l2", {"decya": 0.5}, "'decya'.*It has: hare-tortoise.decay, .*l2.strength"),
        ("hare-tortoise+l2", {"l2.strength": -1}, "strength = -1"),
    ],
)
def test_what_cannot_be_composed_gets_a_sentence(
    named: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        resolve(named, overrides=settings)


def test_a_failed_attach_leaves_nothing_behind(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters())
    method = both(L2, HeadReset, head_reset__layers=99, l2__strength=STRENGTH)
    with pytest.raises(UsageError, match="layers = 99"):
        method.attach(net, optimizer)
    before = copied(net)
    descend(net, optimizer, INPUTS, LABELS)
    plain = make_net()
    plain.load_state_dict(before)
    descend(plain, torch.optim.AdamW(plain.parameters()), INPUTS, LABELS)
    assert all(torch.equal(t, plain.state_dict()[n]) for n, t in net.state_dict().items())


def test_agents_have_combinations_too(tmp_path: Path) -> None:
    kwargs = {"plasticity": "hare-tortoise+l2", "plasticity_kwargs": {"reset_every": 2}}
    model = DQN("PlasticMlpPolicy", "CartPole-v1", learning_starts=10, policy_kwargs=kwargs, seed=0)
    model.learn(60)
    policy: Any = model.policy
    assert policy.plasticity_name == "hare-tortoise+l2" and policy.has_tortoise
    model.save(tmp_path / "agent")
    again = DQN.load(tmp_path / "agent")
    state, theirs = policy.state_dict(), again.policy.state_dict()
    assert state.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in state.items())
    kwargs = {"plasticity": "l2+self-distillation"}
    with pytest.raises(Unsuitable, match="adds to the loss"):
        PPO("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs)


def test_the_anchor_in_a_combination_still_starts_over() -> None:
    module = make_run(both(L2, FullReset, l2__strength=0.0)).module.state_dict()
    alone = make_run(FullReset()).module.state_dict()
    assert all(torch.equal(value, alone[key]) for key, value in module.items())
    assert both(ExponentialMovingAverage, L2).has_tortoise is True


def test_a_second_pass_is_undone_in_a_combination_too() -> None:
    method = both(L2, SharpnessAware, l2__strength=0.0, sam__radius=0.2)
    assert_same_run(make_run(method), make_run(SharpnessAware(radius=0.2)))


def test_the_first_of_the_parts_to_act_is_due(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters())
    method = both(HareTortoise, ClearMoments, hare_tortoise__reset_every=5, clear_moments__every=3)
    method.attach(net, optimizer)
    seen = []
    for _ in range(6):
        seen.append(method.due())
        descend(net, optimizer, INPUTS, LABELS)
    assert seen == [3, 2, 1, 2, 1, 1]
    assert both(L2, EarlyStop).due() is None


PAIRS = [
    both(FullReset, Cosine),
    both(ExponentialMovingAverage, WeightDecay, ema__decay=0.9),
    both(HareTortoise, L2Init, hare_tortoise__decay=0.9, hare_tortoise__reset_every=2),
]


def trained(method: Method) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    net = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method.attach(net, optimizer)
    method.enter_phase(0, 3, None, 3)
    return net, optimizer


def fit(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step()


@pytest.mark.filterwarnings("error:.*no step of the optimizer")
@pytest.mark.parametrize("method", PAIRS, ids=lambda method: method.name)
def test_what_one_part_does_to_the_weights_is_no_missing_step_to_another(method: Method) -> None:
    method = replace(method)
    net, optimizer = trained(method)
    for phase in (1, 2):
        for _ in range(3):
            fit(net, optimizer)
        for _ in range(2):
            with method.evaluating():
                pass
        method.enter_phase(phase, 3, None, 3)
        for _ in range(2):
            with method.evaluating():
                pass


@pytest.mark.parametrize("method", PAIRS, ids=lambda method: method.name)
def test_a_step_that_no_part_saw_warns(method: Method) -> None:
    method = replace(method)
    net, _ = trained(method)
    fit(net, torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.warns(UserWarning, match="no step of the optimizer"):
        method.enter_phase(1, 3, None, 2)
